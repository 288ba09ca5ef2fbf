"""Whatever is late, late once and never for good: worker, guard, hub and slot on one fake clock."""

from collections.abc import Callable
from statistics import median

import numpy as np
import pytest

from app.flash_guard import FlashGuard
from app.hub import RATE, Hub
from app.messages import unpack
from app.worker import Report, Room, Worker
from models.keyframes import OneByOne
from tests.app.test_worker import FakeDecoded, FakeFrame, epoch

HOP = 0.25
FRAMES, PERIOD = 2, 0.1


class TimedPainter:
    """Moves for `FRAMES` frames after each epoch; each takes as long as `cost` says.

    It goes in a small step from grey to grey, so that the guard has nothing to hold.
    """

    rung = ""
    period = PERIOD

    def __init__(self, world: "World") -> None:
        self.world, self.n_left, self.level = world, 0, 100

    @property
    def is_moving(self) -> bool:
        return self.n_left > 0

    def restart(self) -> None:
        pass

    def aim(
        self, eeg: np.ndarray, is_locked: bool = True, first_sample: int | None = None
    ) -> FakeDecoded:
        self.n_left = FRAMES
        self.level = 100 + (self.level + 7) % 20
        return FakeDecoded()

    def step(self, _dt: float) -> FakeFrame:
        self.n_left -= 1
        self.world.worker_t += self.world.cost(self.world.t)
        return FakeFrame(np.full((8, 8, 3), self.level, np.uint8))


class World:
    """Epochs every `HOP`, a worker, the server and one page.

    Attributes
    ----------
    cost : seconds that a frame takes the worker, by when it begins.
    comes : by an epoch's time, when it comes; late samples come in a burst.
    draws : by time, whether the page draws and acknowledges.
    used : (when, how late) of each first use.
    """

    def __init__(
        self,
        cost: Callable[[float], float] = lambda _: 0.03,
        comes: Callable[[float], float] = lambda t: t,
        draws: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self.t = self.worker_t = 100.0
        self.cost, self.comes, self.draws = cost, comes, draws
        self.used: list[tuple[float, float]] = []
        self._epochs: list[tuple[float, float]] = []
        self._frames: list[tuple[float, bytes]] = []
        self._t_epoch, self._n, self._t_tick = self.t, 0, 0.0
        self._arrived: list[tuple[float, int]] = []
        self.report = Report("a bundle")
        painter = TimedPainter(self)
        self.worker = Worker(painter, 0, self.report, self._send, lambda: self.worker_t)
        self.room = Room([self.worker], OneByOne([painter]))
        self.hub = Hub(FlashGuard(), lambda: self.t)
        self.slot = self.hub.join(lambda: None)

    def _send(self, message: bytes) -> None:
        self._frames.append((self.worker_t, message))

    def run(self, seconds: float) -> None:
        end = self.t + seconds
        while self.t < end:
            self._acquire()
            self._work()
            self._serve()
            self._watch()
            self.t += 1 / 240

    def sleep(self, seconds: float) -> None:
        """The machine stands still; its clock does not."""
        self.t += seconds
        self.worker_t = max(self.worker_t, self.t)
        self._t_epoch = self.t

    def late(self, since: float, until: float) -> list[float]:
        return [late for t, late in self.used if since <= t - 100 < until]

    def _acquire(self) -> None:
        while self._t_epoch <= self.t:
            self._epochs.append((self.comes(self._t_epoch), self._t_epoch))
            self._t_epoch += HOP

    def _work(self) -> None:
        if self.worker_t > self.t:
            return
        self.worker_t = self.t
        here = [t for comes, t in self._epochs if comes <= self.t]
        self._epochs = [e for e in self._epochs if e[0] > self.t]
        for t_last in here:
            self._n += 1
            self.worker.take_in(epoch(self._n, t_last=t_last))
        self.room.work()

    def _serve(self) -> None:
        here = [message for t, message in self._frames if t <= self.t]
        self._frames = [f for f in self._frames if f[0] > self.t]
        if here:
            self.hub.show(unpack(here[-1]), len(here) - 1)
        if self.t >= self._t_tick:
            self._t_tick = self.t + 1 / RATE
            self.hub.tick()
            self.hub.deliver()

    def _watch(self) -> None:
        while message := self.slot.take(self.t):
            self._arrived.append((self.t + 0.02, unpack(message).header["number"]))
        while self._arrived and self._arrived[0][0] <= self.t and self.draws(self.t - 100):
            self.hub.acknowledge(self.slot, self._arrived.pop(0)[1])
        self.used += [(self.t, ms / 1000) for ms in self.hub.take_drawn_ms()]


def usual() -> float:
    world = World()
    world.run(10)
    return max(world.late(1, 10))


def test_a_worker_slower_than_the_tick_is_late_by_as_much_all_the_time() -> None:
    world = World(cost=lambda _: 0.35)
    world.run(60)
    first, last = world.late(5, 15), world.late(50, 60)
    assert max(last) <= max(first) + 0.05
    # An epoch waits for the frame before it at most, which is made of older ones.
    assert max(last) < HOP + 2 * 0.35 + 0.2
    assert world.worker.inbox.n_replaced > 0


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        # One frame takes eight seconds.
        ({"cost": lambda t: 8.0 if 110 <= t < 110.2 else 0.03}, 18.3),
        # The page is in the background: it neither draws nor acknowledges.
        ({"draws": lambda t: not 10 <= t < 40}, 40.0),
        # Five seconds of samples come at once.
        ({"comes": lambda t: 115.0 if 110 <= t < 115 else t}, 15.0),
    ],
    ids=["a stalled GPU", "a tab in the background", "a burst of late samples"],
)
def test_after_a_fault_the_picture_is_late_once(
    fault: dict[str, Callable[[float], float]], ends: float
) -> None:
    world = World(**fault)
    world.run(ends + 10)
    assert max(world.late(1, 10)) <= usual() + 0.01
    assert len(world.late(ends + 0.6, ends + 10)) >= 9.4 / HOP - 2
    assert max(world.late(ends + 0.6, ends + 10)) <= usual() + 0.01
    # Nothing old is shown one after the other: what was late gave way to the newest.
    assert len([late for late in world.late(9.5, ends + 0.6) if late > usual() + 0.3]) <= 3


def test_after_a_sleep_of_a_minute_the_picture_goes_on() -> None:
    world = World()
    world.run(10)
    world.sleep(60)
    world.run(10)
    after = world.late(70.6, 80)
    assert len(after) >= 9.4 / HOP - 2
    assert max(after) <= usual() + 0.01
    assert median(after) == pytest.approx(median(world.late(1, 10)), abs=0.02)
