// Counting of flashes by WCAG 2.3.1 on a coarse grid: app/flashes.py again,
// for what is on this screen. No canvas and no clock in here.

/** The rule; see app/flashes.py for each number. */
const GENERAL_CHANGE = 0.1;
const GENERAL_DARKER_BELOW = 0.8;
const RED_SHARE = 0.8;
const RED_CHANGE = 0.2;
const FLARE = 0.001;
const FIELD = 1 / 3;

/** sRGB byte to linear light, 0 to 1. */
const LINEAR = Float32Array.from({ length: 256 }, (_, i) => {
  const v = i / 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
});

/**
 * A picture on the grid: for each block linear red, green, blue, then luminance, u', v' and
 * whether it is a saturated red.
 */
export class Light {
  /**
   * @param {ArrayLike<number>} rgba sRGB bytes, four for each block
   */
  constructor(rgba) {
    const n = rgba.length / 4;
    this.n = n;
    this.rgb = new Float32Array(3 * n);
    this.luminance = new Float32Array(n);
    this.u = new Float32Array(n);
    this.v = new Float32Array(n);
    this.isRed = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      const [r0, g0, b0] = [LINEAR[rgba[4 * i]], LINEAR[rgba[4 * i + 1]], LINEAR[rgba[4 * i + 2]]];
      this.rgb.set([r0, g0, b0], 3 * i);
      this.luminance[i] = 0.2126 * r0 + 0.7152 * g0 + 0.0722 * b0;
      const [r, g, b] = [r0 + FLARE, g0 + FLARE, b0 + FLARE];
      const x = 0.4124 * r + 0.3576 * g + 0.1805 * b;
      const y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
      const z = 0.0193 * r + 0.1192 * g + 0.9505 * b;
      this.u[i] = (4 * x) / (x + 15 * y + 3 * z);
      this.v[i] = (9 * y) / (x + 15 * y + 3 * z);
      this.isRed[i] = Number(r >= RED_SHARE * (r + g + b));
    }
  }

  /**
   * The largest change of a block's linear red, green or blue.
   * @param {Light} other
   */
  distance(other) {
    let most = 0;
    for (let i = 0; i < this.rgb.length; i++) {
      most = Math.max(most, Math.abs(this.rgb[i] - other.rgb[i]));
    }
    return most;
  }
}

/**
 * Of all fields of 10 degrees (a third of the width and height), the largest share that is set.
 * @param {Uint8Array} mask of side x side blocks
 * @param {number} side
 */
export function largestShare(mask, side) {
  const field = Math.round(side * FIELD);
  const width = side + 1;
  const total = new Int32Array(width * width);
  let most = 0;
  for (let y = 1; y <= side; y++) {
    for (let x = 1; x <= side; x++) {
      const i = y * width + x;
      total[i] = mask[(y - 1) * side + x - 1] + total[i - 1] + total[i - width] - total[i - width - 1];
      if (x < field || y < field) continue;
      const above = i - field * width;
      most = Math.max(most, total[i] - total[i - field] - total[above] + total[above - field]);
    }
  }
  return most / field ** 2;
}

/** @typedef {{general: Int8Array, red: Int8Array}} Changes +1 and -1 where there is one */

/** Flashes of what is shown, block by block, in the last second. */
export class FlashCounter {
  /** @type {Light | null} what is shown */
  shown = null;
  /** @type {(Changes & {t: number})[]} */
  #recent = [];

  /** @param {number} side blocks along one side of the grid */
  constructor(side) {
    const n = side * side;
    this.side = side;
    /** Changes in the last second; two make a flash. */
    this.general = new Uint16Array(n);
    this.red = new Uint16Array(n);
    // Since a block's last change: its darkest and brightest, and a box around its colours.
    // `way` is +1 after a rise, -1 after a fall, 0 before the first.
    this.way = new Int8Array(n);
    this.darkest = new Float32Array(n).fill(Infinity);
    this.brightest = new Float32Array(n).fill(-Infinity);
    this.isInRed = new Uint8Array(n);
    this.left = this.darkest.slice();
    this.right = this.brightest.slice();
    this.low = this.darkest.slice();
    this.high = this.brightest.slice();
  }

  /**
   * Take what is shown from time `t` (seconds) on.
   * @param {Light} light
   * @param {number} t
   */
  add(light, t) {
    if (this.shown === null) this.isInRed.set(light.isRed);
    this.shown = light;
    const changes = this.changes(light);
    for (let i = 0; i < light.n; i++) this.#follow(light, i, changes.general[i], changes.red[i]);
    this.#count(changes, 1);
    this.#recent.push({ t, ...changes });
    this.forget(t);
  }

  /**
   * Count no more what was over a second ago.
   * @param {number} t seconds
   */
  forget(t) {
    while (this.#recent.length > 0 && this.#recent[0].t < t - 1) {
      this.#count(this.#recent[0], -1);
      this.#recent.shift();
    }
  }

  /**
   * The share of the worst field in which there are more than `most` changes.
   * @param {number} most
   * @param {Light} [next] counted as if it were shown now
   */
  area(most, next) {
    const then = next && this.changes(next);
    let worst = 0;
    for (const kind of /** @type {const} */ (["general", "red"])) {
      const counts = this[kind];
      const over = new Uint8Array(counts.length);
      for (let i = 0; i < over.length; i++) {
        over[i] = Number(counts[i] + Math.abs(then?.[kind][i] ?? 0) > most);
      }
      worst = Math.max(worst, largestShare(over, this.side));
    }
    return worst;
  }

  /**
   * In which blocks showing this would be a change that opposes the last.
   * @param {Light} light
   * @returns {Changes}
   */
  changes(light) {
    const general = new Int8Array(light.n);
    const red = new Int8Array(light.n);
    for (let i = 0; i < light.n; i++) {
      const y = light.luminance[i];
      const rise = y - this.darkest[i];
      const fall = this.brightest[i] - y;
      if (this.way[i] <= 0 && rise >= GENERAL_CHANGE && this.darkest[i] < GENERAL_DARKER_BELOW) {
        general[i] = 1;
      } else if (this.way[i] >= 0 && fall >= GENERAL_CHANGE && y < GENERAL_DARKER_BELOW) {
        general[i] = -1;
      }
      const du = Math.max(this.right[i] - light.u[i], light.u[i] - this.left[i]);
      const dv = Math.max(this.high[i] - light.v[i], light.v[i] - this.low[i]);
      if (light.isRed[i] !== this.isInRed[i] && Math.hypot(du, dv) > RED_CHANGE) {
        red[i] = light.isRed[i] ? 1 : -1;
      }
    }
    return { general, red };
  }

  /**
   * @param {Light} light
   * @param {number} i
   * @param {number} general
   * @param {number} red
   */
  #follow(light, i, general, red) {
    const [y, u, v] = [light.luminance[i], light.u[i], light.v[i]];
    if (general) {
      this.way[i] = general;
      this.darkest[i] = this.brightest[i] = y;
    }
    this.darkest[i] = Math.min(this.darkest[i], y);
    this.brightest[i] = Math.max(this.brightest[i], y);
    if (red) {
      this.isInRed[i] = light.isRed[i];
      this.left[i] = this.right[i] = u;
      this.low[i] = this.high[i] = v;
    } else if (light.isRed[i] || !this.isInRed[i]) {
      this.left[i] = Math.min(this.left[i], u);
      this.right[i] = Math.max(this.right[i], u);
      this.low[i] = Math.min(this.low[i], v);
      this.high[i] = Math.max(this.high[i], v);
    }
  }

  /**
   * @param {Changes} changes
   * @param {number} sign
   */
  #count({ general, red }, sign) {
    for (let i = 0; i < general.length; i++) {
      this.general[i] += sign * Math.abs(general[i]);
      this.red[i] += sign * Math.abs(red[i]);
    }
  }
}
