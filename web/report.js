// The answer to "does it work for me?": a report of app/calibrate.py, drawn.

import { byId, write } from "./panels.js";

/** @typedef {{value: number, low: number, high: number}} Accuracy with its 95 % interval */
/**
 * @typedef {object} Report
 * @property {string} honesty
 * @property {string} sentence
 * @property {"decodes" | "a little" | "not above chance"} verdict
 * @property {string[]} warnings
 * @property {string[]} electrodes
 * @property {number} minutes
 * @property {number} n_trials that were used
 * @property {number} n_dropped
 * @property {string[]} dropped
 * @property {number} n_runs
 * @property {string[]} classes
 * @property {number} chance
 * @property {Accuracy} accuracy
 * @property {Accuracy} shuffled
 * @property {Accuracy | null} baseline
 * @property {string} beside_baseline
 * @property {number} p_value
 * @property {{minutes: number, n_trials: number, accuracy: Accuracy}[]} learning_curve
 * @property {string} more
 * @property {{name: string, right: number, n: number, confused_with: string}[]} per_class
 * @property {string} no_bundle why there is none, or ""
 */

/** @type {Record<string, string>} */
const HONESTY = {
  simulated: "A computer played the subject; no one wore a headset.",
  replay: "Recordings were played back.",
  live: "A person wore the headset.",
};
const SVG = "http://www.w3.org/2000/svg";
/** Ends of an axis; the smallest that holds everything is taken. */
const ENDS = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1];
/** Pixels of the learning curve: its height, and around what is drawn. */
const HEIGHT = 240;
const MARGIN = { left: 46, right: 24, top: 14, bottom: 44 };

/** @param {number} share */
export function percent(share) {
  const value = 100 * share;
  return `${value.toFixed(value > 0 && value < 10 ? 1 : 0)} %`;
}

/** @param {Accuracy} accuracy */
const interval = ({ low, high }) => `${percent(low).replace(" %", "")} to ${percent(high)}`;

/** @param {number[]} values */
const axisEnd = (values) => ENDS.find((end) => end >= Math.max(...values)) ?? 1;

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(string | Node)} children
 */
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function shape(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.textContent = text;
  return made;
}

/**
 * A horizontal bar with the chance level across it.
 * @param {number} share
 * @param {number} end
 * @param {number} chance
 * @param {Accuracy} [whisker]
 */
function bar(share, end, chance, whisker) {
  const track = element("span", "bar", element("i", "fill"));
  track.setAttribute("aria-hidden", "true");
  if (whisker) track.append(element("i", "whisker"));
  const places = { share, chance, low: whisker?.low ?? 0, high: whisker?.high ?? 0 };
  for (const [name, value] of Object.entries(places)) track.style.setProperty(`--${name}`, String(value / end));
  return track;
}

/** @param {Report} report */
function showBars({ accuracy, baseline, shuffled, chance }) {
  const end = axisEnd([accuracy.high, baseline?.high ?? 0, shuffled.high, chance]);
  /** @type {[string, string, number, Accuracy | undefined][]} */
  const rows = [
    ["This decoder", "ours", accuracy.value, accuracy],
    ["Shuffled EEG", "", shuffled.value, shuffled],
    ["Chance", "of-chance", chance, undefined],
  ];
  if (baseline) rows.splice(1, 0, ["Classical decoder", "", baseline.value, baseline]);
  const items = rows.map(([name, kind, value, whisker]) => {
    const range = whisker ? ` ${interval(whisker)}` : "";
    const figure = element("span", "figure", percent(value), element("small", "", range));
    return element("li", kind, element("span", "name", name), bar(value, end, chance, whisker), figure);
  });
  byId("accuracy").replaceChildren(...items);
  write("axis-end", percent(end));
}

/** @param {Report} report */
function showCurve({ learning_curve: points, chance, more }) {
  byId("curve-part").hidden = points.length === 0;
  write("more", more);
  if (points.length === 0) return;
  const width = Math.max(300, byId("curve").parentElement?.clientWidth ?? 0);
  const end = axisEnd([chance, ...points.map(({ accuracy }) => accuracy.high)]);
  const last = Math.max(...points.map(({ minutes }) => minutes));
  const x = (/** @type {number} */ minutes) => MARGIN.left + (minutes / last) * (width - MARGIN.left - MARGIN.right);
  const y = (/** @type {number} */ share) => HEIGHT - MARGIN.bottom - (share / end) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const across = (/** @type {number} */ share, /** @type {string} */ kind) =>
    shape("line", { class: kind, x1: x(0), x2: x(last), y1: y(share), y2: y(share) });

  const drawn = [0, end / 2, end].flatMap((share) => [
    across(share, "grid"),
    shape("text", { x: x(0) - 8, y: y(share) + 4, "text-anchor": "end" }, percent(share)),
  ]);
  drawn.push(across(chance, "chance"));
  const line = points.map(({ minutes, accuracy }) => `${x(minutes)},${y(accuracy.value)}`).join(" ");
  drawn.push(shape("polyline", { class: "line", points: line }));
  let free = -Infinity;
  for (const { minutes, accuracy } of points) {
    const at = x(minutes);
    drawn.push(shape("line", { class: "interval", x1: at, x2: at, y1: y(accuracy.low), y2: y(accuracy.high) }));
    drawn.push(shape("circle", { cx: at, cy: y(accuracy.value), r: 4.5 }));
    if (at < free) continue;
    drawn.push(shape("text", { x: at, y: HEIGHT - MARGIN.bottom + 18, "text-anchor": "middle" }, minutes.toFixed(minutes < 10 ? 1 : 0)));
    free = at + 34;
  }
  const title = { x: (x(0) + x(last)) / 2, y: HEIGHT - 6, "text-anchor": "middle" };
  drawn.push(shape("text", title, "minutes of calibration"));
  const curve = byId("curve");
  curve.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const words = points.map(({ minutes, accuracy }) => `${percent(accuracy.value)} after ${minutes.toFixed(1)} minutes`);
  curve.setAttribute("aria-label", `${words.join(", ")}; chance is ${percent(chance)}.`);
  curve.replaceChildren(...drawn);
}

/** @param {Report} report */
function showClasses({ per_class, chance }) {
  const best = [...per_class].sort((a, b) => b.right - a.right);
  const items = best.map(({ name, right, n, confused_with }) => {
    const taken = confused_with ? `else mostly taken for ${confused_with}` : "never taken for another";
    const words = element("small", "", `${n} trials, ${taken}`);
    const figure = element("span", "figure", percent(right));
    return element("li", "", element("span", "name", name), figure, bar(right, 1, chance), words);
  });
  byId("classes").replaceChildren(...items);
}

/**
 * @param {string} id
 * @param {string[]} sentences
 */
function list(id, sentences) {
  byId(`${id}-part`).hidden = sentences.length === 0;
  byId(id).replaceChildren(...sentences.map((sentence) => element("li", "", sentence)));
}

/**
 * Fill the page's #report.
 * @param {Report} report
 * @param {string} subject pseudonym
 * @param {string} command by which to watch; "" where there is no bundle
 */
export function showReport(report, subject, command) {
  byId("report-honesty").dataset.honesty = report.honesty;
  write("report-honesty-word", report.honesty);
  write("report-subject", subject);
  write("report-honesty-text", HONESTY[report.honesty] ?? "");
  byId("answer").dataset.verdict = report.verdict;
  write("answer", report.sentence);
  list("warnings", report.warnings);
  showBars(report);
  const p = report.p_value < 0.001 ? "less than once in 1000 times" : `in ${percent(report.p_value)} of cases`;
  write("p-value", `Guessing alone would do as well ${p}. Bars are shares of trials in runs that were held out; lines on them are 95 % intervals.`);
  write("beside-baseline", report.beside_baseline);
  showCurve(report);
  showClasses(report);
  list("dropped", report.dropped);
  const left = report.n_dropped ? `, and ${report.n_dropped} left out` : "";
  write("n-trials", `${report.n_trials} in ${report.n_runs} runs${left}`);
  write("n-minutes", `${report.minutes.toFixed(1)} minutes`);
  write("n-classes", String(report.classes.length));
  write("electrodes", `${report.electrodes.length}: ${report.electrodes.join(" ")}`);
  byId("watch").hidden = command === "";
  write("command", command);
  write("copy", "Copy");
  byId("not-above").hidden = report.verdict !== "not above chance";
  byId("no-bundle").hidden = command !== "";
  write("no-bundle", report.no_bundle);
}
