"""Boards by name, losses counted, a silent unplug survived, each error in a sentence."""

import os
import pty
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acquisition.brainflow import BrainFlowSource, open_brainflow
from acquisition.brainflow_boards import (
    board_layout,
    board_names,
    board_parameters,
    explain,
    list_boards,
    load_brainflow,
)
from acquisition.errors import SourceBusyError, SourceError, SourceNotFoundError, StreamInfoError
from acquisition.source import Reading, SourceOptions

UNIX = 1.7e9  # what the board's clock says when the session's says 0


class FakeCyton:
    """Delivers 250 samples a second while it is switched on; its clock is moved by sleeping."""

    def __init__(self) -> None:
        self.t = 0.0
        self.is_on = True
        self.n_prepared = self.n_released = 0
        self.can_prepare = True
        self.dropped: set[int] = set()
        self._sent = 0
        self._marker = 0.0

    def now(self) -> float:
        return self.t

    def sleep(self, seconds: float) -> None:
        if not self.is_on:
            self._sent = int((self.t + seconds) * 250)
        self.t += seconds

    def prepare_session(self) -> None:
        if not self.can_prepare:
            raise load_brainflow().BrainFlowError("no", 7)
        self.n_prepared += 1
        self.is_on = True

    def start_stream(self, num_samples: int) -> None:
        assert num_samples > 1000

    def get_board_data_count(self) -> int:
        return int(self.t * 250) - self._sent if self.is_on else 0

    def get_board_data(self) -> np.ndarray:
        if not self.is_on:
            return np.zeros((24, 0))
        numbers = np.arange(self._sent, int(self.t * 250))
        self._sent = int(self.t * 250)
        numbers = numbers[~np.isin(numbers, list(self.dropped))]
        rows = np.zeros((24, len(numbers)))
        rows[0] = numbers % 256
        rows[1:9] = numbers
        rows[22] = UNIX + numbers / 250
        if len(numbers) and self._marker:
            rows[23, 0], self._marker = self._marker, 0.0
        return rows

    def insert_marker(self, value: float) -> None:
        self._marker = value

    def stop_stream(self) -> None:
        pass

    def release_session(self) -> None:
        self.n_released += 1


def cyton(board: FakeCyton) -> BrainFlowSource:
    return BrainFlowSource(
        board, board_layout("cyton"), SourceOptions(), "/dev/x", board.now, board.sleep
    )


def read_until(source: BrainFlowSource, board: FakeCyton, t: float) -> list[Reading]:
    readings = []
    while board.t < t:
        readings.append(source.read(0.1))
    return readings


def test_a_board_is_known_by_name_in_any_case() -> None:
    names = ("cyton", "CYTON_BOARD", "Cyton", "cyton_board")
    assert {board_layout(n).id for n in names} == {0}
    assert board_layout("cyton-daisy").package_stride == 2
    assert board_layout("muse_2").labels == ("TP9", "AF7", "AF8", "TP10")
    assert (board_layout("synthetic").honesty, board_layout("cyton").honesty) == (
        "simulated", "live",
    )  # fmt: skip


def test_a_wrong_name_is_answered_with_names_like_it() -> None:
    with pytest.raises(SourceNotFoundError, match=r"no board 'sintetic'\. Did you mean synthetic"):
        board_layout("sintetic")
    with pytest.raises(SourceNotFoundError, match=r"no board 'muse'\. Did you mean .*muse_2"):
        board_layout("muse")


def test_a_wrong_name_is_said_before_a_missing_port() -> None:
    with pytest.raises(SourceNotFoundError, match=r"no board 'cytan'\. Did you mean cyton"):
        open_brainflow("cytan", {"serial_port": "/dev/ttyNONE"}, SourceOptions())


def test_boards_without_eeg_or_device_are_refused() -> None:
    with pytest.raises(SourceError, match="emotibit has no EEG channel"):
        board_layout("emotibit")
    with pytest.raises(SourceError, match=r"erases markers\. Use file:RECORDING"):
        board_layout("playback_file")
    with pytest.raises(SourceError, match="needs the board that is streamed: master_board=0"):
        board_layout("streaming")


def test_all_boards_with_eeg_are_listed() -> None:
    boards = {b.key: b for b in list_boards()}
    assert len(boards) > 50
    assert (boards["cyton"].sfreq, len(boards["cyton"].eeg_rows)) == (250.0, 8)
    assert set(boards) <= set(board_names())


def test_parameters_are_checked() -> None:
    params = board_parameters("cyton", {"timeout": "5", "mac_address": "aa:bb"})
    assert (params.timeout, params.mac_address) == (5, "aa:bb")
    with pytest.raises(SourceError, match=r"no parameter 'serial_prt'\. Did you mean serial_port"):
        board_parameters("cyton", {"serial_prt": "x"})
    with pytest.raises(SourceError, match=r"no parameter 'zzz'\. It knows file, "):
        board_parameters("cyton", {"zzz": "x"})
    with pytest.raises(SourceError, match="timeout is 'soon'; expected a whole number"):
        board_parameters("cyton", {"timeout": "soon"})
    with pytest.raises(SourceNotFoundError, match="There is no port /dev/ttyNONE"):
        board_parameters("cyton", {"serial_port": "/dev/ttyNONE"})


def error(name: str) -> Exception:
    brainflow = load_brainflow()
    code = brainflow.BrainFlowExitCodes[name].value
    found: Exception = brainflow.BrainFlowError("said by BrainFlow", code)
    return found


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        ("BOARD_NOT_READY_ERROR", SourceError, "Cyton does not answer. Switch it on"),
        ("INVALID_ARGUMENTS_ERROR", SourceError, "Cyton needs other parameters than these: serial"),
        ("ANOTHER_BOARD_IS_CREATED_ERROR", SourceBusyError, "already open in this program"),
        ("SYNC_TIMEOUT_ERROR", SourceError, "sent no samples in time"),
        ("UNSUPPORTED_BOARD_ERROR", SourceError, "does not support Cyton on this system"),
        ("GENERAL_ERROR", SourceError, "Cyton cannot be opened. Check its port or address"),
        ("INITIAL_MSG_ERROR", SourceError, "opens but does not speak as the board should"),
        ("INVALID_BUFFER_SIZE_ERROR", SourceError, "failed with BrainFlow's INVALID_BUFFER_SIZE"),
        ("UNABLE_TO_OPEN_PORT_ERROR", SourceNotFoundError, "Cyton was not found. Switch it on"),
    ],
)
def test_each_exit_code_gets_its_sentence(
    code: str, kind: type[SourceError], sentence: str
) -> None:
    explained = explain(error(code), "Cyton")
    assert type(explained) is kind
    assert sentence in str(explained)


def test_every_exit_code_has_a_sentence() -> None:
    for code in load_brainflow().BrainFlowExitCodes:
        assert str(explain(error(code.name), "Cyton")).endswith(("anew.", ".", "..."))


def test_a_port_that_is_missing_busy_or_forbidden_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = tmp_path / "ttyUSB0"
    code = error("UNABLE_TO_OPEN_PORT_ERROR")
    assert isinstance(explain(code, "Cyton", str(port)), SourceNotFoundError)
    port.touch()
    assert "another program uses it" in str(explain(code, "Cyton", str(port)))
    monkeypatch.setattr(os, "access", lambda *_: False)
    forbidden = explain(code, "Cyton", str(port))
    assert isinstance(forbidden, SourceBusyError)
    assert "usermod -aG dialout" in str(forbidden)


@pytest.mark.slow
def test_a_real_port_without_a_board_behind_it_is_explained() -> None:
    ours, theirs = pty.openpty()
    try:
        with pytest.raises(SourceError, match=r"Cyton does not answer|does not speak as the board"):
            open_brainflow("cyton", {"serial_port": os.ttyname(theirs)}, SourceOptions())
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_board_that_names_no_electrodes_asks_for_them() -> None:
    with pytest.raises(StreamInfoError, match=r"'Ganglion' has 4 EEG channels .*--ch-names"):
        open_brainflow("ganglion_native", {}, SourceOptions())


def test_samples_come_in_microvolts_on_the_session_clock() -> None:
    board = FakeCyton()
    source = cyton(board)
    chunks = [c for r in read_until(source, board, 2.0) for c in r.chunks]
    data = np.concatenate([c.data for c in chunks], axis=1)
    assert data.shape[0] == 8
    assert data[0].tolist() == list(range(data.shape[1]))
    stamps = np.concatenate([c.timestamps for c in chunks])
    # The board's clock is mapped by its least delay: at most the poll's few milliseconds.
    np.testing.assert_allclose(stamps, np.arange(len(stamps)) / 250, atol=0.03)
    assert all(c.n_lost == 0 for c in chunks)


def test_lost_packages_are_counted_across_the_wrap() -> None:
    board = FakeCyton()
    board.dropped = {100, *range(254, 260)}
    chunks = [c for r in read_until(cyton(board), board, 3.0) for c in r.chunks]
    assert sum(c.n_lost for c in chunks) == 7
    assert chunks[-1].end == round(chunks[-1].data[0, -1]) + 1
    assert [c.n_lost for c in chunks if c.n_lost] == [1, 6]


def test_markers_come_back_at_their_sample() -> None:
    board = FakeCyton()
    source = cyton(board)
    read_until(source, board, 1.0)
    source.mark(3.0)
    readings = read_until(source, board, 1.5)
    ((marker, reading),) = [(m, r) for r in readings for m in r.markers]
    assert marker.label == "3"
    assert marker.timestamp == reading.chunks[0].timestamps[0]


def test_a_silent_unplug_is_seen_and_the_session_started_anew() -> None:
    board = FakeCyton()
    source = cyton(board)
    read_until(source, board, 2.0)
    board.is_on = False
    states = [r.state for r in read_until(source, board, 4.9)]
    assert states[0] == "running"
    assert states[-1] == "stalled"
    assert board.n_prepared == 1
    board.can_prepare = False
    lost = read_until(source, board, 12.0)
    assert lost[-1].state == "reconnecting"
    assert "Cyton is silent; starting it anew" in lost[-1].message
    assert "does not answer" in lost[-1].message
    board.can_prepare = True
    again = read_until(source, board, 40.0)
    assert board.n_prepared == 2
    chunks = [c for r in again for c in r.chunks]
    # Everything since the unplugging was lost, and the index knows it.
    assert chunks[0].n_lost == pytest.approx((chunks[0].timestamps[0] - 2.0) * 250, abs=10)
    assert chunks[0].n_lost > 2000
    assert sum(c.n_lost for c in chunks[1:]) == 0
    assert again[-1].state == "running"


def test_closing_releases_the_session_once() -> None:
    board = FakeCyton()
    source = cyton(board)
    source.close()
    source.close()
    assert board.n_released == 1


def test_a_board_that_cannot_be_opened_is_released() -> None:
    board = FakeCyton()
    board.can_prepare = False
    with pytest.raises(SourceError, match="Cyton does not answer"):
        cyton(board)
    assert board.n_released == 1


def test_the_synthetic_board_runs_without_a_loss() -> None:
    source = open_brainflow("synthetic", {}, SourceOptions())
    try:
        assert (source.info.n_channels, source.info.honesty) == (16, "simulated")
        source.mark(5.0)
        readings = [source.read(0.25) for _ in range(60)]
    finally:
        source.close()
    chunks = [c for r in readings for c in r.chunks]
    assert chunks[-1].end == sum(c.n_times for c in chunks) > 200
    assert all(c.n_lost == 0 for c in chunks)
    assert [m.label for r in readings for m in r.markers] == ["5"]
    assert 1 < np.median(np.concatenate([c.data for c in chunks], axis=1).std(axis=1)) < 1000


def test_a_second_session_on_one_board_is_busy() -> None:
    first = open_brainflow("synthetic", {}, SourceOptions())
    try:
        with pytest.raises(SourceBusyError, match="Synthetic is already open in this program"):
            open_brainflow("synthetic", {}, SourceOptions())
    finally:
        first.close()


def test_names_of_the_operator_replace_the_boards() -> None:
    layout = replace(board_layout("cyton"), labels=("",) * 8)
    names = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "O1", "O2")
    board = FakeCyton()
    source = BrainFlowSource(
        board, layout, SourceOptions(ch_names=names), "", board.now, board.sleep
    )
    assert source.info.ch_names == names
    source.close()
