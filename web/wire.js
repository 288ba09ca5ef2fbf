// The wire format of app/messages.py: 4 bytes of type, 4 bytes of header length (big-endian),
// a JSON header in UTF-8, and the payload.

/** The number on the wire is the place in this list plus one, as in app/messages.py. */
export const TYPES = /** @type {const} */ ([
  "frame", "traces", "state", "error", "ack", "ping", "pong", "control", "stimulus",
  "epoch", "raw", "marker", "telemetry", "painter",
]);

const PREFIX = 8;

/** @typedef {typeof TYPES[number]} Type */
/** @typedef {{name: string, character: string, confidence: number}} Concept */
/** @typedef {{p50: number, p95: number, p99: number} | null | undefined} Percentiles */
/** @typedef {"good" | "fair" | "poor" | "off"} Grade */
/** @typedef {{name: string, grade: Grade, reasons: string[]}} Quality */
/**
 * @typedef {object} FrameHeader
 * @property {number} number the server's own, to acknowledge
 * @property {number} picture the worker's
 * @property {number} epoch the acquisition's
 * @property {number} fade 0 to 1: how far the fade to `picture` is
 * @property {"painted" | "interpolated" | "held"} state
 * @property {Concept[]} concepts best first
 * @property {number} chance
 * @property {boolean} is_sure
 * @property {string} honesty
 * @property {number} t_eeg session time of the newest sample in the picture
 */
/**
 * @typedef {object} TracesHeader
 * @property {number} first_sample
 * @property {number} n_channels
 * @property {number} n_times
 * @property {number} sfreq
 */
/**
 * @typedef {object} Seen
 * @property {string} name
 * @property {string} character
 * @property {string} picture address of a small picture, or ""
 * @property {boolean} is_on
 * @property {number} t session time of its onset, or of its offset
 */
/**
 * @typedef {object} Training
 * @property {string} subject pseudonym
 * @property {"running" | "finished" | "stopped" | "failed"} state
 * @property {string} message why it failed
 * @property {number} done 0 to 1
 * @property {string} what it does
 * @property {number} seconds that `done` took
 */
/**
 * @typedef {object} StateHeader
 * @property {string} honesty
 * @property {string} source
 * @property {string[]} ch_names
 * @property {string} bundle
 * @property {string} bundle_says what everyone must know of it, or ""
 * @property {number | null} fidelity 0 to 1
 * @property {string} fidelity_text
 * @property {[number, number] | null} drift since calibration, and the usual one then; as shares
 * @property {string} sentence
 * @property {Quality[]} quality
 * @property {Seen | null} seen
 * @property {{painted: Percentiles, drawn: Percentiles}} latency_ms
 * @property {number} frames_per_second
 * @property {{seconds: number, n_missed: number} | null} recording
 * @property {boolean} is_operator
 * @property {string} [recording_file] where the newest recording lies, for the operator
 * @property {Training | null} [training] the newest, for the operator
 * @property {boolean} is_paused
 * @property {number} samples_lost
 * @property {number} viewers
 */

/**
 * Encode a message.
 * @param {Type} type
 * @param {object} header
 * @param {Uint8Array} [payload]
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function pack(type, header, payload = new Uint8Array()) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(PREFIX + text.length + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, TYPES.indexOf(type) + 1);
  view.setUint32(4, text.length);
  bytes.set(text, PREFIX);
  bytes.set(payload, PREFIX + text.length);
  return bytes;
}

/**
 * Decode a message; throws an Error that says what is wrong with the bytes.
 * @param {ArrayBuffer} data
 * @returns {{type: Type, header: any, payload: Uint8Array<ArrayBuffer>}}
 */
export function unpack(data) {
  if (data.byteLength < PREFIX) {
    throw new Error(`A message has at least ${PREFIX} bytes, this one ${data.byteLength}.`);
  }
  const view = new DataView(data);
  const type = TYPES[view.getUint32(0) - 1];
  const end = PREFIX + view.getUint32(4);
  if (type === undefined) throw new Error(`There is no message type ${view.getUint32(0)}.`);
  if (end > data.byteLength) throw new Error("The header is longer than its message.");
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const header = JSON.parse(text.decode(new Uint8Array(data, PREFIX, end - PREFIX)));
  if (header === null || typeof header !== "object" || Array.isArray(header)) {
    throw new Error("The header of a message is not a JSON object.");
  }
  return { type, header, payload: new Uint8Array(data, end) };
}
