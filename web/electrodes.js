// Electrodes on a head, seen from above: quality by shape, colour and word.

/** @typedef {import("./wire.js").Quality} Quality */
/** @typedef {import("./wire.js").Grade} Grade */

const SVG = "http://www.w3.org/2000/svg";
/** @type {Grade[]} */
export const GRADES = ["good", "fair", "poor", "off"];

/** Shapes around the origin, about 6 units across. */
const SHAPES = {
  good: "M3,0A3,3,0,1,1-3,0A3,3,0,1,1,3,0Z",
  fair: "M0,-3.8L3.7,2.6H-3.7Z",
  poor: "M-3,-3H3V3H-3Z",
  off: "M-3,-3L3,3M3,-3L-3,3",
};

// The 10-10 system by its rule. Rows by the letters: degrees from the top of the head along the
// midline, and degrees around the head, from the front, of where the row meets the ring at 72.
/** @type {Record<string, [number, number]>} */
const ROWS = {
  FP: [72, 0], AF: [54, 36], F: [36, 54], FT: [18, 72], FC: [18, 72], T: [0, 90], C: [0, 90],
  TP: [-18, 108], CP: [-18, 108], P: [-36, 126], PO: [-54, 144], O: [-72, 180], I: [-90, 180],
};
/** @type {Record<string, string>} older names */
const OLD = { T3: "T7", T4: "T8", T5: "P7", T6: "P8" };
/** @type {Record<string, [number, number]>} */
const EARS = { A1: [-0.98, 0.12], A2: [0.98, 0.12], M1: [-0.96, 0.3], M2: [0.96, 0.3] };
const RING = 72;

/**
 * Where an electrode of the 10-10 system sits: x to the right, y to the back, the head's rim at 1.
 * @param {string} name
 * @returns {[number, number] | null} null for a name that it does not know
 */
export function position(name) {
  const upper = name.trim().toUpperCase();
  const known = OLD[upper] ?? upper;
  if (known in EARS) return EARS[known];
  const match = /^([A-Z]+?)(Z|\d+)$/.exec(known);
  if (match === null || !(match[1] in ROWS)) return null;
  const [middle, around] = ROWS[match[1]];
  const number = match[2] === "Z" ? 0 : Number(match[2]);
  // 1, 3, 5, 7, 9 to the left and 2, 4, 6, 8, 10 to the right: quarters of the way to the ring.
  const share = Math.ceil(number / 2) / 4;
  const side = number % 2 === 1 ? -1 : 1;
  // Fp and O lie on the ring, 18 degrees for each step away from the midline.
  const isOnRing = Math.abs(middle) >= RING;
  const angle = ((isOnRing ? around - Math.sign(around - 90) * 72 * share : around) * Math.PI) / 180;
  const ring = [Math.sin(angle) * RING, Math.cos(angle) * RING];
  const across = isOnRing ? (number === 0 ? 0 : ring[0]) : ring[0] * share;
  const along = isOnRing && number !== 0 ? ring[1] : middle + (ring[1] - middle) * share ** 2;
  return [(side * across) / 90, -along / 90];
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/**
 * One sentence for an electrode.
 * @param {Quality} quality
 */
export function inWords({ name, grade, reasons }) {
  return reasons.length ? `${name}: ${grade}, ${reasons.join(", ")}` : `${name}: ${grade}`;
}

export class Head {
  /** @param {SVGSVGElement} svg with a view box of 100 around the origin */
  constructor(svg) {
    this.svg = svg;
    /** @type {Map<string, SVGElement>} */
    this.marks = new Map();
  }

  /** @param {Quality[]} quality */
  show(quality) {
    const names = quality.map(({ name }) => name);
    if (names.join() !== [...this.marks.keys()].join()) this.#lay(names);
    for (const electrode of quality) {
      const mark = this.marks.get(electrode.name);
      if (mark === undefined || mark.dataset.grade === electrode.grade) continue;
      mark.dataset.grade = electrode.grade;
      mark.querySelector("path")?.setAttribute("d", SHAPES[electrode.grade]);
    }
    const counts = GRADES.map((g) => `${quality.filter(({ grade }) => grade === g).length} ${g}`);
    this.svg.setAttribute("aria-label", `Electrodes on the head: ${counts.join(", ")}.`);
  }

  /** @param {string[]} names */
  #lay(names) {
    this.svg.replaceChildren(
      element("path", { class: "head", d: "M-6,-45Q0,-54,6,-45" }),
      element("circle", { class: "head", r: 45 }),
    );
    this.marks.clear();
    for (const name of names) {
      const place = position(name);
      const [x, y] = place ?? [0, 0];
      const mark = element("g", { transform: `translate(${x * 52},${y * 52})` });
      const label = element("text", { y: 8 });
      label.textContent = name;
      mark.append(element("path", {}), label);
      this.marks.set(name, mark);
      // What has no place on the head is in the list below it.
      if (place !== null) this.svg.append(mark);
    }
  }
}
