// Puts the page together: connection, picture, traces, words, keys.

import { enter, post, socketAddress } from "./api.js";
import { byId, Panels, write } from "./panels.js";
import { Socket } from "./socket.js";
import { Stage } from "./stage.js";
import { Traces } from "./traces.js";

/** @typedef {import("./wire.js").StateHeader} StateHeader */

/** Seconds without any EEG or picture after which the page says so. */
const STALL = 4;
/** Seconds for which it is said what the server refused. */
const COMPLAINT = 8;
/** Seconds in which a second press on Stop confirms the first. */
const CONFIRM = 4;
/** Seconds between drawings at least: 30 frames come a second, and each drawing costs. */
const INTERVAL = 0.025;
const ACKNOWLEDGED = "phosphene: warning acknowledged";

const now = () => performance.now() / 1000;
const canvas = (/** @type {string} */ id) => /** @type {HTMLCanvasElement} */ (byId(id));

const panels = new Panels();
const traces = new Traces(canvas("traces"));
const stage = new Stage(canvas("picture"), canvas("ambient"), (header, isDrawn, shown) => {
  // Acknowledged after drawing only; what stands still by will says that it was not drawn.
  const { number } = header;
  socket.send("ack", isDrawn ? { number, shown_ms: shown } : { number, is_drawn: false });
  if (isDrawn) panels.showFrame(header);
});

let tDraw = -Infinity;
let isConnected = false;
let hasConnected = false;
let tHeard = now();
/** Why the server lets no one watch, if that is why there is no connection. */
let refusal = "";
/** What the server refused, and when. */
let error = { sentence: "", t: -Infinity };
/** @type {StateHeader | null} */
let state = null;

const socket = new Socket(
  socketAddress(),
  ({ type, header, payload }) => {
    if (type === "frame") stage.take(header, payload);
    else if (type === "traces") traces.take(header, payload);
    else if (type === "state") {
      state = header;
      panels.showState(header);
      traces.name(header.ch_names);
    } else if (type === "error") complain(header.sentence);
    if (type === "frame" || type === "traces") tHeard = now();
  },
  (is) => {
    isConnected = is;
    hasConnected ||= is;
    tHeard = now();
    document.body.classList.toggle("away", !is);
    tell();
    if (!is) void askWhy();
  },
);

/** @param {string} text */
function complain(text) {
  error = { sentence: text, t: now() };
}

/** A browser does not say why a WebSocket was refused. */
async function askWhy() {
  try {
    refusal = (await (await fetch("healthz")).json()).refusal ?? "";
  } catch {
    refusal = "";
  }
  tell();
}

/** The most important thing to say, or "". */
function sentence() {
  if (stage.isFrozen) return "The picture stands still. Press Esc to go on.";
  if (now() - error.t < COMPLAINT) return error.sentence;
  if (!isConnected && refusal) return refusal;
  if (!isConnected) return hasConnected ? "The server does not answer. Trying again." : "Connecting.";
  if (state?.sentence) return state.sentence;
  if (state?.is_paused) return "Paused by the operator.";
  if (now() - tHeard > STALL) return "No EEG and no picture has arrived for some seconds.";
  return "";
}

function tell() {
  const text = sentence();
  write("sentence", text);
  byId("sentence").classList.toggle("empty", text === "");
}

function draw() {
  requestAnimationFrame(draw);
  const t = now();
  if (t < tDraw + INTERVAL) return;
  tDraw = t;
  stage.draw(t);
  traces.draw(t);
}

function freeze() {
  stage.isFrozen = !stage.isFrozen;
  byId("freeze").setAttribute("aria-pressed", String(stage.isFrozen));
  write("freeze", stage.isFrozen ? "Go on" : "Freeze");
  tell();
}

/** @param {number} step */
function turnGain(step) {
  traces.turn(step);
  showGain();
}

function showGain() {
  write("gain", `${traces.gain} µV`);
  byId("scale").style.setProperty("--row", `${traces.rowHeight}px`);
}

function listen() {
  byId("freeze").onclick = freeze;
  byId("louder").onclick = () => turnGain(1);
  byId("softer").onclick = () => turnGain(-1);
  byId("pause").onclick = () =>
    socket.send("control", { action: state?.is_paused ? "resume" : "pause" });
  const dialog = /** @type {HTMLDialogElement} */ (byId("record-dialog"));
  byId("record").onclick = () => (state?.recording ? void record({ is_on: false }) : dialog.showModal());
  byId("record-cancel").onclick = () => dialog.close();
  byId("record-form").onsubmit = () => {
    const [subject, days, consent] = ["subject", "days", "consent"].map(
      (name) => /** @type {HTMLInputElement} */ (byId(`record-${name}`)),
    );
    const wanted = { subject: subject.value, keep_days: days.valueAsNumber, has_consent: consent.checked };
    void record({ is_on: true, ...wanted });
    // Each recording is agreed to anew.
    consent.checked = false;
  };
  let tStop = -Infinity;
  byId("stop").onclick = () => {
    if (now() - tStop < CONFIRM) socket.send("control", { action: "stop" });
    else write("stop", "Stop the session: press again");
    tStop = now();
    setTimeout(() => write("stop", "Stop"), CONFIRM * 1000);
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.key === "Escape") freeze();
    else if (event.key === "+" || event.key === "=") turnGain(1);
    else if (event.key === "-") turnGain(-1);
  });
  new ResizeObserver(showGain).observe(byId("traces"));
  setInterval(() => {
    tell();
    showGain();
  }, 500);
  const motion = matchMedia("(prefers-reduced-motion: reduce)");
  const follow = () => {
    stage.isStill = motion.matches;
    byId("still").hidden = !motion.matches;
  };
  motion.addEventListener("change", follow);
  follow();
}

/** @param {object} wanted */
async function record(wanted) {
  await post("api/recording", wanted).catch(({ message }) => complain(message));
  tell();
}

/** Nothing is drawn before the warning was acknowledged. */
function warned() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("warning"));
  if (sessionStorage.getItem(ACKNOWLEDGED)) return Promise.resolve();
  dialog.showModal();
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(ACKNOWLEDGED, "yes");
      resolve(undefined);
    });
  });
}

await Promise.all([warned(), enter().catch(({ message }) => complain(message))]);
listen();
socket.connect();
requestAnimationFrame(draw);
