// Shows the pictures of a plan, frame by frame, and stamps what really appeared.
//
// Drawn in the callback of a frame that began at T, a picture appears before the next frame begins:
// the stamp is the middle between the two, its uncertainty half of the distance.

/** @typedef {{trial: number, run: number, picture: string, class: string, is_catch: boolean, duration: number, gap: number, address: string}} Trial */
/** @typedef {"planned" | "shown" | "gone" | "response" | "run" | "ended"} StimulusEvent */
/** @typedef {"break" | "hidden" | "away"} Reason why nothing is shown for a while: the page is hidden, or the server away */
/**
 * @typedef {object} Outcome
 * @property {number} planned trials of the plan
 * @property {number} shown
 * @property {number} missed trials of which nobody knows whether they appeared
 * @property {number} cut trials that ended early
 * @property {number} catches catch trials that were shown
 * @property {number} caught
 * @property {number} pressed key presses at other trials
 * @property {number} error median uncertainty of an onset, seconds
 */

/** Milliseconds of the cross alone before the first picture of a run. */
const LEAD_IN = 2000;
/** Milliseconds between frames, before any was measured. */
const FRAME = 1000 / 60;
/** Side of a picture as a share of the window's shorter side, and of the photodiode's patch in CSS pixels. */
const SIDE = 0.7;
const PATCH = 64;

const GROUND = "#16181b";
const CROSS = "#a3a9b0";
const PROGRESS = "#3a3f45";

/**
 * Load a plan's pictures at the size that they are shown in.
 * @param {Trial[]} trials
 * @param {(done: number, of: number) => void} onProgress
 * @returns {Promise<Map<string, ImageBitmap>>} by address
 */
export async function preload(trials, onProgress) {
  const names = new Map(trials.map(({ address, picture }) => [address, picture]));
  const side = SIDE * Math.min(innerWidth, innerHeight) * devicePixelRatio;
  const waiting = [...names.keys()];
  /** @type {Map<string, ImageBitmap>} */
  const pictures = new Map();
  const work = async () => {
    for (let address = waiting.pop(); address !== undefined; address = waiting.pop()) {
      try {
        pictures.set(address, await load(address, side));
      } catch {
        throw new Error(`The picture ${names.get(address)} cannot be shown: its file is damaged or gone.`);
      }
      onProgress(pictures.size, names.size);
    }
  };
  await Promise.all(Array.from({ length: 6 }, work));
  return pictures;
}

/**
 * @param {string} address
 * @param {number} side
 */
async function load(address, side) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(String(response.status));
  const whole = await createImageBitmap(await response.blob());
  const scale = side / Math.max(whole.width, whole.height);
  const fitted = await createImageBitmap(whole, {
    resizeWidth: Math.max(1, Math.round(scale * whole.width)),
    resizeHeight: Math.max(1, Math.round(scale * whole.height)),
    resizeQuality: "high",
  });
  whole.close();
  return fitted;
}

export class Presentation {
  /** @type {"waiting" | "cross" | "picture" | "over"} */
  #phase = "waiting";
  /** Index of the trial that comes next, or is shown. */
  #index = 0;
  /** Page time at which the picture is to come or go, milliseconds; null until it is known. @type {number | null} */
  #due = null;
  /** Page time at which the newest frame began, and how long one takes, milliseconds. */
  #tFrame = -Infinity;
  #frame = FRAME;
  /** What was drawn in the newest frame and is not stamped yet. @type {"shown" | "gone" | null} */
  #drawn = null;
  #isStopped = false;
  /** Of each trial that was shown, how uncertain its onset is, in seconds. @type {Map<Trial, number>} */
  #shown = new Map();
  /** The newest of them. @type {Trial | undefined} */
  #latest;
  /** @type {Set<Trial>} */
  #pressed = new Set();
  #missed = 0;
  #request = 0;
  #cut = 0;

  /**
   * @param {HTMLCanvasElement} canvas as large as the window
   * @param {Trial[]} trials
   * @param {Map<string, ImageBitmap>} pictures by address
   * @param {object} options
   * @param {boolean} options.hasPatch whether a corner turns white with each picture
   * @param {(ms: number) => {t: number, error: number}} options.toSession
   * @param {(message: {event: StimulusEvent, trial: number, t: number, error_s: number}) => void} options.tell
   * @param {(reason: Reason) => void} options.onPause
   * @param {(outcome: Outcome) => void} options.onEnd
   */
  constructor(canvas, trials, pictures, options) {
    this.canvas = canvas;
    this.trials = trials;
    this.pictures = pictures;
    this.options = options;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
  }

  get #trial() {
    return /** @type {Trial} */ (this.trials[this.#index]);
  }

  /** How many runs are over. */
  get runsDone() {
    return this.#trial.run - (this.trials[0]?.run ?? 0);
  }

  get isWaiting() {
    return this.#phase === "waiting";
  }

  /** Begin the next run, or go on after a pause. */
  go() {
    if (!this.isWaiting) return;
    const now = performance.now();
    if (this.trials[this.#index - 1]?.run !== this.#trial.run) this.#tell("run", now, 0, this.#trial);
    this.#plan(now + LEAD_IN, this.#trial);
    this.#phase = "cross";
    this.#due = now + LEAD_IN;
    this.#tFrame = -Infinity;
    this.#draw();
    this.#request = requestAnimationFrame(this.#tick);
  }

  /** End it; what is on the screen goes with the next frame. */
  stop() {
    this.#isStopped = true;
    if (this.isWaiting) this.#end();
  }

  /**
   * A key was pressed.
   * @param {number} ms page time of the event
   */
  press(ms) {
    if (!this.#latest || this.isWaiting || this.#phase === "over") return;
    this.#pressed.add(this.#latest);
    this.#tell("response", ms, 0, this.#latest);
  }

  /**
   * Nothing can be seen any more, or nobody takes the stamps.
   * @param {number} ms page time at which that was noticed
   * @param {Reason} reason
   */
  interrupt(ms, reason) {
    if (this.isWaiting || this.#phase === "over") return;
    if (this.#drawn === "shown") {
      this.#missed++;
      this.#index++;
    } else if (this.#phase === "picture" || this.#drawn === "gone") {
      // It was there in the newest frame, and is not now.
      const half = (ms - this.#tFrame) / 2;
      this.#tell("gone", this.#tFrame + half, half, this.#trial);
      if (this.#phase === "picture") this.#cut++;
      this.#index++;
    }
    this.#drawn = null;
    cancelAnimationFrame(this.#request);
    this.#wait(reason);
    this.#draw();
  }

  #tick = (/** @type {number} */ t) => {
    const interval = t - this.#tFrame;
    const drawn = this.#drawn;
    this.#drawn = null;
    if (drawn) this.#stamp(drawn, this.#tFrame + interval / 2, interval / 2);
    this.#tFrame = t;
    // Frames that were left out say nothing of how long one takes.
    if (interval < 2 * this.#frame) this.#frame += (interval - this.#frame) / 10;
    if (this.#isStopped && this.#phase === "cross") this.#end();
    if (this.isWaiting || this.#phase === "over") return;
    // The frame whose middle is nearest to what is due.
    const isDue = this.#due !== null && t >= this.#due - this.#frame;
    if (isDue || this.#isStopped) this.#turn(isDue);
    this.#request = requestAnimationFrame(this.#tick);
  };

  /** @param {boolean} isDue */
  #turn(isDue) {
    if (this.#phase === "picture" && !isDue) this.#cut++;
    this.#phase = this.#phase === "cross" ? "picture" : "cross";
    this.#drawn = this.#phase === "picture" ? "shown" : "gone";
    this.#due = null;
    this.#draw();
  }

  /**
   * Say when what was drawn appeared, and what follows from it.
   * @param {"shown" | "gone"} event
   * @param {number} ms page time
   * @param {number} half its uncertainty, milliseconds
   */
  #stamp(event, ms, half) {
    const trial = this.#trial;
    const error = this.#tell(event, ms, half, trial);
    const next = this.trials[this.#index + 1];
    const isBreak = next?.run !== trial.run;
    if (event === "shown") {
      this.#latest = trial;
      this.#shown.set(trial, error);
      this.#due = ms + 1000 * trial.duration;
      if (next && !isBreak && !this.#isStopped) this.#plan(this.#due + 1000 * next.gap, next);
    } else {
      this.#index++;
      if (isBreak) this.#wait("break");
      else this.#due = ms + 1000 * next.gap;
    }
  }

  /**
   * @param {number} ms page time of the onset
   * @param {Trial} trial
   */
  #plan(ms, trial) {
    this.#tell("planned", ms, this.#frame / 2, trial);
  }

  /** @param {Reason} reason */
  #wait(reason) {
    if (this.#isStopped || this.#index === this.trials.length) return this.#end();
    this.#phase = "waiting";
    this.options.onPause(reason);
  }

  #end() {
    if (this.#phase === "over") return;
    this.#phase = "over";
    const last = /** @type {Trial} */ (this.#latest ?? this.trials[0]);
    this.#tell("ended", performance.now(), 0, last);
    const catches = [...this.#shown.keys()].filter((trial) => trial.is_catch);
    const caught = catches.filter((trial) => this.#pressed.has(trial)).length;
    const errors = [...this.#shown.values()].sort((a, b) => a - b);
    this.options.onEnd({
      planned: this.trials.length,
      shown: errors.length,
      missed: this.#missed,
      cut: this.#cut,
      catches: catches.length,
      caught,
      pressed: this.#pressed.size - caught,
      error: errors[errors.length >> 1] ?? 0,
    });
  }

  /**
   * @param {StimulusEvent} event
   * @param {number} ms page time
   * @param {number} half its uncertainty, milliseconds
   * @param {Trial} trial
   * @returns {number} uncertainty of the session time, seconds
   */
  #tell(event, ms, half, { trial }) {
    const { t, error } = this.options.toSession(ms);
    const error_s = error + half / 1000;
    this.options.tell({ event, trial, t, error_s });
    return error_s;
  }

  #draw() {
    const { canvas, context } = this;
    const trial = this.#phase === "picture" ? this.#trial : null;
    const [width, height] = [innerWidth, innerHeight].map((n) => Math.round(n * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.fillStyle = GROUND;
    context.fillRect(0, 0, width, height);
    const picture = trial && this.pictures.get(trial.address);
    const unit = Math.min(width, height) / 100;
    if (picture) {
      context.drawImage(picture, Math.round((width - picture.width) / 2), Math.round((height - picture.height) / 2));
    } else {
      context.fillStyle = CROSS;
      context.fillRect(width / 2 - 2 * unit, height / 2 - unit / 4, 4 * unit, unit / 2);
      context.fillRect(width / 2 - unit / 4, height / 2 - 2 * unit, unit / 2, 4 * unit);
    }
    context.fillStyle = PROGRESS;
    context.fillRect(0, height - unit / 2, (width * this.#index) / this.trials.length, unit / 2);
    if (this.options.hasPatch) {
      const side = PATCH * devicePixelRatio;
      context.fillStyle = picture ? "#fff" : "#000";
      context.fillRect(0, height - side, side, side);
    }
  }
}
