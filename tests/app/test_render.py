"""A session painted again from its log is the same, or it is said why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acquisition.epochs import EpochStream
from acquisition.montage import Montage
from acquisition.simulated import named_subject, simulated_info
from acquisition.simulated_subject import LIVE_SESSION
from app.bundle import read_epoch_spec
from app.continuous import simulated_steps
from app.errors import ExitCode, PainterLogError, SummaryError, exit_code
from app.messages import Message, pack, unpack
from app.painter_log import Aimed, Begun, PainterLog, Stepped, begun, digest_of, read_log
from app.render import render
from app.settings import Settings
from app.worker import Report, Worker
from models.errors import BundleError
from models.ladder import RUNGS, Ladder, Rung
from models.painter import open_painter
from tests.tiny_bundle import make_distilled_bundle

SOURCE = "simulated:?seed=3"
SECONDS = 12


class Wandering(Ladder):
    """Takes every rung, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._n = 0

    @property
    def rung(self) -> Rung:
        return RUNGS[self._n // 5 % len(RUNGS)]

    def took(self, calls: int, in_calls: float, in_decoding: float) -> None:
        self._n += 1


def epochs(bundle: Path) -> list[Message]:
    spec = read_epoch_spec(bundle)
    subject = named_subject({"seed": "3"}, LIVE_SESSION)
    info = simulated_info(subject)
    stream = EpochStream(info, spec, Montage.from_channels(info.ch_names, spec), kinds=("sliding",))
    found = []
    for chunk, markers in simulated_steps(subject, SECONDS, []):
        for epoch in [*stream.push(None, markers), *stream.push(chunk)]:
            header = {
                "number": epoch.number, "kind": epoch.kind, "first_sample": epoch.first_sample,
                "t_last": epoch.t_last, "t_published": epoch.t_last,
                "n_channels": epoch.data.shape[0],
                "n_times": epoch.data.shape[1], "honesty": "simulated",
            }  # fmt: skip
            data = np.ascontiguousarray(epoch.data, np.float32).tobytes()
            found.append(unpack(pack("epoch", header, data)))
    return found


def live(bundle: Path, log: Path, ladder: Ladder | None = None) -> list[np.ndarray]:
    """Frames of a worker whose clock is the epochs'."""
    settings = Settings(bundle=str(bundle), source=SOURCE, painter_log=str(log), threads=1)
    now = [0.0]
    frames: list[np.ndarray] = []

    def send(message: bytes) -> None:
        sent = unpack(message)
        shape = sent.header["height"], sent.header["width"], 3
        frames.append(np.frombuffer(sent.payload, np.uint8).reshape(shape))

    painter = open_painter(bundle, settings.seed, 1, "cpu", ladder)
    written = PainterLog(log)
    worker = Worker(painter, settings.seed, Report("tiny"), send, lambda: now[0], written)
    worker.note(begun(settings, bundle))
    rng = np.random.default_rng(0)
    # Not all of them: live, some are replaced before they are read.
    for epoch in epochs(bundle)[2::2]:
        now[0] = epoch.header["t_last"]
        worker.take_in(epoch)
        for _ in range(6):
            worker.work()
            now[0] += float(rng.uniform(0.03, 0.12))
    written.close()
    return frames


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_distilled_bundle(tmp_path_factory.mktemp("distilled") / "bundle")


@pytest.mark.parametrize("make", [lambda: None, Wandering], ids=["measured", "every rung"])
def test_every_frame_is_the_same_bit_for_bit(
    distilled: Path, tmp_path: Path, make: Callable[[], Ladder | None]
) -> None:
    frames = live(distilled, tmp_path / "log", make())
    said: list[str] = []
    found = render(tmp_path / "log", tmp_path / "out", say=said.append)
    assert found.n_frames == found.n_same == len(frames) > 20
    paths = sorted((tmp_path / "out").iterdir())
    assert len(paths) == len(frames)
    for path, frame in zip(paths, frames, strict=True):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), frame)
            assert picture.info["Source"] == f"Made from EEG: simulated ({SOURCE})"
    assert f"frames from simulated EEG; {len(frames)} are the same bit for bit" in said[-1]
    with pytest.raises(SummaryError, match="is not empty"):
        render(tmp_path / "log", tmp_path / "out")


def test_keyframes_too(tiny_bundle: Path, tmp_path: Path) -> None:
    frames = live(tiny_bundle, tmp_path / "log")
    found = render(tmp_path / "log", tmp_path / "out")
    assert found.n_frames == found.n_same == len(frames) > 5


def test_other_eeg_gives_other_frames_and_that_is_counted(distilled: Path, tmp_path: Path) -> None:
    live(distilled, tmp_path / "log")
    found = render(tmp_path / "log", tmp_path / "out", source="simulated:?seed=4")
    assert found.n_same == 0
    assert found.n_frames > 20


def test_a_worker_that_was_started_again_is_followed(distilled: Path, tmp_path: Path) -> None:
    both = live(distilled, tmp_path / "log") + live(distilled, tmp_path / "log")
    whole = (tmp_path / "log").read_text()
    # It was killed while it wrote.
    (tmp_path / "log").write_text(whole + whole.splitlines()[-1][:9])
    found = render(tmp_path / "log", tmp_path / "out")
    assert found.n_frames == found.n_same == len(both)


def test_what_the_log_tells_comes_back(tmp_path: Path) -> None:
    log = PainterLog(tmp_path / "log")
    first = Begun("b", "0" * 64, "simulated:", "sliding", (), "", 3, 1, "auto", {"torch": "2"})
    events = [first, Aimed(640), Stepped(0.1, "one step", "ab"), Stepped(1 / 3, "", "")]
    for event in events:
        log.add(event)
    log.close()
    again = list(read_log(tmp_path / "log"))
    assert again[1:] == events[1:]
    assert again[0].bundle == "b"
    assert digest_of(None) == ""
    assert digest_of(np.zeros((2, 2, 3), np.uint8)) != digest_of(np.ones((2, 2, 3), np.uint8))


# What is wrong with it


def test_a_log_that_is_none_gets_its_sentence(distilled: Path, tmp_path: Path) -> None:
    with pytest.raises(PainterLogError, match=r"cannot be read .*--painter-log") as error:
        render(tmp_path / "nowhere", tmp_path / "out")
    assert exit_code(error.value) is ExitCode.RECORDING
    live(distilled, tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    for text, sentence in (
        ("{\n", "Line 1 of"),
        ("[]\n", "Line 1 of"),
        ('{"what": "slept"}\n', "Line 1 of"),
        (lines[0] + "\n" + '{"what": "aimed", "first": 3}\n', "Line 2 of"),
        (lines[1] + "\n", "does not begin with a painter"),
        (lines[0] + "\n" + json.dumps({"what": "aimed", "first_sample": -7}) + "\n", "no epoch"),
    ):
        (tmp_path / "bad").write_text(text)
        source = str(tmp_path / "short.csv")
        with pytest.raises(PainterLogError, match=sentence):
            render(tmp_path / "bad", tmp_path / "out", source=short(source) if "-7" in text else "")
    unknown = json.dumps({"what": "stepped", "dt": 0.1, "rung": "warp", "digest": ""})
    (tmp_path / "bad").write_text(lines[0] + "\n" + unknown + "\n")
    with pytest.raises(PainterLogError, match="a rung that is not known, 'warp'"):
        render(tmp_path / "bad", tmp_path / "out")


def short(path: str) -> str:
    """A recording of ten seconds, as a source."""
    rows = ["timestamps," + ",".join(["Fz", "Cz", "Pz"])]
    rng = np.random.default_rng(0)
    rows += [f"{k / 250}," + ",".join(f"{x:.3f}" for x in rng.normal(0, 9, 3)) for k in range(2500)]
    Path(path).write_text("\n".join(rows) + "\n")
    return f"file:{path}"


def test_another_bundle_is_refused(distilled: Path, tmp_path: Path) -> None:
    live(distilled, tmp_path / "log")
    other = shutil.copytree(distilled, tmp_path / "other")
    (other / "painter.json").write_text('{"num_inference_steps": 3}')
    with pytest.raises(PainterLogError, match="its files are others"):
        render(tmp_path / "log", tmp_path / "out", bundle=str(other))
    with pytest.raises(BundleError, match="no bundle"):
        render(tmp_path / "log", tmp_path / "out", bundle=str(tmp_path / "nowhere"))


def test_eeg_that_is_gone_needs_a_recording(distilled: Path, tmp_path: Path) -> None:
    live(distilled, tmp_path / "log")
    with pytest.raises(PainterLogError, match=r"The EEG of lsl:name=Muse is gone.*--source"):
        render(tmp_path / "log", tmp_path / "out", source="lsl:name=Muse")


def test_where_nothing_can_be_written_it_is_said(distilled: Path, tmp_path: Path) -> None:
    live(distilled, tmp_path / "log")
    with pytest.raises(SummaryError, match="Frames cannot be written"):
        render(tmp_path / "log", tmp_path / "log")
    with pytest.raises(SummaryError, match=r"painter's log .* cannot be written .*--painter-log"):
        PainterLog(tmp_path / "nowhere" / "log").add()
