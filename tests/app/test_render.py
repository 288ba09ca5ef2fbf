"""A session painted again from its recording is the same, or it is said why not."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from acquisition.errors import RecordingError, SourceNotFoundError
from acquisition.simulated import SimulatedSource, named_subject
from acquisition.simulated_subject import LIVE_SESSION
from acquisition.source import Chunk, Reading
from acquisition.xdf_writer import XDFWriter
from app import film
from app.acquire import Acquisition
from app.bundle import read_epoch_spec
from app.errors import ExitCode, PainterLogError, SummaryError, exit_code
from app.messages import pack, unpack
from app.painter_log import (
    Aimed,
    Begun,
    PainterLog,
    Stepped,
    begun,
    digest_of,
    event_from_dict,
    event_to_dict,
)
from app.recorded_session import Seen, read_session
from app.recorder import Recorder, Request
from app.render import render
from app.session import Commands, Session, child_commands
from app.settings import Settings
from app.worker import Report, Room, Worker
from models.bundle_files import folder_digest
from models.errors import BundleError
from models.frames import Painter
from models.keyframes import OneByOne
from models.ladder import RUNGS, Ladder, Rung
from models.painter import StreamPainter, open_painter
from tests.tiny_bundle import make_distilled_bundle

REQUEST = Request("P01", 30, True)
BEGAN = 1000.0


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


OPENED: dict[Path, StreamPainter] = {}


def open_again(
    bundle: Path, seed: int, threads: int, device: str, ladder: Ladder | None
) -> Painter:
    """A new painter; the networks, which remember nothing, are compiled once."""
    if bundle not in OPENED:
        painter = open_painter(bundle, seed, threads, device)
        assert isinstance(painter, StreamPainter)
        OPENED[bundle] = painter
    found = OPENED[bundle]
    return StreamPainter(found._listener._pipeline, found._networks, seed, ladder)


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.render.open_painter", open_again)


class Live:
    """Acquisition, worker and recorder in one thread, with a clock of their own.

    Frames that are painted while `is_recording` are kept in `frames`.
    """

    def __init__(
        self,
        bundle: Path,
        path: Path,
        ladder: Ladder | None = None,
        epochs: str = "sliding",
        opens: Callable[..., Painter] = open_again,
    ) -> None:
        self.t = BEGAN
        self.frames: list[np.ndarray] = []
        self.recorder: Recorder | None = None
        self.is_presenting = True
        self.loses: Callable[[str], bool] = lambda topic: False
        self._path, self._joined = path, False
        self._bundle, self._opens = bundle, opens
        self._settings = Settings(bundle=str(bundle), threads=1, epochs=epochs)  # type: ignore[arg-type]
        self._rng = np.random.default_rng(0)
        self.begin_worker(ladder)
        subject = named_subject({"seed": "3"}, LIVE_SESSION)
        self._source = SimulatedSource(subject, now=lambda: self.t, sleep=self._sleep)
        self.begin_acquisition()

    def begin_worker(self, ladder: Ladder | None = None) -> None:
        settings, digest = self._settings, folder_digest(self._bundle)
        painter = self._opens(self._bundle, settings.seed, 1, "cpu", ladder)
        log = PainterLog(
            lambda message: self._send("painter", message),
            lambda began: begun(settings, self._bundle.name, digest, began),
            lambda: self.t,
        )
        report = Report("tiny")
        self._worker = Worker(painter, 0, report, self._take_frame, lambda: self.t, log)
        self._room = Room([self._worker], OneByOne([painter]))

    def begin_acquisition(self) -> None:
        self.t += 0.01
        sinks: Any = {
            topic: Sink(self, topic) for topic in ("epoch", "traces", "raw", "marker", "telemetry")
        }
        self.acquisition = Acquisition(
            self._source,
            read_epoch_spec(self._bundle),
            self._settings.epochs,
            sinks,
            lambda: self.t,
            has_joined=self._has_joined,
        )

    def record(self) -> None:
        self._joined = True
        today = date(2026, 11, 27)
        self.recorder = Recorder(self._path, REQUEST, lambda _: None, today, lambda: self.t)

    def run(self, seconds: float) -> None:
        end = self.t + seconds
        while self.t < end:
            self.take_in(self._source.read(0.1, self.acquisition._stream.n_due))

    def take_in(self, reading: Reading) -> None:
        if not self.is_presenting:
            reading = replace(reading, markers=())
        self.acquisition.take_in(reading)
        if self.recorder:
            self.recorder.tick()

    def close(self) -> None:
        assert self.recorder is not None
        self.recorder.close()

    def _has_joined(self) -> bool:
        joined, self._joined = self._joined, False
        return joined

    def _sleep(self, seconds: float) -> None:
        """The painter paints while the source waits."""
        end = self.t + seconds
        while self.t < end:
            self._room.work()
            self.t = min(end, self.t + float(self._rng.uniform(0.03, 0.12)))

    def _send(self, topic: str, message: bytes) -> None:
        if self.recorder and not self.loses(topic):
            self.recorder.take_in(unpack(message))

    def _take_frame(self, message: bytes) -> None:
        sent = unpack(message)
        shape = sent.header["height"], sent.header["width"], 3
        if self.recorder:
            self.frames.append(np.frombuffer(sent.payload, np.uint8).reshape(shape))


class Sink:
    def __init__(self, live: Live, topic: str) -> None:
        self._live, self._topic = live, topic

    def send(self, message: bytes) -> None:
        if self._topic == "epoch":
            self._live._worker.take_in(unpack(message))
        elif self._topic != "traces":
            self._live._send(self._topic, message)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_distilled_bundle(tmp_path_factory.mktemp("distilled") / "bundle")


def painted(out: Path) -> Iterator[np.ndarray]:
    for path in sorted((out / "frames").iterdir()):
        with Image.open(path) as picture:
            assert picture.info["Source"] == "Made from EEG: simulated"
            yield np.asarray(picture)


@pytest.mark.parametrize("make", [lambda: None, Wandering], ids=["measured", "every rung"])
def test_a_recording_from_the_middle_of_a_session_is_painted_again_to_the_bit(
    distilled: Path, tmp_path: Path, make: Callable[[], Ladder | None]
) -> None:
    live = Live(distilled, tmp_path / "a.xdf", make())
    live.run(8)
    live.record()
    live.run(12)
    live.close()
    said: list[str] = []
    found = render(tmp_path / "a.xdf", tmp_path / "out", str(distilled), say=said.append)
    # Those before the filters that were begun anew had settled are made from what is not there.
    assert found.n_left_out == len(live.frames) - found.n_frames > 10
    assert found.n_frames == found.n_same > 20
    again = list(painted(tmp_path / "out"))
    np.testing.assert_array_equal(again, live.frames[found.n_left_out :])
    assert f"{found.n_frames} frames from simulated EEG; {found.n_same} are the same" in said[-2]
    assert f"{found.n_left_out} frames are left out" in said[-1]
    with pytest.raises(SummaryError, match="is not empty"):
        render(tmp_path / "a.xdf", tmp_path / "out", str(distilled))


def test_epochs_locked_to_markers_and_keyframes_too(tiny_bundle: Path, tmp_path: Path) -> None:
    live = Live(tiny_bundle, tmp_path / "a.xdf", epochs="marker-locked", opens=open_painter)
    live.record()
    live.run(25)
    live.close()
    found = render(tmp_path / "a.xdf", tmp_path / "out", str(tiny_bundle))
    assert found.n_frames == found.n_same == len(live.frames) > 5
    assert found.n_left_out == 0
    np.testing.assert_array_equal(list(painted(tmp_path / "out")), live.frames)


def test_epochs_of_both_kinds(tiny_bundle: Path, tmp_path: Path) -> None:
    live = Live(tiny_bundle, tmp_path / "a.xdf", epochs="auto", opens=open_painter)
    live.record()
    live.run(12)
    live.is_presenting = False
    live.run(12)
    live.is_presenting = True
    live.run(6)
    live.close()
    log = read_session(tmp_path / "a.xdf").log
    kinds = [line.event.is_locked for line in log if isinstance(line.event, Aimed)]
    assert sum(before != after for before, after in itertools.pairwise(kinds)) >= 2
    found = render(tmp_path / "a.xdf", tmp_path / "out", str(tiny_bundle))
    assert found.n_frames == found.n_same == len(live.frames) > 5
    np.testing.assert_array_equal(list(painted(tmp_path / "out")), live.frames)


@pytest.mark.usefixtures("compiled_once")
def test_processes_that_begin_again_and_gaps_are_followed(distilled: Path, tmp_path: Path) -> None:
    live = Live(distilled, tmp_path / "a.xdf")
    live.record()
    live.run(7)
    live.begin_worker()
    live.run(1)
    live.begin_acquisition()
    live.run(7)
    reading = live._source.read(0.1)
    # A second is lost; the index tells, and the times do not.
    moved = [Chunk(c.data, c.timestamps, c.first_sample + 250, 250) for c in reading.chunks]
    live.take_in(Reading(tuple(moved), reading.markers))
    live._source._read += 250
    live._source._start -= 1.0
    live.run(7)
    live.close()
    session = read_session(tmp_path / "a.xdf")
    first, second = session.segments.values()
    assert len(first.places) == 1
    assert len(second.places) == 2
    found = render(tmp_path / "a.xdf", tmp_path / "out", str(distilled))
    assert found.n_frames == found.n_same == len(live.frames) > 30
    assert found.n_left_out == 0


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("topic", ["painter", "raw"])
def test_what_did_not_come_is_left_out_or_not_the_same_and_counted(
    distilled: Path, tmp_path: Path, topic: str
) -> None:
    live = Live(distilled, tmp_path / "a.xdf")
    live.record()
    live.run(8)
    n_before = len(live.frames)
    sent = iter(range(1000))
    live.loses = lambda of: of == topic and next(sent) == 0
    live.run(4)
    live.close()
    assert live.recorder is not None
    assert live.recorder._raw.n_missed + live.recorder._painter.n_missed == 1
    found = render(tmp_path / "a.xdf", tmp_path / "out", str(distilled))
    assert n_before - 1 <= found.n_same == found.n_frames < len(live.frames)
    assert found.n_left_out >= len(live.frames) - found.n_frames - 1 > 0


@pytest.mark.usefixtures("compiled_once")
def test_a_recorder_that_was_killed_leaves_a_session_to_paint(
    distilled: Path, tmp_path: Path
) -> None:
    live = Live(distilled, tmp_path / "a.xdf")
    live.record()
    live.run(8)
    whole = (tmp_path / "a.xdf").read_bytes()
    # No footers, and a disk that kept a part of the last write.
    (tmp_path / "b.xdf").write_bytes(whole[:-3])
    found = render(tmp_path / "b.xdf", tmp_path / "out", str(distilled))
    assert len(live.frames) - 1 <= found.n_frames == found.n_same
    live.close()


@pytest.mark.slow
def test_a_session_of_the_real_processes_is_painted_again_to_the_bit(
    distilled: Path, tmp_path: Path
) -> None:
    settings = Settings(
        bundle=str(distilled), epochs="sliding", duration=90, threads=1, recordings=str(tmp_path)
    )
    roles = ("acquisition", "worker", "recorder", "zygote")

    def commands(folder: Path) -> Commands:
        every = child_commands(folder)
        return {role: every[role] for role in roles}  # type: ignore[index]

    session = Session(settings, lambda _: None, lambda _: None, commands)
    take_in, acted, t_ended = session._take_in, list[str](), [0.0]

    def watch(timeout: float) -> None:
        take_in(timeout)
        children, n = session._children, session._recorded.get("n_samples", 0)
        # Frames are being painted when it begins.
        if not acted and children["worker"].was_ever_ready:
            t_ended[0] = t_ended[0] or time.monotonic() + 6
            if time.monotonic() > t_ended[0]:
                acted.append("record")
                session._control({"action": "record", "request": REQUEST.to_dict()})
        elif n > 12 * 250:
            session._is_ending = True

    session._take_in = watch  # type: ignore[method-assign]
    session.run()
    assert session._recorded["n_missed"] == 0
    [path] = (tmp_path / "P01").iterdir()
    found = render(path, tmp_path / "out", str(distilled), device="cpu")
    assert found.n_frames == found.n_same > 20
    # Those of before the new filters had settled.
    assert found.n_left_out > 0


# What is written


def test_the_contact_sheet_and_the_film_show_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stimuli").mkdir()
    Image.new("RGB", (30, 30), (250, 0, 0)).save(tmp_path / "stimuli" / "cat 1.png")
    (tmp_path / "stimuli" / "dog 1.png").write_text("damaged")
    monkeypatch.setattr(film, "_open_movie", lambda *_: None)
    grey = np.full((128, 128, 3), 100, np.uint8)
    with film.Film(tmp_path, 100, tmp_path / "stimuli", lambda _: None) as made:
        for k, picture in enumerate(["cat 1"] * 50 + ["dog 1", "../cat 1"] * 25):
            made.add(k / 10, grey, Seen("cat", picture), "live")
    assert len(list((tmp_path / "frames").iterdir())) == 100
    with Image.open(tmp_path / "contact.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
        # 34 of 100, in nine rows of four.
        assert sheet.size == (4 * 208 + 8, 9 * (sheet.height - 8) // 9 + 8)
    is_red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    share = is_red.sum() / (17 * 95 * 95)
    assert 0.9 < share < 1.1, "of 34 tiles the first 17 show it"
    assert (abs(pixels.astype(int) - 100).max(-1) < 8).sum() > 30 * 90 * 90


def test_the_film_has_every_frame_at_its_time(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    times = [5.0, 5.033, 5.066, 5.4, 7.0]
    with film.Film(tmp_path, 5, None, print) as made:
        for k, t in enumerate(times):
            made.add(t, np.full((128, 128, 3), 40 * k, np.uint8), Seen("cat", ""), "live")
    with av.open(str(tmp_path / "session.mp4")) as movie:
        frames = list(movie.decode(video=0))
    assert [round(float(f.time), 3) for f in frames] == [round(t - 5, 3) for t in times]
    for k, frame in enumerate(frames):
        rgb = frame.to_ndarray(format="rgb24")
        assert rgb.shape == (280, 520, 3)
        assert abs(float(rgb[50:200, 50:200].mean()) - 40 * k) < 8


def test_without_pyav_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    said: list[str] = []
    with film.Film(tmp_path, 1, None, said.append) as made:
        made.add(0.0, np.zeros((128, 128, 3), np.uint8), Seen(), "live")
    assert "pip install av" in said[0]
    assert {p.name for p in tmp_path.iterdir()} == {"frames", "contact.jpg"}


def test_what_the_log_tells_comes_back() -> None:
    first = Begun(1.5, "sliding", "b", "0" * 64, 3, 1, "auto", {"torch": "2"})
    for event in (first, Aimed(640, True), Stepped(0.1, "one step", "ab"), Stepped(1 / 3, "", "")):
        assert event_from_dict(event_to_dict(event)) == event
    assert digest_of(None) == ""
    assert digest_of(np.zeros((2, 2, 3), np.uint8)) != digest_of(np.ones((2, 2, 3), np.uint8))


# What is wrong with it


def recording(path: Path, *lines: dict[str, Any]) -> Path:
    """A file of a recorder that was told this of a painter."""
    recorder = Recorder(path, REQUEST, lambda _: None, date(2026, 11, 27))
    for number, event in enumerate(lines):
        header = {"process": 1.0, "number": number, "t": 2.0, "event": event}
        recorder.take_in(unpack(pack("painter", header)))
    recorder.close()
    return path


def test_a_file_that_tells_of_no_painter_gets_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        render(tmp_path / "nowhere.xdf", tmp_path / "out", "weights/scale-model")
    XDFWriter(tmp_path / "empty.xdf", {}).close()
    for path in (tmp_path / "empty.xdf", recording(tmp_path / "a.xdf")):
        with pytest.raises(PainterLogError, match=r"no painter.*button") as error:
            render(path, tmp_path / "out", "weights/scale-model")
    assert exit_code(error.value) is ExitCode.RECORDING
    for name, line in (("b", {"what": "slept"}), ("c", {"what": "aimed", "first": 3})):
        with pytest.raises(PainterLogError, match="tells of something unknown"):
            render(
                recording(tmp_path / f"{name}.xdf", line), tmp_path / "out", "weights/scale-model"
            )
    assert not (tmp_path / "out").exists()


def test_lines_that_are_no_json_are_damage(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.xdf", {"what": "aimed", "first_sample": 3})
    path.write_bytes(path.read_bytes().replace(b'{"what"', b"{'what'"))
    with pytest.raises(RecordingError, match="not as this version"):
        render(path, tmp_path / "out", "weights/scale-model")


@pytest.mark.usefixtures("compiled_once")
def test_a_rung_that_is_unknown_and_another_bundle_are_refused(
    distilled: Path, tmp_path: Path
) -> None:
    first = event_to_dict(Begun(1.5, "sliding", "tiny", folder_digest(distilled), 0, 1, "cpu", {}))
    path = recording(tmp_path / "a.xdf", first)
    other = shutil.copytree(distilled, tmp_path / "other")
    (other / "painter.json").write_text('{"num_inference_steps": 3}')
    with pytest.raises(PainterLogError, match=r"not the bundle that painted, 'tiny'.*--bundle"):
        render(path, tmp_path / "out", str(other))
    with pytest.raises(BundleError, match="no bundle"):
        render(path, tmp_path / "out", str(tmp_path / "nowhere"))
    live = Live(distilled, tmp_path / "b.xdf")
    live.record()
    live.run(6)
    assert live.recorder is not None
    header = {"process": 0, "number": 0, "t": 9.0, "event": event_to_dict(Stepped(0.1, "warp", ""))}
    header |= {"process": live.recorder._painter._sender, "number": live.recorder._painter._next}
    live.recorder.take_in(unpack(pack("painter", header)))
    live.close()
    with pytest.raises(PainterLogError, match="a rung that is not known, 'warp'"):
        render(tmp_path / "b.xdf", tmp_path / "out", str(distilled))


def test_where_nothing_can_be_written_it_is_said(distilled: Path, tmp_path: Path) -> None:
    first = Begun(1.5, "sliding", "tiny", folder_digest(distilled), 0, 1, "cpu", {})
    path = recording(tmp_path / "a.xdf", event_to_dict(first))
    with pytest.raises(SummaryError, match="Frames cannot be written"):
        render(path, path, str(distilled))
