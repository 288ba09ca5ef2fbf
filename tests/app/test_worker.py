"""The worker, with a painter that is quick."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bus import Bus, Subscribers
from app.child import read_error, write_session
from app.errors import ExitCode
from app.messages import pack, unpack
from app.settings import Settings
from app.worker import LONGEST_STEP, MOST_WAITING, Inbox, Report, Room, Worker, tell
from models.errors import EpochShapeError
from models.keyframes import OneByOne

N_CHANNELS, N_TIMES = 4, 16


def told():
    return [("elephant", 0.5), ("nothing known", 0.2)] + [(f"c{n}", 0.01) for n in range(38)]


@dataclass
class FakeDecoded:
    is_sure: bool = True
    encode_ms: float = 5.0
    drift: tuple[float, float] | None = None
    concepts: list = field(default_factory=told)


@dataclass
class FakeFrame:
    rgb: np.ndarray
    state: str = "painted"
    paint_ms: float = 90.0


class FakePainter:
    """Paints the mean of the epoch in grey, `n_frames` times, and is sure where it is positive."""

    def __init__(self, n_frames=1, period=0.0):
        self.n_frames, self.period = n_frames, period
        self.rung = ""
        self.n_left = self.n_restarts = 0
        self.seen, self.steps = [], []
        self.threads = set()

    @property
    def is_moving(self):
        return self.n_left > 0

    def restart(self):
        self.n_restarts += 1
        self.n_left = 0

    def aim(self, eeg, is_locked=True, first_sample=None):
        if eeg.shape != (N_CHANNELS, N_TIMES):
            raise EpochShapeError(f"The bundle wants {N_CHANNELS} channels, not {eeg.shape[0]}.")
        self.seen.append(eeg)
        self.threads.add(threading.current_thread().name)
        self.n_left = self.n_frames
        return FakeDecoded(is_sure=bool(eeg.mean() > 0))

    def step(self, dt):
        self.steps.append(dt)
        self.n_left -= 1
        state = "interpolated" if self.n_left else "painted"
        return FakeFrame(np.full((2, 3, 3), abs(float(self.seen[-1].mean())), np.uint8), state)


class Alone(OneByOne):
    """Keeps which were due together."""

    def __init__(self, painters):
        super().__init__(painters)
        self.due = []

    def step(self, dts):
        self.due.append([dt is not None for dt in dts])
        return super().step(dts)


def epoch(
    number=1, kind="sliding", *, value=7.0, t_last=50.0, shape=(N_CHANNELS, N_TIMES), began=1.0
):
    header = {
        "number": number, "began": began, "kind": kind, "first_sample": 0, "t_first": t_last - 1,
        "t_last": t_last, "t_published": t_last, "n_channels": shape[0], "n_times": shape[1],
        "honesty": "replay", "fidelity": 1.0,
    }  # fmt: skip
    return unpack(pack("epoch", header, np.full(shape, value, np.float32).tobytes()))


def control(action):
    return unpack(pack("control", {"action": action}))


class Bench:
    """A worker, what it sent, and its report."""

    def __init__(self, painter=None):
        self.painter = painter or FakePainter()
        self.report = Report("a bundle")
        self.sent = []
        self.t = 50.25
        self.worker = Worker(self.painter, 3, self.report, self._send, clock=lambda: self.t)
        self.room = Room([self.worker], Alone([self.painter]))

    def _send(self, message):
        self.sent.append(unpack(message))

    def paint(self, message):
        self.worker.take_in(message)
        self.room.work()

    def telemetry(self):
        return unpack(self.report.take(60.0)).header


@pytest.fixture
def bench():
    return Bench()


def numbers(inbox):
    taken = []
    while message := inbox.take():
        taken.append(message.header["number"])
    return taken


# What waits


def test_the_newest_sliding_epoch_replaces_the_one_that_waits():
    inbox = Inbox()
    for number in range(1, 5):
        inbox.put(epoch(number))
    assert numbers(inbox) == [4]
    assert inbox.n_replaced == 3


def test_marker_locked_epochs_are_all_kept_in_order():
    inbox = Inbox()
    for number in range(1, MOST_WAITING + 1):
        inbox.put(epoch(number, "marker-locked"))
    assert numbers(inbox) == list(range(1, MOST_WAITING + 1))
    assert inbox.n_dropped == 0


def test_the_oldest_marker_locked_epochs_are_dropped_and_counted():
    inbox = Inbox()
    for number in range(1, MOST_WAITING + 4):
        inbox.put(epoch(number, "marker-locked"))
    assert numbers(inbox) == list(range(4, MOST_WAITING + 4))
    assert inbox.n_dropped == 3


def test_the_two_kinds_take_turns():
    inbox = Inbox()
    for number in (1, 2):
        inbox.put(epoch(number, "marker-locked"))
    inbox.put(epoch(10))
    assert inbox.take().header["number"] == 1
    assert inbox.take().header["number"] == 10
    inbox.put(epoch(11))
    assert numbers(inbox) == [2, 11]


@given(st.lists(st.sampled_from(["sliding", "marker-locked", "take"])))
def test_every_epoch_is_painted_replaced_or_dropped_and_none_twice(actions):
    inbox, taken, n_put = Inbox(), [], 0
    for action in actions:
        if action == "take":
            if message := inbox.take():
                taken.append(message.header["number"])
        else:
            n_put += 1
            inbox.put(epoch(n_put, action, shape=(1, 1)))
    taken += numbers(inbox)
    assert len(set(taken)) == len(taken)
    assert len(taken) + inbox.n_replaced + inbox.n_dropped == n_put


# What is painted


def test_a_frame_carries_its_epoch_to_the_pixels(bench):
    bench.paint(epoch(12, value=7.0, t_last=50.0))
    (frame,) = bench.sent
    assert frame.type == "frame"
    concepts = frame.header.pop("concepts")
    assert frame.header == {
        "number": 1, "epoch": 12, "kind": "sliding", "state": "painted", "t_eeg": 50.0,
        "t_published": 50.0, "t_encoded": 50.25,
        "t_painted": 50.25, "seed": 3, "height": 2, "width": 3,
        "chance": 0.025, "is_sure": True, "honesty": "replay", "encode_ms": 5.0, "paint_ms": 90.0,
    }  # fmt: skip
    assert len(concepts) == 5
    assert concepts[0] == {"name": "elephant", "character": "🐘", "confidence": 0.5}
    assert concepts[1]["character"] == ""
    assert bytes(frame.payload) == bytes([7]) * 18


def test_the_painter_gets_the_samples_as_they_were_sent(bench):
    header = epoch().header
    samples = np.arange(N_CHANNELS * N_TIMES, dtype=np.float32).reshape(N_CHANNELS, N_TIMES)
    bench.paint(unpack(pack("epoch", header, samples.tobytes())))
    (seen,) = bench.painter.seen
    np.testing.assert_array_equal(seen, samples)
    assert seen.flags.writeable


def test_telemetry_counts_pictures_and_tells_each_latency_once(bench):
    bench.paint(epoch(1, t_last=50.0))
    bench.paint(epoch(2, t_last=50.05))
    first, second = bench.telemetry(), bench.telemetry()
    assert first["painted_ms"] == [250.0, 200.0]
    assert second["painted_ms"] == []
    assert first["frames_painted"] == second["frames_painted"] == 2
    assert (first["encode_ms"], first["paint_ms"], first["t"]) == (5.0, 90.0, 60.0)
    assert first["bundle"] == "a bundle"


def test_a_picture_that_is_not_sure_says_so(bench):
    bench.paint(epoch(1, value=7.0))
    bench.paint(epoch(2, value=-9.0, t_last=50.1))
    sure, unsure = (message.header for message in bench.sent)
    assert (sure["is_sure"], unsure["is_sure"]) == (True, False)
    assert unsure["number"] == 2
    assert unsure["concepts"]
    assert bench.telemetry()["frames_painted"] == 2


def test_an_epoch_of_another_shape_is_a_sentence_and_not_the_end(bench):
    bench.paint(epoch(1, shape=(9, N_TIMES)))
    assert bench.sent == []
    assert bench.telemetry()["message"] == "The bundle wants 4 channels, not 9."
    bench.paint(epoch(2))
    assert len(bench.sent) == 1
    assert bench.telemetry()["message"] == ""


# Through time


def test_frames_follow_on_a_grid_and_each_epoch_is_used_once():
    bench = Bench(FakePainter(n_frames=4, period=0.1))
    bench.paint(epoch(1, t_last=50.0))
    for t in (50.30, 50.36, 50.44, 50.46, 50.56, 50.9):
        bench.t = t
        bench.room.work()
    assert [frame.header["t_painted"] for frame in bench.sent] == [50.25, 50.36, 50.46, 50.56]
    assert bench.painter.steps == pytest.approx([0.1, 0.11, 0.1, 0.1])
    states = [frame.header["state"] for frame in bench.sent]
    assert states == ["interpolated"] * 3 + ["painted"]
    telemetry = bench.telemetry()
    assert telemetry["painted_ms"] == [250.0]
    assert telemetry["frames_painted"] == 1, "what is interpolated is not painted"


def test_after_a_rest_it_begins_to_move_and_does_not_leap():
    bench = Bench(FakePainter(n_frames=2, period=0.1))
    bench.paint(epoch(1))
    for t in (50.35, 50.45, 70.0):
        bench.t = t
        bench.room.work()
    bench.paint(epoch(2, t_last=69.9))
    assert bench.painter.steps == pytest.approx([0.1, 0.1, 0.1])
    bench.room.work()
    assert len(bench.painter.steps) == 3, "the next one is due a period later"
    bench.t = 70.1
    bench.room.work()
    assert len(bench.painter.steps) == 4


def test_after_a_stall_there_is_one_frame_and_no_burst():
    bench = Bench(FakePainter(n_frames=9, period=0.1))
    bench.paint(epoch(1))
    bench.t = 60.0
    for _ in range(5):
        bench.room.work()
    assert bench.painter.steps == pytest.approx([0.1, LONGEST_STEP])


def test_an_epoch_that_comes_on_the_way_turns_it(bench):
    bench = Bench(FakePainter(n_frames=5, period=0.1))
    bench.paint(epoch(1, value=7.0))
    bench.t = 50.3
    bench.paint(epoch(2, value=9.0, t_last=50.2))
    assert len(bench.sent) == 1, "not before it is due"
    bench.t = 50.35
    bench.room.work()
    last = bench.sent[-1]
    assert (last.header["epoch"], bytes(last.payload)[:1]) == (2, bytes([9]))
    assert bench.telemetry()["painted_ms"] == [250.0, 150.0]


def test_a_log_is_told_of_all_and_a_painter_begins_with_its_epochs():
    class Kept:
        def __init__(self):
            self.events = []
            self.begin = self.add = self.events.append

    bench = Bench(FakePainter(n_frames=2, period=0.1))
    bench.worker._log = Kept()
    log = bench.worker._log.events
    bench.paint(epoch(1))
    for t in (50.36, 50.5, 50.6):
        bench.t = t
        bench.room.work()
    began, aimed, first, second = log
    assert (began, aimed.first_sample) == (1.0, 0)
    assert (first.dt, second.dt) == (0.1, pytest.approx(0.11))
    assert first.digest == second.digest != ""
    bench.paint(epoch(2))
    # Of filters that were begun anew: what moves is left, and no time has gone.
    bench.t += 0.2
    bench.paint(epoch(3, began=2.0))
    assert bench.painter.n_restarts == 2
    assert log[-3:-1] == [2.0, aimed]
    assert log[-1].dt == 0.1
    assert bench.sent[-1].header["epoch"] == 3


# Several sessions


def room(*painters):
    """A bench for each painter, and the room that they are in."""
    benches = [Bench(painter) for painter in painters]
    painters = Alone(painters)
    return benches, Room([bench.worker for bench in benches], painters), painters


def test_sessions_are_painted_together_and_each_sees_its_own():
    benches, together, painters = room(*(FakePainter(n_frames=9, period=0.1) for _ in range(3)))
    for bench, value in zip(benches[:2], (7.0, 9.0), strict=True):
        bench.worker.take_in(epoch(int(value), value=value))
    together.work()
    assert painters.due == [[True, True, False]]
    for bench, value in zip(benches[:2], (7, 9), strict=True):
        (frame,) = bench.sent
        assert (frame.header["epoch"], bytes(frame.payload)[:1]) == (value, bytes([value]))
    assert benches[2].sent == []


def test_whose_frame_is_due_within_a_tick_has_it_with_the_others():
    benches, together, painters = room(*(FakePainter(n_frames=99, period=0.1) for _ in range(2)))

    def at(t):
        for bench in benches:
            bench.t = t
        together.work()

    benches[0].worker.take_in(epoch())
    at(50.0)
    benches[1].worker.take_in(epoch())
    at(50.02)
    painters.due.clear()
    for i in range(200):
        at(50.03 + 0.01 * i)
    assert painters.due == [[True, True]] * len(painters.due)
    # On the first one's grid, and the other's frames go on as long as they are apart.
    assert len(painters.due) == pytest.approx(20, abs=1)
    assert painters.painters[1].steps[2:] == pytest.approx(
        [0.1] * (len(painters.due) - 1), abs=0.011
    )


def test_one_session_is_paused_alone():
    benches, together, painters = room(*(FakePainter(n_frames=9, period=0.1) for _ in range(2)))
    for bench in benches:
        bench.worker.take_in(epoch())
    benches[0].worker.take_in(control("pause"))
    together.work()
    assert painters.due == [[False, True]]


# Orders


def test_nothing_is_painted_while_paused_and_nothing_old_afterwards(bench):
    worker = bench.worker
    worker.take_in(epoch(1))
    worker.take_in(control("pause"))
    for number, kind in ((2, "sliding"), (3, "marker-locked")):
        worker.take_in(epoch(number, kind))
    assert worker.inbox.take() is None
    assert bench.telemetry()["is_paused"] is True
    worker.take_in(control("resume"))
    assert worker.inbox.take() is None
    worker.take_in(epoch(4))
    assert worker.inbox.take().header["number"] == 4
    assert bench.telemetry()["is_paused"] is False


def test_a_picture_on_its_way_stands_still_while_paused():
    bench = Bench(FakePainter(n_frames=9, period=0.1))
    bench.paint(epoch(1))
    bench.paint(control("pause"))
    for _ in range(5):
        bench.t += 0.2
        bench.room.work()
    assert len(bench.sent) == 1
    bench.paint(control("resume"))
    assert len(bench.sent) == 2
    assert bench.painter.steps[-1] == 0.1, "it goes on, and does not leap"


def test_stop_is_the_supervisors_and_changes_nothing_here(bench):
    bench.worker.take_in(control("stop"))
    bench.worker.take_in(epoch(1))
    assert bench.worker.inbox.take() is not None


def test_the_report_counts_what_waited_in_vain(bench):
    for number in range(3):
        bench.worker.take_in(epoch(number))
    for number in range(MOST_WAITING + 1):
        bench.worker.take_in(epoch(number, "marker-locked"))
    telemetry = bench.telemetry()
    assert (telemetry["epochs_replaced"], telemetry["epochs_dropped"]) == (2, 1)


# On the bus


def test_one_thread_paints_what_comes_over_the_bus(tmp_path, bench):
    Bus.make_folder(tmp_path / "bus")
    with Bus(tmp_path / "bus", "acquisition") as acquisition, Bus(tmp_path / "bus", "worker") as me:
        epochs, stop = acquisition.publisher("epoch"), threading.Event()
        args = (Subscribers([me.subscriber("epoch", "control")]), stop)
        thread = threading.Thread(target=bench.room.run, args=args, name="painting")
        thread.start()
        try:
            deadline = time.monotonic() + 5
            while not bench.sent and time.monotonic() < deadline:
                epochs.send(pack("epoch", epoch().header, epoch().payload))
                time.sleep(0.02)
        finally:
            stop.set()
            thread.join(2)
        assert bench.sent
        assert bench.painter.threads == {"painting"}


def test_telemetry_goes_on_while_a_bundle_loads_and_has_last_words():
    report, stop, sent = Report("a bundle"), threading.Event(), []
    thread = threading.Thread(target=tell, args=([(report, sent.append)], stop))
    thread.start()
    report.painted()
    report.used(5.0)
    stop.set()
    thread.join(2)
    headers = [unpack(message).header for message in sent]
    assert headers[0]["state"] == "loading"
    assert headers[0]["message"] == "The bundle is being loaded."
    assert headers[-1]["frames_painted"] == 1
    assert sum(len(header["painted_ms"]) for header in headers) == 1


def test_a_bundle_that_is_not_there_ends_the_process_with_a_sentence(tmp_path):
    folder, bundle = tmp_path / "session", tmp_path / "bundle"
    Bus.make_folder(folder)
    write_session(folder, Settings(bundle=str(bundle)), "o" * 32)
    command = [sys.executable, "-m", "app.worker", str(folder)]
    # The pipe stays open: a child whose standard input ends, ends too.
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=60) == ExitCode.BUNDLE
    sentence, code = read_error(folder, "worker")
    assert code is ExitCode.BUNDLE
    assert str(bundle) in sentence


@pytest.mark.parametrize(
    ("sampler", "found"), [("LCMScheduler", "False"), ("LMSDiscreteScheduler", "True")]
)
def test_the_painter_is_imported_without_what_its_bundle_does_without(tmp_path, sampler, found):
    index = json.dumps({"scheduler": ["diffusers", sampler]})
    (tmp_path / "model_index.json").write_text(index)
    code = (
        "import sys\n"
        "from app.painter_import import import_painter\n"
        f"open_painters = import_painter({str(tmp_path)!r}).open_painters\n"
        "print(*(name in sys.modules for name in ('peft', 'transformers', 'scipy')))\n"
        "import scipy.stats\n"
        "print(scipy.stats.norm.cdf(0))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False", found, "0.5"]
