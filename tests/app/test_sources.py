import json

import pytest

from acquisition import brainflow_boards, lsl_network
from acquisition.errors import SourceError
from acquisition.lsl_network import LSLStream
from app.sources import find_sources, sources_text

MUSE = LSLStream("Muse", "EEG", "muse-1", "lab", "uid", 5, 256.0, None)
KEYS = LSLStream("Keys", "Markers", "", "lab", "uid2", 1, 0.0, None)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsl_network, "list_streams", lambda *_: [KEYS, MUSE])


def test_streams_are_listed_with_channels_and_rate() -> None:
    text = sources_text(find_sources())

    assert "lsl:name=Muse&type=EEG" in text
    assert "EEG, 5 channels, 256 Hz" in text
    assert "Markers, 1 channel, irregular" in text


def test_boards_are_listed_with_electrodes_and_rate() -> None:
    found = find_sources()

    cyton = next(board for board in found.boards if board.source == "brainflow:cyton")
    assert (cyton.n_channels, cyton.sfreq) == (8, 250.0)
    assert cyton.ch_names[:2] == ("Fp1", "Fp2")
    assert any(board.source == "brainflow:synthetic" for board in found.boards)


def test_the_list_survives_json() -> None:
    read = json.loads(json.dumps(find_sources().to_dict()))

    assert read["lsl"][1]["source"] == "lsl:name=Muse&type=EEG"
    assert set(read) == {"lsl", "boards", "lsl_error", "board_error"}


def test_a_kind_that_cannot_be_looked_for_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise SourceError("LSL needs the library liblsl.")

    def does_not_load() -> None:
        raise SourceError("BrainFlow's library does not load.")

    monkeypatch.setattr(lsl_network, "list_streams", fails)
    monkeypatch.setattr(brainflow_boards, "list_boards", does_not_load)
    text = sources_text(find_sources())

    assert "LSL needs the library liblsl." in text
    assert "BrainFlow's library does not load." in text
