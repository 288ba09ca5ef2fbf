// Training a person's bundle: asked for, on its way, and its answer.

import { get, post } from "./api.js";
import { byId, write } from "./panels.js";
import { showReport } from "./report.js";

/** @typedef {import("./wire.js").Training} Training */

/** Of a training that is done, from which on the time left is told. */
const KNOWN = 0.05;

/**
 * How long it will still take, in words.
 * @param {number} done 0 to 1
 * @param {number} seconds that this took
 * @param {number} since seconds since then
 */
export function timeLeft(done, seconds, since) {
  if (done < KNOWN) return "How long it takes is not known yet.";
  const left = (seconds * (1 - done)) / done - since;
  if (left < 10) return "A few seconds left.";
  return left < 90 ? `About ${10 * Math.round(left / 10)} seconds left.` : `About ${Math.round(left / 60)} minutes left.`;
}

export class TrainingView {
  #show;
  #say;
  #subject = "";
  /** Whether the page shows how it goes. */
  #isFollowed = false;
  #isFirst = true;
  /** The newest progress, and when it was told. */
  #done = -1;
  #tTold = 0;

  /**
   * @param {(view: "training" | "report") => void} show
   * @param {(sentence: string) => void} say
   */
  constructor(show, say) {
    this.#show = show;
    this.#say = say;
    byId("stop-training").onclick = () => void this.#try(() => post("api/calibration", { is_on: false }));
    byId("train-again").onclick = byId("train-anew").onclick = () => void this.begin(this.#subject);
    byId("copy").onclick = () => void this.#copy();
  }

  /** @param {string} subject pseudonym */
  async begin(subject) {
    await this.#try(async () => {
      await post("api/calibration", { subject });
      this.#follow(subject);
    });
  }

  /**
   * Show a person's report.
   * @param {string} subject pseudonym
   */
  async open(subject) {
    await this.#try(async () => {
      const { report, command } = await get(`api/report?subject=${encodeURIComponent(subject)}`);
      this.#subject = subject;
      // A report can only be measured where it is seen.
      this.#show("report");
      showReport(report, subject, command);
    });
  }

  /**
   * Show what the server says of the newest training.
   * @param {Training | null | undefined} training
   */
  take(training) {
    // Whoever comes while one goes on is shown how.
    if (this.#isFirst && training?.state === "running") this.#follow(training.subject);
    this.#isFirst = false;
    if (!training) return;
    if (!this.#isFollowed || training.subject !== this.#subject) return;
    const isRunning = training.state === "running";
    byId("stop-training").hidden = !isRunning;
    byId("train-again").hidden = byId("leave-training").hidden = isRunning;
    if (training.done !== this.#done) {
      this.#done = training.done;
      this.#tTold = performance.now();
    }
    /** @type {HTMLProgressElement} */ (byId("done")).value = training.done;
    write("done-share", `${Math.round(100 * training.done)} %`);
    if (isRunning) {
      write("what", training.what || "Loading what is needed.");
      write("left", timeLeft(training.done, training.seconds, (performance.now() - this.#tTold) / 1000));
      return;
    }
    this.#isFollowed = false;
    write("what", training.state === "failed" ? training.message : "The training was stopped.");
    write("left", training.state === "stopped" ? "Begun again, it goes on with the parts that were not done." : "");
    if (training.state === "finished") void this.open(training.subject);
  }

  /** @param {string} subject */
  #follow(subject) {
    this.#subject = subject;
    this.#isFollowed = true;
    this.#done = -1;
    write("training-subject", subject);
    this.#say("");
    this.#show("training");
  }

  async #copy() {
    const command = byId("command");
    getSelection()?.selectAllChildren(command);
    await navigator.clipboard?.writeText(command.textContent ?? "").then(() => write("copy", "Copied"), () => {});
  }

  /** @param {() => Promise<unknown>} action */
  async #try(action) {
    try {
      this.#say("");
      await action();
    } catch (error) {
      this.#say(/** @type {Error} */ (error).message);
    }
  }
}
