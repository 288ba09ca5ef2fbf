// The page's clock (performance.now) mapped to the session's, by round trips.

/** Milliseconds for which a round trip counts. */
const KEPT = 120_000;
/** How far two clocks run apart at most, as a share: crystals are off by up to 50 ppm each. */
const DRIFT = 1e-4;

export class SessionClock {
  /** @type {{at: number, offset: number, error: number}[]} */
  #trips = [];

  /**
   * Take a round trip: the server read its clock somewhere between sending and receiving.
   * @param {number} sent page time, milliseconds
   * @param {number} received page time, milliseconds
   * @param {number} tServer session time, seconds
   */
  add(sent, received, tServer) {
    const error = (received - sent) / 2;
    const offset = tServer * 1000 - (sent + received) / 2;
    this.#trips = this.#trips.filter(({ at }) => received - at < KEPT);
    this.#trips.push({ at: received, offset, error });
  }

  /** Forget everything: there may be another server. */
  clear() {
    this.#trips = [];
  }

  get isKnown() {
    return this.#trips.length > 0;
  }

  /**
   * Session time of a page time, by the round trip that tells it best, and how wrong it may be.
   * @param {number} ms page time, milliseconds
   * @returns {{t: number, error: number}} seconds
   */
  at(ms) {
    const tolerance = (/** @type {{at: number, error: number}} */ trip) =>
      trip.error + DRIFT * Math.abs(ms - trip.at);
    const [first, ...others] = this.#trips;
    if (first === undefined) throw new Error("No round trip to the server has been made yet.");
    const best = others.reduce((a, b) => (tolerance(b) < tolerance(a) ? b : a), first);
    return { t: (ms + best.offset) / 1000, error: tolerance(best) / 1000 };
  }
}
