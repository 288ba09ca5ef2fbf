// Put into the page before its own scripts: what was drawn and when, for benchmarks/live.py.
(() => {
  const SIDE = 24;
  const headers = new Map();
  const drawn = [];
  window.drawn = drawn;
  const read = (data) => {
    const view = new DataView(data);
    const length = view.getUint32(4);
    return [view.getUint32(0), JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)))];
  };
  const linear = Float32Array.from({ length: 256 }, (_, k) => {
    const c = k / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  const grid = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  let before = null;
  const look = () => {
    grid.drawImage(document.getElementById("picture"), 0, 0, SIDE, SIDE);
    const rgba = grid.getImageData(0, 0, SIDE, SIDE).data;
    const now = new Float32Array(SIDE * SIDE);
    let change = 0;
    for (let i = 0; i < now.length; i++) {
      now[i] =
        0.2126 * linear[rgba[4 * i]] +
        0.7152 * linear[rgba[4 * i + 1]] +
        0.0722 * linear[rgba[4 * i + 2]];
      if (before) change += Math.abs(now[i] - before[i]) / now.length;
    }
    before = now;
    return change;
  };
  const Plain = WebSocket;
  window.WebSocket = class extends Plain {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => {
        const [type, header] = read(data);
        if (type === 1) headers.set(header.number, header);
      });
    }
    send(data) {
      super.send(data);
      const bytes = data instanceof ArrayBuffer ? data : data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
      const [type, ack] = read(bytes);
      if (type !== 5 || ack.is_drawn === false) return;
      const header = headers.get(ack.number);
      headers.clear();
      if (header === undefined) return;
      const t = (performance.timeOrigin + performance.now()) / 1000;
      drawn.push([t, header.picture, header.t_eeg, header.epoch, look()]);
    }
  };
})();
