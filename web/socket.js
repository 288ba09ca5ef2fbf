// The connection to the server: comes back by itself, with growing pauses.

import { pack, unpack } from "./wire.js";

/** @typedef {import("./wire.js").Type} Type */

/** Milliseconds: first and longest pause before another try, and silence that ends a connection. */
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;
// The server speaks at least every 0.5 s.
const SILENCE = 5000;
const PING_INTERVAL = 2000;

export class Socket {
  /** @type {WebSocket | null} */
  #socket = null;
  #pause = FIRST_PAUSE;
  #tLastHeard = 0;

  /**
   * @param {string} url
   * @param {(message: ReturnType<typeof unpack>) => void} onMessage
   * @param {(isConnected: boolean) => void} onChange
   */
  constructor(url, onMessage, onChange) {
    this.url = url;
    this.onMessage = onMessage;
    this.onChange = onChange;
    setInterval(() => this.#check(), PING_INTERVAL);
  }

  connect() {
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#tLastHeard = performance.now();
      this.onChange(true);
    };
    socket.onmessage = (event) => {
      this.#tLastHeard = performance.now();
      this.#pause = FIRST_PAUSE;
      this.onMessage(unpack(event.data));
    };
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.onChange(false);
      // Not all viewers at the same moment.
      setTimeout(() => this.connect(), this.#pause * (0.75 + Math.random() / 2));
      this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    };
    this.#socket = socket;
  }

  /**
   * Send a message, if there is a connection.
   * @param {Type} type
   * @param {object} header
   */
  send(type, header) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(pack(type, header));
  }

  #check() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const t = performance.now();
    // A connection can die without a word (sleep, Wi-Fi). A hidden tab's timers are late.
    if (t - this.#tLastHeard > SILENCE && !document.hidden) this.#socket.close();
    else this.send("ping", { t_page: t });
  }
}
