// EEG as a sweep: only what is new is drawn, behind a gap that wipes what is old.

import { Sweep } from "./sweep.js";

/** @typedef {import("./wire.js").TracesHeader} TracesHeader */

/** Seconds across. */
const DURATION = 5;
/** Microvolts for one row. */
export const GAINS = [5, 10, 20, 50, 100, 200, 500, 1000, 2000];
/** CSS pixels: column of names, gap ahead of the newest sample, least height of a name. */
const NAMES = 40;
const WIPE = 14;
const NAME_HEIGHT = 10;
/** Seconds in which what has come is drawn: no less than from one message to the next. */
const PERIOD = 0.1;
/** Rows that a trace may leave its own by. */
const MOST_ROWS = 1.5;

const LINE = "#8fe3c8";
const NAME = "#a7adb3";

export class Traces {
  #sweep = new Sweep(DURATION);
  #canvas;
  #context;
  /** Number of the first sample that is not drawn yet. */
  #nDrawn = 0;
  /** How far the line has run, and samples a second: it does not jump from message to message. */
  #nRun = 0;
  #pace = 0;
  #tRun = 0;
  #scale = 1;
  #width = 0;
  #height = 0;
  /** @type {string[]} */
  #names = [];
  #gain = GAINS.indexOf(50);

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
    const context = canvas.getContext("2d");
    if (context === null) throw new Error("This browser draws no canvas.");
    this.#context = context;
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  /** Microvolts for one row. */
  get gain() {
    return GAINS[this.#gain];
  }

  /** Height of one row in CSS pixels. */
  get rowHeight() {
    return this.#height / Math.max(1, this.#sweep.nChannels);
  }

  /**
   * Make traces larger (+1) or smaller (-1).
   * @param {number} step
   */
  turn(step) {
    this.#gain = Math.max(0, Math.min(GAINS.length - 1, this.#gain - step));
    this.redraw();
  }

  /** @param {string[]} names */
  name(names) {
    if (names.join() === this.#names.join()) return;
    this.#names = names;
    this.redraw();
  }

  /**
   * Take traces from the server.
   * @param {TracesHeader} header
   * @param {Uint8Array<ArrayBuffer>} payload float32, little-endian as all browsers' machines are
   */
  take({ first_sample, n_channels, sfreq }, payload) {
    const samples = new Float32Array(payload.slice().buffer);
    if (this.#sweep.push(first_sample, n_channels, sfreq, samples)) this.redraw();
    this.#pace = (this.#sweep.next - this.#nRun) / PERIOD;
  }

  /** Draw the whole sweep again. */
  redraw() {
    const { clientWidth, clientHeight } = this.#canvas;
    // Asked for once: at every sample the browser would lay the page out each time.
    [this.#width, this.#height] = [clientWidth, clientHeight];
    this.#scale = devicePixelRatio;
    this.#canvas.width = Math.round(clientWidth * this.#scale);
    this.#canvas.height = Math.round(clientHeight * this.#scale);
    this.#context.setTransform(this.#scale, 0, 0, this.#scale, 0, 0);
    this.#drawNames();
    this.#nDrawn = Math.max(0, this.#sweep.next - this.#sweep.length + 1);
    this.#nRun = this.#sweep.next;
    this.#drawTo(this.#nRun);
  }

  /**
   * Let the line run on.
   * @param {number} t seconds
   */
  draw(t) {
    const run = this.#nRun + this.#pace * (t - this.#tRun);
    this.#tRun = t;
    this.#nRun = Math.min(this.#sweep.next, run);
    this.#drawTo(Math.floor(this.#nRun));
  }

  /** @param {number} next number of the sample that is not drawn */
  #drawTo(next) {
    const { length, nChannels } = this.#sweep;
    if (next <= this.#nDrawn || nChannels === 0) return;
    // From edge to edge, never across one.
    for (let first = Math.max(this.#nDrawn, next - length + 1); first < next; ) {
      const end = Math.min(next, (Math.floor(first / length) + 1) * length);
      this.#drawSpan(first, end);
      first = end;
    }
    this.#nDrawn = next;
  }

  /** @param {number} n number of a sample */
  #x(n) {
    return NAMES + ((n % this.#sweep.length) / this.#sweep.length) * (this.#width - NAMES);
  }

  /**
   * @param {number} first
   * @param {number} end
   */
  #drawSpan(first, end) {
    const [c, sweep] = [this.#context, this.#sweep];
    const height = this.#height;
    const row = this.rowHeight;
    const x = this.#x(first);
    const isAtEdge = first % sweep.length === 0;
    // One sample further back, so that lines join; what is drawn twice is clipped away.
    const from = isAtEdge ? first : first - 1;
    const left = isAtEdge ? x : this.#x(from);
    const width = this.#x(end - 1) - left;
    c.save();
    c.beginPath();
    c.rect(left, 0, width + WIPE, height);
    c.clip();
    c.clearRect(left, 0, width + WIPE, height);
    c.beginPath();
    for (let channel = 0; channel < sweep.nChannels; channel++) {
      const middle = (channel + 0.5) * row;
      let isDown = false;
      for (let n = from; n < end; n++) {
        const value = sweep.at(channel, n);
        const rows = Math.max(-MOST_ROWS, Math.min(MOST_ROWS, value / this.gain));
        if (Number.isNaN(value)) isDown = false;
        else if (isDown) c.lineTo(this.#x(n), middle - rows * row);
        else {
          c.moveTo(this.#x(n), middle - rows * row);
          isDown = true;
        }
      }
    }
    c.strokeStyle = LINE;
    c.lineWidth = 1;
    c.lineJoin = "round";
    c.stroke();
    c.restore();
  }

  #drawNames() {
    const c = this.#context;
    const n = this.#sweep.nChannels;
    const row = this.rowHeight;
    const each = Math.ceil(NAME_HEIGHT / row);
    c.font = "10px ui-monospace, monospace";
    c.textBaseline = "middle";
    c.fillStyle = NAME;
    for (let i = 0; i < n; i += each) {
      c.fillText(this.#names[i] ?? String(i + 1), 0, Math.max((i + 0.5) * row, NAME_HEIGHT / 2));
    }
  }
}
