// The page of a presentation: what will happen, the pictures, and what came of it.

import { enter, post, socketAddress } from "./api.js";
import { SessionClock } from "./clock.js";
import { byId, write } from "./panels.js";
import { preload, Presentation } from "./presentation.js";
import { Socket } from "./socket.js";
import { TrainingView } from "./training.js";

/** @typedef {import("./wire.js").StateHeader} StateHeader */
/** @typedef {import("./presentation.js").Trial} Trial */
/** @typedef {import("./presentation.js").Outcome} Outcome */
/** @typedef {import("./presentation.js").Reason} Reason */

/** Milliseconds between round trips, and how many there are at once at first. */
const PING_INTERVAL = 1000;
const FIRST_PINGS = 8;
/** Milliseconds that a recorder may take to begin, and for which it goes on after the last picture. */
const PATIENCE = 15_000;
const TAIL = 2000;

const TITLES = { break: "A break", hidden: "The pictures stopped", away: "The pictures stopped" };
const TEXTS = {
  hidden: "This page was not to be seen for a moment.",
  away: "The server does not answer. Wait until it does.",
};

const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id));
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

const clock = new SessionClock();
/** @type {StateHeader | null} */
let state = null;
/** Whether the next round trip is the first with a server. */
let isNew = true;
/** @type {Presentation | null} */
let presentation = null;
/** Whether the recording was begun here. */
let isOurs = false;
/** The server's newest objection to what this page told. */
let objection = "";
/** Pseudonym of whoever was recorded in this presentation, or "". */
let recorded = "";

const VIEWS = /** @type {const} */ (["before", "after", "training", "report"]);
const training = new TrainingView(show, say);

const socket = new Socket(
  socketAddress(),
  ({ type, header }) => {
    if (type === "state") showState(header);
    else if (type === "error") say((objection = header.sentence));
    else if (type === "pong") {
      if (isNew) clock.clear();
      isNew = false;
      clock.add(header.t_page, performance.now(), header.t_server);
    }
  },
  (isConnected) => {
    if (isConnected) {
      isNew = true;
      for (let i = 0; i < FIRST_PINGS; i++) setTimeout(ping, 50 * i);
      say("");
    } else {
      presentation?.interrupt(performance.now(), "away");
      say("The server does not answer. Trying again.");
      state = null;
      allow();
    }
  },
);

function ping() {
  socket.send("ping", { t_page: performance.now() });
}

/** @param {string} text */
function say(text) {
  write("sentence", text);
  byId("sentence").classList.toggle("empty", text === "");
}

/** @param {StateHeader} header */
function showState(header) {
  state = header;
  byId("honesty").dataset.honesty = header.honesty;
  write("honesty-word", header.honesty || "waiting");
  write("source", `${header.source}, ${header.ch_names.length} electrodes`);
  byId("recording").hidden = header.recording === null;
  byId("to-record").hidden = header.recording !== null;
  write("begin", header.recording === null ? "Record and begin" : "Begin");
  if (!header.is_operator) {
    say("Only the operator may do this. Open the page with the address that the terminal shows, then come back.");
  }
  if (!presentation) training.take(header.training);
  allow();
}

/** @param {typeof VIEWS[number]} view */
function show(view) {
  for (const id of VIEWS) byId(id).hidden = id !== view;
  byId("earlier").hidden = view !== "before";
  // A report says itself whose EEG it is of.
  byId("session").hidden = view === "report";
  scrollTo(0, 0);
}

function allow() {
  const isAllowed = state?.is_operator === true;
  for (const id of ["begin", "try", "earlier-train", "earlier-report"]) enable(id, isAllowed);
  // A recording that goes on is not read.
  enable("train", isAllowed && state?.recording === null);
  // What is hidden needs not be filled in.
  /** @type {HTMLFieldSetElement} */ (byId("to-record")).disabled = state?.recording != null;
}

/**
 * @param {string} id
 * @param {boolean} is
 */
function enable(id, is) {
  /** @type {HTMLButtonElement} */ (byId(id)).disabled = !is;
}

/** @param {boolean} isRecorded */
async function begin(isRecorded) {
  // Only at once after a press does a browser allow it; without, it is done in the window.
  const filled = document.documentElement.requestFullscreen().catch(() => {});
  try {
    if (isRecorded && !state?.recording) await record();
    const wanted = { minutes: input("minutes").valueAsNumber, duration: input("duration").valueAsNumber };
    /** @type {{trials: Trial[]}} */
    const { trials } = await post("api/presentation", wanted);
    await filled;
    const pictures = await preload(trials, (done, of) => say(`Loading pictures: ${done} of ${of}.`));
    say("");
    present(trials, pictures);
  } catch (error) {
    say(/** @type {Error} */ (error).message);
    await finish();
  }
}

async function record() {
  const wanted = { subject: input("subject").value, keep_days: input("days").valueAsNumber };
  await post("api/recording", { is_on: true, has_consent: input("consent").checked, ...wanted });
  isOurs = true;
  recorded = wanted.subject;
  say("The recording begins.");
  const end = performance.now() + PATIENCE;
  // From the first report on, samples are written.
  while (!state?.recording?.seconds) {
    if (performance.now() > end) throw new Error(state?.sentence || "The recording did not begin. Try again.");
    await sleep(50);
  }
}

/** Leave the full screen and end the recording, if it was begun here. */
async function finish() {
  if (document.fullscreenElement) await document.exitFullscreen().catch(() => {});
  if (!isOurs) return;
  isOurs = false;
  // Each recording is agreed to anew.
  input("consent").checked = false;
  await sleep(TAIL);
  await post("api/recording", { is_on: false }).catch(({ message }) => say(message));
}

/**
 * @param {Trial[]} trials
 * @param {Map<string, ImageBitmap>} pictures
 */
function present(trials, pictures) {
  byId("during").hidden = false;
  presentation = new Presentation(/** @type {HTMLCanvasElement} */ (byId("screen")), trials, pictures, {
    hasPatch: input("patch").checked,
    toSession: (ms) => clock.at(ms),
    tell: (message) => socket.send("stimulus", message),
    onPause: (reason) => pause(reason, (trials.at(-1)?.run ?? 0) - (trials[0]?.run ?? 0) + 1),
    onEnd: (outcome) => void end(outcome),
  });
  byId("pause").hidden = true;
  presentation.go();
}

/**
 * @param {Reason} reason
 * @param {number} nRuns
 */
function pause(reason, nRuns) {
  const done = presentation?.runsDone ?? 0;
  write("pause-title", TITLES[reason]);
  write("pause-text", reason === "break" ? `${done} of ${nRuns} parts are done. Rest your eyes.` : TEXTS[reason]);
  byId("pause").hidden = false;
}

/** @param {Outcome} outcome */
async function end(outcome) {
  presentation = null;
  byId("during").hidden = true;
  show("after");
  write("after-title", outcome.shown < outcome.planned ? "Ended early" : "Done");
  write("n-shown", `${outcome.shown} of ${outcome.planned}`);
  write("n-missed", String(outcome.missed + outcome.cut));
  write("n-caught", `${outcome.caught} of ${outcome.catches}`);
  write("n-pressed", String(outcome.pressed));
  write("error", outcome.shown ? `±${(1000 * outcome.error).toFixed(1)} ms (median)` : "none");
  write("watched", watched(outcome));
  say(objection);
  const wasRecorded = state?.recording != null;
  byId("train").hidden = recorded === "";
  write("train", `Train for ${recorded}`);
  await finish();
  write("file", wasRecorded ? `The recording lies in ${state?.recording_file ?? "the folder of recordings"}.` : "Nothing was recorded.");
}

/** @param {Outcome} outcome */
function watched({ catches, caught, pressed }) {
  if (catches === 0) return "There were no repeats, so nothing tells whether the pictures were watched.";
  if (caught >= 0.75 * catches && pressed <= catches) return "The pictures were watched.";
  return "Many repeats were missed, or keys pressed without one: the pictures may not have been watched. Think of recording again.";
}

/** Go on, if the server listens. */
function goOn() {
  if (!presentation?.isWaiting || state === null || isNew || document.hidden) return;
  byId("pause").hidden = true;
  presentation.go();
}

function listen() {
  const form = /** @type {HTMLFormElement} */ (byId("before"));
  form.onsubmit = (event) => {
    event.preventDefault();
    for (const id of ["begin", "try"]) enable(id, false);
    const pressed = /** @type {HTMLButtonElement} */ (event.submitter);
    void begin(pressed.value === "record").finally(allow);
  };
  const earlier = /** @type {HTMLFormElement} */ (byId("earlier"));
  earlier.onsubmit = (event) => {
    event.preventDefault();
    const subject = input("earlier-subject").value;
    void (event.submitter?.id === "earlier-train" ? training.begin(subject) : training.open(subject));
  };
  byId("train").onclick = () => void training.begin(recorded);
  for (const id of ["leave-training", "leave-report"]) byId(id).onclick = () => show("before");
  byId("again").onclick = () => location.reload();
  addEventListener("keydown", (event) => {
    if (!presentation || event.repeat) return;
    if (event.key === "Escape") presentation.stop();
    else if (event.key === " ") {
      event.preventDefault();
      if (presentation.isWaiting) goOn();
      else presentation.press(event.timeStamp);
    }
  });
  // Leaving the full screen by Esc is not told as a key.
  document.addEventListener("fullscreenchange", () => {
    if (!document.fullscreenElement) presentation?.stop();
  });
  document.addEventListener("visibilitychange", (event) => {
    if (document.hidden) presentation?.interrupt(event.timeStamp, "hidden");
  });
  setInterval(ping, PING_INTERVAL);
  byId("still").hidden = !matchMedia("(prefers-reduced-motion: reduce)").matches;
}

listen();
await enter().catch(({ message }) => say(message));
socket.connect();
