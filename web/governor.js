// The last thing before the canvas: how far the picture on screen may move to the newest one.
// The server's guard has limited flashes already; frames that come late or not at all change
// the timing, and only here it is known what was really drawn. No canvas and no clock in here.

import { FlashCounter, Light } from "./flashes.js";

/** Blocks along a side of the grid on which pictures are judged. */
export const SIDE = 24;

/** Most linear light per second: twice the pace of the server's fades, for frames that come late. */
const SLEW = 6;
/** A change of light that is a cut rather than a step of a fade, and the seconds that it takes then. */
const CUT = 0.35;
const FADE = 1 / 3;
/** Seconds that count at most between two drawings: after a stall there is no cut. */
const LONGEST_STEP = 0.1;

// Before drawing: opposing changes in a second that may be reached, and in what share of a field
// more are let pass; two make a flash, so the rule allows six. After drawing, as a second line:
// the share that is too much.
const MOST_CHANGES = 5;
const SPARED_AREA = 0.1;
const BREACH_AREA = 0.125;
/** Seconds of standing still after a breach, then of blending slowly. */
const FREEZE = 1.1;
const SLOW_BLEND = 2;

/** With reduced motion: seconds between pictures, and of the fade to the next. */
export const STILL_INTERVAL = 2;
export const STILL_FADE = 1.5;

export class Governor {
  #counter = new FlashCounter(SIDE);
  #t = -Infinity;
  #dt = 0;
  #tThaw = -Infinity;
  #tSlow = -Infinity;
  /** How often the second line had to stop the picture. */
  nBreaches = 0;

  /**
   * Begin a frame of the screen.
   * @param {number} t seconds
   */
  tick(t) {
    this.#dt = Math.min(t - this.#t, LONGEST_STEP);
    this.#t = t;
    this.#counter.forget(t);
  }

  /**
   * How much of the newest picture may be laid over the one on screen now: 0 none, 1 all.
   * @param {ArrayLike<number>} rgba the newest picture on the grid, sRGB bytes
   */
  allow(rgba) {
    const [t, dt] = [this.#t, this.#dt];
    const shown = this.#counter.shown;
    if (shown === null || t < this.#tThaw) return 0;
    const wanted = new Light(rgba);
    if (this.#counter.area(MOST_CHANGES, wanted) > SPARED_AREA) return 0;
    const distance = shown.distance(wanted);
    if (distance > CUT && t >= this.#tSlow) this.slowFor(FADE);
    // What is left of a slow blend is divided by the time that is left.
    const slow = t < this.#tSlow ? dt / (this.#tSlow - t) : 1;
    return Math.min(1, (SLEW * dt) / distance, slow);
  }

  /**
   * Say what is on screen, after every drawing and once before the first.
   * @param {ArrayLike<number>} rgba on the grid, read back from the canvas
   */
  drawn(rgba) {
    const t = this.#t;
    this.#counter.add(new Light(rgba), t);
    if (t >= this.#tThaw && this.#counter.area(MOST_CHANGES) > BREACH_AREA) {
      this.nBreaches++;
      this.#tThaw = t + FREEZE;
      this.#tSlow = this.#tThaw + SLOW_BLEND;
    }
  }

  /**
   * Blend slowly from now on.
   * @param {number} duration seconds
   */
  slowFor(duration) {
    this.#tSlow = Math.max(this.#tSlow, this.#t + duration);
  }
}
