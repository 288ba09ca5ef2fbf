"""EEG from the network, by the lab streaming layer (LSL)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from acquisition.channels import EEGChannels, select_eeg
from acquisition.clock import measure_offset
from acquisition.errors import SourceError, StreamInfoError
from acquisition.gaps import SampleGrid, find_missing, gap_threshold
from acquisition.lsl_markers import MarkerInlets
from acquisition.lsl_network import LSLStream, StreamFinder, load_pylsl, read_channels
from acquisition.lsl_search import LSLQuery, find_stream
from acquisition.parameters import check_parameters, number
from acquisition.source import Reading, SourceOptions, n_awaited
from acquisition.stall import StallTimer
from acquisition.stream_info import Honesty, StreamInfo

_PARAMETERS = ("name", "type", "source_id", "timeout", "markers", "session")
_AT_ONCE = 4096  # samples at most, so that a backlog is taken in few readings
_BUFFER_S = 60
_ANSWER_S = 3.0  # for each question to a stream that is announced
_BURST_S = 0.05  # for the rest of a burst to arrive after a long step
_EARLY_S = 0.005  # before the awaited sample is due, waiting begins: rates are not exact
_BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # between tries to connect again
_FORGOTTEN_S = 6.0  # after which an outlet that died is no longer announced
_PROBE_S = 10.0  # of silence of an outlet that is still announced, until a second inlet is tried


def open_lsl(target: str, parameters: Mapping[str, str], options: SourceOptions) -> LSLSource:
    """Find a stream on the network and connect to it.

    Parameters
    ----------
    parameters : `name`, `type` (EEG or ExG if not given), `source_id`; `timeout` in seconds
        (5); `markers`, the name of the one marker stream to join (all); `session`, LSL's
        SessionID.

    Raises
    ------
    SourceNotFoundError
        Nothing matches; what is on the network is listed.
    SourceError
        Several match, or the stream does not answer.
    StreamInfoError
        Names or unit of the channels are missing.
    """
    if target:
        raise SourceError(f"'lsl:{target}': expected lsl:name=..., lsl:type=... or lsl: alone.")
    check_parameters("lsl:", parameters, _PARAMETERS)
    timeout = number("timeout", parameters.get("timeout", "5"))
    query = LSLQuery(
        parameters.get("name", ""), parameters.get("type", ""), parameters.get("source_id", "")
    )
    pylsl = load_pylsl(options.known_peers, parameters.get("session", ""))
    finder = StreamFinder(pylsl)
    stream = find_stream(finder, query, timeout)
    markers = MarkerInlets(pylsl, finder, parameters.get("markers", ""), options.own_markers)
    return LSLSource(pylsl, finder, stream, markers, options)


class LSLSource:
    """An inlet that says when it stalls, and connects again to a stream that was lost.

    liblsl's own recovery is not used: it neither tells that samples were lost meanwhile
    nor notices that the stream came back at another rate.
    """

    def __init__(
        self,
        pylsl: Any,
        finder: StreamFinder,
        stream: LSLStream,
        markers: MarkerInlets,
        options: SourceOptions,
    ) -> None:
        self._lsl, self._finder, self._markers = pylsl, finder, markers
        self._options = options
        self._stream = stream
        self._inlet: Any = None
        self._offset = measure_offset(pylsl.local_clock)
        self._grid = SampleGrid()
        self._t_last = -np.inf  # of the newest sample, not levelled
        self._t_pulled = time.monotonic()
        self._has_lost = False
        self._n_tries, self._t_try = 0, 0.0
        self._probe: Any = None
        self._speed = 1.0
        self._eeg, self._info = self._connect(stream)
        self._stall = StallTimer(time.monotonic())
        markers.join()

    @property
    def info(self) -> StreamInfo:
        return self._info

    def read(self, timeout: float, n_due: int | None = None) -> Reading:
        """Wait at most `timeout` seconds for `CHUNK_S` of samples, or for `n_due`."""
        samples, timestamps = self._pull(timeout, n_due)
        now = time.monotonic()
        markers = tuple(self._markers.take())
        if len(timestamps):
            self._stall.feed(now)
            self._n_tries = 0
            missing, lost = self._account(timestamps)
            chunks = self._grid.chunks(self._eeg.microvolts(samples), timestamps, missing, lost)
            return Reading(chunks, markers)
        state = "lost" if self._inlet is None else self._stall.state(now)
        if state == "running":
            return Reading((), markers)
        if state == "stalled":
            message = f"No sample comes from '{self.info.name}'."
            return Reading((), markers, "stalled", message)
        self._try_again(now)
        what = "was closed" if self._inlet is None else "is silent"
        message = (
            f"The LSL stream '{self.info.name}' {what}; looking for it. "
            "Is the device on and in reach?"
        )
        return Reading((), markers, "reconnecting", message)

    def close(self) -> None:
        self._markers.close()
        self._inlet = self._probe = None  # pylsl closes an inlet with its last reference

    def _pull(self, timeout: float, n_due: int | None) -> tuple[np.ndarray, np.ndarray]:
        nothing = np.zeros((0, 0)), np.zeros(0)
        if self._inlet is None:
            time.sleep(min(timeout, 0.1))
            return nothing
        now = time.monotonic()
        # Without a pull for longer than the inlet's buffer, liblsl drops the oldest silently.
        self._has_lost = self._has_lost or now - self._t_pulled > _BUFFER_S
        self._t_pulled = now
        rate = self.info.sfreq * self._speed
        n = min(n_awaited(rate, n_due), _AT_ONCE)
        # Whoever waits in liblsl is woken by every sample, also by those that are not enough.
        pause = min(timeout, n / rate, self._t_last + n / rate - now) - _EARLY_S
        if pause > 0:
            time.sleep(pause)
            timeout -= pause
        try:
            # In one call: what comes while it waits for these is left for the next reading.
            n = max(n, min(self._inlet.samples_available(), _AT_ONCE))
            samples, times = self._inlet.pull_chunk(timeout, max_samples=n, as_numpy=True)
            if len(times) and self._has_long_step(times + self._offset):
                # A burst that waited somewhere shows that it is one only as a whole.
                time.sleep(_BURST_S)
                more, more_times = self._inlet.pull_chunk(timeout=0.0, as_numpy=True)
                samples = np.concatenate((samples, more))
                times = np.concatenate((times, more_times))
            if self._probe:
                samples, times = self._compare(samples, times)
        except self._lsl.util.LostError:
            self._inlet = self._probe = None
            return nothing
        return samples, times + self._offset

    def _compare(self, samples: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give up the inlet if the second one hears the stream and it does not."""
        heard, heard_times = self._probe.pull_chunk(timeout=0.0, as_numpy=True)
        if len(heard_times) and not len(times):
            samples, times = self._inlet.pull_chunk(timeout=0.5, min_samples=1, as_numpy=True)
            if not len(times):
                self._inlet, self._has_lost = self._probe, True
                samples, times = heard, heard_times
        if len(times):
            self._probe = None
        return samples, times

    def _has_long_step(self, timestamps: np.ndarray) -> bool:
        longest = timestamps[0] - self._t_last
        if len(timestamps) > 1:
            longest = max(longest, np.diff(timestamps).max())
        return bool(
            np.isfinite(self._t_last) and longest * self._speed > gap_threshold(self.info.sfreq)
        )

    def _account(self, timestamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples missing before each, and how many of these were lost on the way."""
        sfreq = self.info.sfreq
        lost = np.zeros(len(timestamps), dtype=np.int64)
        if np.isfinite(self._t_last):
            since = np.concatenate(([self._t_last], timestamps)) - self._t_last
            missing = find_missing(since * self._speed, sfreq)[1:]
            if self._has_lost:
                missing[0] = lost[0] = max(1, round(since[1] * self._speed * sfreq) - 1)
        else:
            missing = find_missing((timestamps - timestamps[0]) * self._speed, sfreq)
        self._t_last, self._has_lost = float(timestamps[-1]), False
        return missing, lost

    def _try_again(self, now: float) -> None:
        """Connect to the stream if it is back; pause longer after each try that failed."""
        if now < self._t_try:
            return
        again = [s for s in self._finder.streams() if self._is_again(s)]
        found = [s for s in again if s.uid != self._stream.uid]
        # An outlet that is still announced may only pause: its inlet is kept.
        if not found and self._inlet is None and self._stall.silence(now) > _FORGOTTEN_S:
            found = again
        try:
            if found:
                self._t_try = now + _BACK_OFF_S[min(self._n_tries, len(_BACK_OFF_S) - 1)]
                self._n_tries += 1
                self._eeg, self._info = self._connect(found[0])
                self._has_lost, self._probe = True, None
                self._stall = StallTimer(time.monotonic())
            elif again and not self._probe and self._stall.silence(now) > _PROBE_S:
                self._probe, _ = self._open(again[0])
        except SourceError:
            return  # it is announced but does not answer (yet)

    def _is_again(self, stream: LSLStream) -> bool:
        """Whether it is the lost stream: a headset's streams share name and source_id."""
        old = self._stream
        is_again = (
            stream.name == old.name
            and stream.type == old.type
            and stream.source_id == old.source_id
        )
        if is_again and (stream.n_channels, stream.sfreq) != (old.n_channels, old.sfreq):
            raise SourceError(
                f"The LSL stream {old.describe()} came back as {stream.describe()}. "
                "Open the source again."
            )
        return is_again

    def _open(self, stream: LSLStream) -> tuple[Any, Any]:
        """An inlet that is connected and knows the sender's clock; the full description."""
        lsl = self._lsl
        inlet = lsl.StreamInlet(
            stream.handle, _BUFFER_S, recover=False, processing_flags=lsl.proc_clocksync
        )
        try:
            info = inlet.info(timeout=_ANSWER_S)
            # The first estimate takes 640 ms; later ones come from the background. A replay
            # begins once the stream is opened, so that comes last.
            inlet.time_correction(timeout=_ANSWER_S)
            inlet.open_stream(timeout=_ANSWER_S)
        except (lsl.util.LostError, lsl.util.TimeoutError) as error:
            raise SourceError(_no_answer(stream)) from error
        return inlet, info

    def _connect(self, stream: LSLStream) -> tuple[EEGChannels, StreamInfo]:
        inlet, info = self._open(stream)
        channels = read_channels(info)
        try:
            eeg = select_eeg(stream.name, channels, self._options)
        except StreamInfoError:
            # The sentence that asks for the unit has a hint, which takes half a second of samples.
            samples, _ = inlet.pull_chunk(timeout=0.5, max_samples=256, as_numpy=True)
            eeg = select_eeg(stream.name, channels, self._options, samples)
        # A replay at another speed says so: its times are shorter than its rate has it.
        speed = number("speed", info.desc().child_value("speed") or "1")
        self._speed = speed if 0 < speed <= 1000 else 1.0
        said = info.desc().child_value("honesty")
        honesty: Honesty = "live"
        if said == "replay" or said == "simulated":
            honesty = said
        self._inlet, self._stream = inlet, stream
        return eeg, StreamInfo(stream.name, eeg.ch_names, stream.sfreq, honesty)


def _no_answer(stream: LSLStream) -> str:
    return (
        f"The LSL stream {stream.describe()} on {stream.hostname} is announced but does not "
        "answer. Open TCP and UDP ports 16572 to 16604 there, or start it anew."
    )
