// The picture: newest frame wins, drawn under the governor, acknowledged once it is drawn.

import { Governor, SIDE, STILL_FADE, STILL_INTERVAL } from "./governor.js";

/** @typedef {import("./wire.js").FrameHeader} FrameHeader */
/**
 * @typedef {object} Decoded
 * @property {FrameHeader} header
 * @property {ImageBitmap} bitmap
 * @property {Uint8ClampedArray} grid what the governor sees of it
 * @property {number} tArrived milliseconds
 * @property {boolean} isDone whether it was said to be drawn
 */

/**
 * Side of the canvas in pixels: enlarged to this with care, beyond it by the browser. Without a
 * graphics processor 1024 took twice the time (43 ms instead of 21 for a frame of the screen).
 */
const CANVAS_SIDE = 384;
/** "Drawn" means moved to the new picture by this share of the way. */
const FIRST_USE = 0.1;
/** The surround is the same picture in this many pixels a side, blurred by enlarging it. */
const AMBIENT_SIDE = 20;
/** Seconds between its changes: it is as large as the window, and too dim to flash. */
const AMBIENT_INTERVAL = 0.2;

/**
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {boolean} [isRead] whether its pixels are read back all the time
 */
function context(canvas, isRead = false) {
  const c = /** @type {CanvasRenderingContext2D | null} */ (
    canvas.getContext("2d", { alpha: false, willReadFrequently: isRead })
  );
  if (c === null) throw new Error("This browser draws no canvas.");
  c.imageSmoothingQuality = "high";
  return c;
}

export class Stage {
  #governor = new Governor();
  #grid = context(new OffscreenCanvas(SIDE, SIDE), true);
  /** What is on screen, in the picture's own pixels. */
  #shown = context(new OffscreenCanvas(1, 1), true);
  #picture;
  #ambient;
  /**
   * Newest that is not decoded yet.
   * @type {{header: FrameHeader, jpeg: Uint8Array<ArrayBuffer>, tArrived: number} | null}
   */
  #arrived = null;
  #isDecoding = false;
  /** @type {Decoded | null} newest that is not drawn yet */
  #next = null;
  /** @type {Decoded | null} what is being drawn */
  #current = null;
  #tStill = -Infinity;
  #tAmbient = -Infinity;
  #isAmbientOld = false;
  /** Which picture is on screen, and how far the way to it is gone. */
  #number = -1;
  #fade = 0;

  isFrozen = false;
  /** Whether pictures come rarely and fade slowly (prefers-reduced-motion). */
  isStill = false;

  /**
   * @param {HTMLCanvasElement} picture
   * @param {HTMLCanvasElement} ambient
   * @param {(header: FrameHeader, isDrawn: boolean, shown: number) => void} onDone a frame was
   *   drawn, that many milliseconds after it came, or will not be because the picture stands still
   */
  constructor(picture, ambient, onDone) {
    picture.width = picture.height = CANVAS_SIDE;
    ambient.width = ambient.height = AMBIENT_SIDE;
    this.#picture = context(picture);
    this.#ambient = context(ambient);
    this.onDone = onDone;
    this.#governor.tick(0);
    this.#governor.drawn(this.#readBack(this.#shown.canvas));
  }

  /**
   * Take a frame from the server.
   * @param {FrameHeader} header
   * @param {Uint8Array<ArrayBuffer>} jpeg
   */
  take(header, jpeg) {
    this.#arrived = { header, jpeg, tArrived: performance.now() };
    if (!this.#isDecoding) this.#decode();
  }

  async #decode() {
    this.#isDecoding = true;
    while (this.#arrived !== null) {
      const { header, jpeg, tArrived } = this.#arrived;
      this.#arrived = null;
      try {
        const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
        if (this.#next !== null) this.#pass(this.#next);
        this.#next = { header, bitmap, grid: this.#readBack(bitmap), tArrived, isDone: false };
      } catch {
        // No picture: the next one is not to wait for it.
        this.onDone(header, false, 0);
      }
    }
    this.#isDecoding = false;
  }

  /**
   * Draw what may be drawn at time `t` (seconds); to be called for every frame of the screen.
   * @param {number} t
   */
  draw(t) {
    this.#governor.tick(t);
    this.#drawAmbient(t);
    if (this.isFrozen) {
      if (this.#next !== null) this.#pass(this.#next);
      this.#next = null;
      return;
    }
    this.#turnToNewest(t);
    if (this.#current === null) return;
    const alpha = this.#governor.allow(this.#current.grid);
    if (alpha === 0) return;
    this.#lay(this.#current.bitmap, alpha);
    this.#note(this.#current, alpha);
    if (alpha < 1) return;
    this.#current.bitmap.close();
    this.#current = null;
  }

  /**
   * @param {ImageBitmap} bitmap
   * @param {number} alpha
   */
  #lay(bitmap, alpha) {
    const shown = this.#shown;
    this.#fit(bitmap);
    shown.globalAlpha = alpha;
    shown.drawImage(bitmap, 0, 0);
    this.#picture.drawImage(shown.canvas, 0, 0, CANVAS_SIDE, CANVAS_SIDE);
    this.#isAmbientOld = true;
    this.#governor.drawn(this.#readBack(shown.canvas));
  }

  /** @param {number} t */
  #drawAmbient(t) {
    if (!this.#isAmbientOld || t < this.#tAmbient + AMBIENT_INTERVAL) return;
    this.#ambient.drawImage(this.#shown.canvas, 0, 0, AMBIENT_SIDE, AMBIENT_SIDE);
    this.#isAmbientOld = false;
    this.#tAmbient = t;
  }

  /**
   * Say that a frame is drawn as soon as that is true of what is seen.
   * @param {Decoded} frame
   * @param {number} alpha
   */
  #note(frame, alpha) {
    const { picture, fade } = frame.header;
    if (picture !== this.#number) [this.#number, this.#fade] = [picture, 0];
    this.#fade += alpha * (fade - this.#fade);
    if (frame.isDone || (alpha < 1 && this.#fade < FIRST_USE)) return;
    frame.isDone = true;
    this.onDone(frame.header, true, Math.round(performance.now() - frame.tArrived));
  }

  /** @param {number} t */
  #turnToNewest(t) {
    if (this.#next === null) return;
    if (this.isStill) {
      const isWhole = this.#next.header.fade === 1 || t > this.#tStill + STILL_INTERVAL;
      if (this.#current !== null || t < this.#tStill || !isWhole) return;
      this.#tStill = t + STILL_INTERVAL;
      this.#governor.slowFor(STILL_FADE);
    }
    this.#current?.bitmap.close();
    this.#current = this.#next;
    this.#next = null;
  }

  /** @param {Decoded} frame one that gives way to a newer */
  #pass(frame) {
    frame.bitmap.close();
    // Else the server would wait for the acknowledgement of a frame that is never drawn.
    if (this.isStill || this.isFrozen) this.onDone(frame.header, false, 0);
  }

  /** @param {ImageBitmap} bitmap */
  #fit({ width, height }) {
    const { canvas } = this.#shown;
    if (canvas.width === width && canvas.height === height) return;
    const before = new OffscreenCanvas(canvas.width, canvas.height);
    context(before).drawImage(canvas, 0, 0);
    [canvas.width, canvas.height] = [width, height];
    this.#shown.drawImage(before, 0, 0, width, height);
  }

  /** @param {CanvasImageSource} source */
  #readBack(source) {
    this.#grid.drawImage(source, 0, 0, SIDE, SIDE);
    return this.#grid.getImageData(0, 0, SIDE, SIDE).data;
  }
}
