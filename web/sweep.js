// The newest seconds of EEG, kept by sample number; gaps are NaN. No canvas in here.

export class Sweep {
  nChannels = 0;
  sfreq = 0;
  /** Samples across the screen. */
  length = 0;
  /** Number of the sample that comes next. */
  next = 0;
  /** @type {Float32Array} channel after channel, each of `length`, sample n at n % length */
  data = new Float32Array();

  /** @param {number} duration seconds across the screen */
  constructor(duration) {
    this.duration = duration;
  }

  /**
   * Take samples.
   * @param {number} firstSample number of the first; a jump is a gap
   * @param {number} nChannels
   * @param {number} sfreq Hz
   * @param {Float32Array} samples microvolts, channel after channel
   * @returns {boolean} whether everything before is gone (another headset, or it began again)
   */
  push(firstSample, nChannels, sfreq, samples) {
    const isNew = nChannels !== this.nChannels || sfreq !== this.sfreq || firstSample < this.next;
    if (isNew) {
      this.nChannels = nChannels;
      this.sfreq = sfreq;
      this.length = Math.round(this.duration * sfreq);
      this.data = new Float32Array(nChannels * this.length).fill(NaN);
      this.next = firstSample;
    }
    const nTimes = samples.length / nChannels;
    const gap = Math.min(firstSample - this.next, this.length);
    for (let channel = 0; channel < nChannels; channel++) {
      const row = channel * this.length;
      for (let n = firstSample - gap; n < firstSample; n++) this.data[row + (n % this.length)] = NaN;
      for (let i = 0; i < nTimes; i++) {
        this.data[row + ((firstSample + i) % this.length)] = samples[channel * nTimes + i];
      }
    }
    this.next = firstSample + nTimes;
    return isNew;
  }

  /**
   * A sample in microvolts, NaN in a gap.
   * @param {number} channel
   * @param {number} n
   */
  at(channel, n) {
    return this.data[channel * this.length + (n % this.length)];
  }
}
