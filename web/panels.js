// Words and figures beside the picture.

import { GRADES, Head, inWords } from "./electrodes.js";

/** @typedef {import("./wire.js").FrameHeader} FrameHeader */
/** @typedef {import("./wire.js").StateHeader} StateHeader */
/** @typedef {import("./wire.js").Percentiles} Percentiles */

/** @type {Record<string, string>} */
const HONESTY = {
  simulated: "A computer plays the subject; no one wears a headset.",
  replay: "A recording is played back.",
  live: "A person is wearing the headset now.",
};

// Seconds from the newest sample of an epoch to its middle, where the response to a picture is.
const HALF_EPOCH = 0.5;
// Changes of what is seen that are remembered: pictures come one or two seconds after them.
const SEEN_KEPT = 16;

/**
 * The element with an id, which the page has.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no #${id}.`);
  return found;
}

/**
 * Set text only when it changes: otherwise screen readers would say it again.
 * @param {string} id
 * @param {string} text
 */
export function write(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Show a small picture, or none.
 * @param {string} id
 * @param {string} address
 */
function showPicture(id, address) {
  const picture = /** @type {HTMLImageElement} */ (byId(id));
  picture.hidden = !address;
  if (address && picture.src !== address) picture.src = address;
}

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** @param {Percentiles} latency */
function seconds(latency) {
  if (!latency || latency.p50 === null) return "no figure yet";
  return `${(latency.p50 / 1000).toFixed(2)} s · p95 ${(latency.p95 / 1000).toFixed(2)} s`;
}

export class Panels {
  /** @type {import("./wire.js").Seen[]} */
  #seen = [];
  #head = new Head(/** @type {SVGSVGElement} */ (/** @type {unknown} */ (byId("head"))));
  /** The epoch that the page tells of. */
  #epoch = -1;
  #rows = Array.from({ length: 5 }, () => {
    const row = document.createElement("li");
    row.innerHTML =
      '<span class="character" aria-hidden="true"></span><span class="name"></span>' +
      '<span class="share"></span><span class="track"><i></i></span>';
    byId("concepts").append(row);
    return row;
  });

  /**
   * Show what a frame says of itself.
   * @param {FrameHeader} header
   */
  showFrame({ epoch, concepts, chance, is_sure, t_eeg }) {
    // Thirty frames a second say the same of an epoch, and each change of the page costs.
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    const then = this.#seen.findLast(({ t }) => t <= t_eeg - HALF_EPOCH);
    write("seen-then", then ? `from EEG while ${then.is_on ? then.name : "nothing"} was seen` : "");
    showPicture("then-picture", then?.is_on ? then.picture : "");
    const best = concepts[0];
    write("decoded", best && is_sure ? best.name : "not sure");
    write("decoded-character", best && is_sure ? best.character : "");
    byId("decoded").classList.toggle("unsure", !is_sure);
    const label = best ? `Nearest concept ${best.name}, ${percent(best.confidence)}` : "No concept";
    const picture = is_sure || !best ? label : `${label}, not sure`;
    byId("picture").setAttribute("aria-label", `Picture made from the EEG. ${picture}.`);
    this.#rows.forEach((row, i) => {
      const concept = concepts[i];
      row.hidden = concept === undefined;
      if (concept === undefined) return;
      const [character, name, share, track] = row.children;
      character.textContent = concept.character;
      name.textContent = concept.name;
      share.textContent = percent(concept.confidence);
      const bar = /** @type {HTMLElement} */ (track.firstElementChild);
      bar.style.setProperty("--share", String(concept.confidence));
      row.classList.toggle("above", concept.confidence > chance);
    });
    byId("concepts").style.setProperty("--chance", String(chance));
    write("chance", `chance ${percent(chance)}`);
  }

  /**
   * Show what the server knows of the session.
   * @param {StateHeader} state
   */
  showState(state) {
    this.#showHonesty(state.honesty);
    write("source", state.source);
    write("bundle", state.bundle.split("/").at(-1) ?? "");
    byId("bundle-says").hidden = !state.bundle_says;
    write("bundle-says", state.bundle_says);
    const fidelity = state.fidelity === null ? "" : `${Math.round(100 * state.fidelity)} %`;
    write("fidelity", fidelity || "not known yet");
    write("fidelity-text", state.fidelity_text);
    byId("drift-row").hidden = state.drift === null;
    if (state.drift) write("drift", `${percent(state.drift[0])} · usual ${percent(state.drift[1])}`);
    this.#showSeen(state.seen);
    this.#head.show(state.quality);
    this.#showQuality(state.quality);
    write("latency", seconds(state.latency_ms.drawn));
    write("latency-painted", seconds(state.latency_ms.painted));
    write("rate", `${state.frames_per_second.toFixed(1)} per second`);
    write("lost", state.samples_lost.toLocaleString("en"));
    write("viewers", String(state.viewers));
    this.#showRecording(state.recording);
    this.#showTraining(state.training);
    byId("operator").hidden = !state.is_operator;
    write("pause", state.is_paused ? "Resume" : "Pause");
  }

  /** @param {string} honesty */
  #showHonesty(honesty) {
    const badge = byId("honesty");
    badge.dataset.honesty = honesty;
    write("honesty-word", honesty || "waiting");
    write("honesty-text", HONESTY[honesty] ?? "No EEG has arrived yet.");
  }

  /** @param {StateHeader["recording"]} recording */
  #showRecording(recording) {
    byId("recording").hidden = recording === null;
    write("record", recording ? "Stop recording" : "Record…");
    if (recording === null) return;
    const minutes = Math.floor(recording.seconds / 60);
    const lost = recording.n_missed ? `, ${recording.n_missed} pieces missed` : "";
    write("recording-text", `Recording the EEG: ${minutes} min${lost}`);
  }

  /** @param {StateHeader["training"]} training */
  #showTraining(training) {
    const { state, subject, done, message } = training ?? { state: "stopped", subject: "", done: 0, message: "" };
    byId("training-now").hidden = state === "stopped";
    const words = { running: `${Math.round(100 * done)} %`, finished: "done; Calibrate shows the answer", failed: message, stopped: "" };
    write("training-now", `Training for ${subject}: ${words[state]}`);
  }

  /** @param {StateHeader["seen"]} seen */
  #showSeen(seen) {
    byId("seen-panel").hidden = seen === null;
    if (seen === null) {
      this.#seen = [];
      return;
    }
    if (seen.t !== this.#seen.at(-1)?.t) this.#seen = [...this.#seen, seen].slice(-SEEN_KEPT);
    write("seen", seen.is_on ? seen.name : "nothing now");
    write("seen-character", seen.is_on && !seen.picture ? seen.character : "");
    showPicture("seen-picture", seen.is_on ? seen.picture : "");
    byId("seen").classList.toggle("unsure", !seen.is_on);
  }

  /** @param {StateHeader["quality"]} quality */
  #showQuality(quality) {
    for (const grade of GRADES) {
      const n = quality.filter((electrode) => electrode.grade === grade).length;
      write(`n-${grade}`, `${n} ${grade}`);
      byId(`n-${grade}`).classList.toggle("none", n === 0);
    }
    const troubled = quality.filter(({ grade }) => grade === "poor" || grade === "off");
    write("troubled", troubled.map(inWords).join("; "));
    if (/** @type {HTMLDetailsElement} */ (byId("all-electrodes")).open) {
      write("electrode-list", quality.map(inWords).join("; "));
    }
  }
}
