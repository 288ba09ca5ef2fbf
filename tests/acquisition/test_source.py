"""Sources are named by strings; a wrong one is refused in a sentence."""

import doctest
import math
from pathlib import Path

import made_recordings as made
import pytest

import acquisition.source
from acquisition.errors import (
    AcquisitionError,
    RecordingError,
    SourceError,
    SourceNotFoundError,
    StreamInfoError,
)
from acquisition.source import CHUNK_S, n_awaited, open_source, parse_source


def test_the_examples_of_the_documentation_hold() -> None:
    result = doctest.testmod(acquisition.source)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("sfreq", [125.0, 250.0, 1000.0])
def test_what_is_due_comes_in_time_and_in_no_small_part(sfreq: float) -> None:
    for n_due in range(1, round(sfreq)):
        parts, left = [], n_due
        while left:
            parts.append(n_awaited(sfreq, left))
            left -= parts[-1]
        assert min(parts) >= min(n_due, 0.6 * CHUNK_S * sfreq)
        assert max(parts) <= math.ceil(1.5 * CHUNK_S * sfreq)
        assert len(parts) <= 1 + n_due / (CHUNK_S * sfreq)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("simulated:", ("simulated", "", {})),
        ("lsl:", ("lsl", "", {})),
        ("lsl:name=My%20Amp&type=EEG", ("lsl", "", {"name": "My Amp", "type": "EEG"})),
        ("xdf:/a/b.xdf?speed=2&loop=true", ("xdf", "/a/b.xdf", {"speed": "2", "loop": "true"})),
        ("brainflow:synthetic", ("brainflow", "synthetic", {})),
    ],
)
def test_a_name_has_kind_target_and_parameters(
    name: str, parts: tuple[str, str, dict[str, str]]
) -> None:
    assert parse_source(name) == parts


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("nonsense", SourceError, "'nonsense' is not a source. Expected simulated:"),
        ("bluetooth:x", SourceError, "There is no kind of source called 'bluetooth'"),
        ("xdf:/nowhere.xdf", SourceNotFoundError, "There is no recording /nowhere.xdf"),
        ("brainflow:cytn", SourceNotFoundError, "no board 'cytn'. Did you mean cyton"),
        ("brainflow:cyton?port=1", SourceError, "has no parameter 'port'"),
        (
            "brainflow:cyton?serial_port=/dev/ttyNONE",
            SourceNotFoundError,
            r"There is no port /dev/ttyNONE\. .*Plug in the dongle",
        ),
        ("brainflow:ganglion_native", StreamInfoError, "'Ganglion' has 4 EEG channels and does no"),
    ],
)
def test_each_bad_source_gets_its_sentence(
    name: str, error: type[AcquisitionError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        open_source(name)


def test_a_truncated_recording_and_one_without_eeg_get_their_sentences(tmp_path: Path) -> None:
    whole = made.session_xdf(tmp_path / "s.xdf").read_bytes()
    (tmp_path / "cut.xdf").write_bytes(whole[:-7])
    with pytest.raises(RecordingError, match=r"cut\.xdf is cut off"):
        open_source(f"xdf:{tmp_path}/cut.xdf")
    (tmp_path / "empty.xdf").write_bytes(b"XDF:")
    with pytest.raises(RecordingError, match=r"Expected an EEG stream in empty\.xdf; .* nothing"):
        open_source(f"xdf:{tmp_path}/empty.xdf")
