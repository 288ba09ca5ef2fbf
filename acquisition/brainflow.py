"""EEG from a board, by BrainFlow."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from acquisition.brainflow_boards import (
    BoardLayout,
    board_layout,
    board_parameters,
    explain,
    load_brainflow,
    short_name,
)
from acquisition.channels import Channel, select_eeg
from acquisition.clock import RunningMinimumClock
from acquisition.errors import SourceError
from acquisition.gaps import SampleGrid, find_missing
from acquisition.packages import PackageCounter
from acquisition.source import Marker, Reading, SourceOptions, n_awaited
from acquisition.stall import StallTimer
from acquisition.stream_info import StreamInfo

_POLL_S = 0.004
_RING_S = 120  # of samples that BrainFlow keeps; it overwrites the oldest without a word
_BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)


class Board(Protocol):
    """What is used of BrainFlow's BoardShim."""

    def prepare_session(self) -> None: ...
    def start_stream(self, num_samples: int) -> None: ...
    def get_board_data_count(self) -> int: ...
    def get_board_data(self) -> np.ndarray: ...
    def insert_marker(self, value: float) -> None: ...
    def stop_stream(self) -> None: ...
    def release_session(self) -> None: ...


def open_brainflow(
    target: str, parameters: Mapping[str, str], options: SourceOptions
) -> BrainFlowSource:
    """Open `brainflow:BOARD?serial_port=...` and start its stream.

    Parameters
    ----------
    target : name of the board, in any case, with or without _BOARD.
    parameters : the fields of BrainFlowInputParams.

    Raises
    ------
    SourceError
        The board is unknown, not found, busy or silent.
    StreamInfoError
        The board names no electrodes and neither do the options.
    """
    brainflow = load_brainflow()
    if short_name(target) == "streaming" and "master_board" in parameters:
        params = board_parameters("streaming", parameters)
        # Another BrainFlow program's stream has the rows of the board that it streams.
        ids = {int(b.value): b.name for b in brainflow.BoardIds}
        layout = board_layout(ids.get(params.master_board, parameters["master_board"]))
        board_id = int(brainflow.BoardIds.STREAMING_BOARD)
    else:
        # The name first: of a board that does not exist no port can be right.
        layout = board_layout(target)
        params = board_parameters(layout.key, parameters)
        board_id = layout.id
    board = brainflow.BoardShim(board_id, params)
    return BrainFlowSource(board, layout, options, params.serial_port)


class BrainFlowSource:
    """A board that streams; it is started anew when it falls silent.

    Parameters
    ----------
    board : not prepared yet.
    now, sleep : of the session clock; `wall` of the board's stamps (Unix time).
    """

    def __init__(
        self,
        board: Board,
        layout: BoardLayout,
        options: SourceOptions,
        serial_port: str = "",
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._board, self._layout, self._port = board, layout, serial_port
        self._now, self._sleep = now, sleep
        channels = [Channel(label, "EEG", "uV") for label in layout.labels]
        self._eeg = select_eeg(layout.name, channels, options)
        self._info = StreamInfo(layout.name, self._eeg.ch_names, layout.sfreq, layout.honesty)
        self._clock = RunningMinimumClock()
        self._grid = SampleGrid()
        self._packages = PackageCounter(layout.sfreq, layout.package_stride)
        self._t_last: float | None = None
        self._is_restarted = False
        self._n_restarts, self._t_restart = 0, 0.0
        self._restart: threading.Thread | None = None
        self._restart_error = ""
        self._is_closed = False
        self._start()
        atexit.register(self.close)
        self._stall = StallTimer(now())

    @property
    def info(self) -> StreamInfo:
        return self._info

    def read(self, timeout: float, n_due: int | None = None) -> Reading:
        """Wait at most `timeout` seconds for `CHUNK_S` of samples, or for `n_due`."""
        if self._restart and self._restart.is_alive():
            self._sleep(min(timeout, 0.1))
            return self._lost()
        self._wait(timeout, n_due)
        now = self._now()
        try:
            rows = self._board.get_board_data()
        except load_brainflow().BrainFlowError:
            rows = np.zeros((self._layout.n_rows, 0))  # the last restart failed
        if rows.shape[1]:
            self._stall.feed(now)
            self._n_restarts, self._restart_error = 0, ""
            return self._reading(rows, now)
        state = self._stall.state(now)
        if state == "running":
            return Reading()
        if state == "stalled":
            return Reading(state="stalled", message=f"No sample comes from {self.info.name}.")
        if now >= self._t_restart:
            self._t_restart = now + _BACK_OFF_S[min(self._n_restarts, len(_BACK_OFF_S) - 1)]
            self._n_restarts += 1
            # Preparing a session may take ten seconds (Bluetooth): reading goes on meanwhile.
            self._restart = threading.Thread(target=self._start_anew, daemon=True)
            self._restart.start()
        return self._lost()

    def mark(self, value: float) -> None:
        """Put a marker at the board's next sample; it comes back with the readings."""
        self._board.insert_marker(value)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        if self._restart:
            self._restart.join(timeout=15.0)
        self._stop()

    def _lost(self) -> Reading:
        why = f" ({self._restart_error})" if self._restart_error else ""
        message = (
            f"{self.info.name} is silent; starting it anew{why}. Is it on, charged and in reach?"
        )
        return Reading(state="reconnecting", message=message)

    def _wait(self, timeout: float, n_due: int | None) -> None:
        n_wanted = n_awaited(self.info.sfreq, n_due)
        t_end = self._now() + timeout
        with contextlib.suppress(load_brainflow().BrainFlowError):
            while (n_lacking := n_wanted - self._board.get_board_data_count()) > 0:
                left = t_end - self._now()
                if left <= 0:
                    return
                self._sleep(min(max(_POLL_S, n_lacking / self.info.sfreq), left))

    def _reading(self, rows: np.ndarray, now: float) -> Reading:
        layout = self._layout
        stamps = rows[layout.timestamp_row]
        self._clock.update(float(stamps[-1]), now)
        timestamps = self._clock.to_session(stamps)
        missing, lost = self._account(rows[layout.package_row], timestamps)
        data = self._eeg.microvolts(rows[list(layout.eeg_rows)].T)
        marks = rows[layout.marker_row]
        markers = tuple(
            Marker(float(timestamps[i]), f"{marks[i]:g}") for i in np.flatnonzero(marks)
        )
        return Reading(self._grid.chunks(data, timestamps, missing, lost), markers)

    def _account(
        self, numbers: np.ndarray, timestamps: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples missing before each, and how many of these were lost on the way."""
        sfreq = self.info.sfreq
        if self._t_last is None:
            missing = find_missing(timestamps, sfreq)
        else:
            missing = find_missing(np.concatenate(([self._t_last], timestamps)), sfreq)[1:]
        lost = self._packages.lost(numbers, missing)
        if self._is_restarted and self._t_last is not None:
            # The counter began anew with the session: only time tells.
            lost[0] = max(1, round((timestamps[0] - self._t_last) * sfreq) - 1)
        self._is_restarted, self._t_last = False, float(timestamps[-1])
        return np.where(lost > 0, lost, missing), lost

    def _start(self) -> None:
        brainflow: Any = load_brainflow()
        try:
            self._board.prepare_session()
            self._board.start_stream(round(_RING_S * self._layout.sfreq))
        except brainflow.BrainFlowError as error:
            self._stop()
            raise explain(error, self._layout.name, self._port) from error

    def _start_anew(self) -> None:
        self._stop()
        try:
            self._start()
        except SourceError as error:
            self._restart_error = str(error)
        else:
            self._is_restarted = True

    def _stop(self) -> None:
        for step in (self._board.stop_stream, self._board.release_session):
            with contextlib.suppress(load_brainflow().BrainFlowError):
                step()
