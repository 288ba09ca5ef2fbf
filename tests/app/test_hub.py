"""From the worker's pictures to the viewers' slots."""

import asyncio
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from app.bus import Bus
from app.flash_guard import FlashGuard, GuardedFrame
from app.hub import RATE, Hub
from app.messages import pack, unpack
from app.picture import EncodedFrame, Picture, encode_jpeg
from app.viewer_slot import MAX_IN_FLIGHT, MAX_TRACES, QUICK, SLOW, STALL, ViewerSlot


class Clock:
    def __init__(self):
        self.t = 100.0

    def __call__(self):
        return self.t


class OpenGuard:
    """Lets every picture through at once, at a fade that the test chooses."""

    def __init__(self):
        self.n_replaced = self.n_breaches = 0
        self.is_moving = False
        self.fades = [1.0]
        self.number = 0
        self.rgb = None

    def show(self, rgb, _t):
        self.number += 1
        self.rgb = rgb
        self.is_moving = True
        self._left = list(self.fades)

    def tick(self, _t):
        fade = self._left.pop(0)
        self.is_moving = bool(self._left)
        state = "painted" if fade == 1 else "interpolated"
        return GuardedFrame(self.rgb, fade, state, True, self.number)


def worker_frame(number=1, *, t_eeg=99.5, value=200, pixels=8, state="painted"):
    header = {
        "number": number, "epoch": 10 * number, "kind": "sliding",
        "t_eeg": t_eeg, "t_published": t_eeg + 0.05, "t_encoded": t_eeg + 0.1,
        "t_painted": t_eeg + 0.2, "seed": 0,
        "height": pixels, "width": pixels,
        "concepts": [{"name": f"concept {number}", "character": "", "confidence": 0.5}],
        "chance": 0.025, "is_sure": True, "honesty": "simulated",
        "encode_ms": 5.0, "paint_ms": 100.0, "state": state,
    }  # fmt: skip
    return unpack(pack("frame", header, bytes([value]) * (pixels * pixels * 3)))


def encoded(number, fade=1.0, t_eeg=99.5):
    return EncodedFrame(
        number, Picture({"t_eeg": t_eeg}), fade, t_eeg, pack("frame", {"number": number})
    )


def number_of(message):
    return unpack(message).header["number"]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guard():
    return OpenGuard()


@pytest.fixture
def hub(guard, clock):
    return Hub(guard, clock)


def paint(hub, *args, **kwargs):
    hub.show(worker_frame(*args, **kwargs))
    while hub._guard.is_moving:
        hub.tick()
        hub.deliver()


# The slot


def test_a_viewer_that_never_acknowledges_gets_two_frames_only():
    slot = ViewerSlot()
    taken = []
    for number in range(1, 21):
        slot.offer(encoded(number))
        taken.append(slot.take(0.0))
    assert [number_of(m) for m in taken if m] == [1, 2]
    assert slot.n_sent == MAX_IN_FLIGHT
    # Of eighteen that found no credit one still waits.
    assert slot.n_replaced == 17


def test_an_acknowledgement_frees_the_newest_frame():
    slot = ViewerSlot()
    for number in range(1, 6):
        slot.offer(encoded(number))
        slot.take(0.0)
    assert slot.take(0.0) is None
    slot.acknowledge(1, 0.0)
    assert number_of(slot.take(0.0)) == 5
    assert slot.take(0.0) is None


def test_a_slow_viewer_gets_one_frame_at_a_time_until_it_is_quick_again():
    slot = ViewerSlot()

    def sent_at(t, number):
        slot.offer(encoded(number))
        return slot.take(t) is not None

    assert sent_at(0.0, 1)
    assert sent_at(0.0, 2)
    slot.acknowledge(2, SLOW + 0.01)
    assert sent_at(1.0, 3)
    assert not sent_at(1.0, 4), "one is on its way"
    assert slot.is_stalled(1.0 + STALL + 0.01)
    # Not quick enough yet: else it would swing between the two.
    slot.acknowledge(3, 1.0 + (SLOW + QUICK) / 2)
    assert slot.take(2.0) is not None
    assert not sent_at(2.0, 5)
    slot.acknowledge(4, 2.0 + QUICK - 0.01)
    assert slot.take(3.0) is not None
    assert sent_at(3.0, 6)


def test_an_acknowledgement_covers_older_frames():
    slot = ViewerSlot()
    for number in (1, 2):
        slot.offer(encoded(number))
        slot.take(0.0)
    slot.acknowledge(2, 0.0)
    assert slot.acknowledge(1, 0.0) is None
    for number in (3, 4):
        slot.offer(encoded(number))
        assert number_of(slot.take(0.0)) == number
    assert slot.n_drawn == 1


@pytest.mark.parametrize("number", [0, -1, 3, 10**30])
def test_an_invented_acknowledgement_buys_no_credit(number):
    slot = ViewerSlot()
    for n in (1, 2):
        slot.offer(encoded(n))
        slot.take(0.0)
    assert slot.acknowledge(number, 0.0) is None
    slot.offer(encoded(4))
    assert slot.take(0.0) is None
    assert slot.n_drawn == 0


def test_an_acknowledgement_counts_once():
    slot = ViewerSlot()
    slot.offer(encoded(1))
    slot.take(0.0)
    assert slot.acknowledge(1, 0.0) is not None
    assert slot.acknowledge(1, 0.0) is None
    assert slot.n_drawn == 1


def test_a_frame_that_will_not_be_drawn_frees_its_credit_and_counts_for_nothing(hub, clock):
    slot = hub.join(lambda: None)
    for number in range(1, 6):
        paint(hub, number)
        message = unpack(slot.take(clock.t))
        assert message.header["picture"] == number
        hub.acknowledge(slot, message.header["number"], is_drawn=False)
    assert hub.counts()["frames_drawn"] == 0
    assert hub.take_drawn_ms() == []


def test_a_newer_state_takes_the_place_of_an_older():
    slot = ViewerSlot()
    slot.offer_state(b"old")
    slot.offer_state(b"new")
    assert slot.take(0.0) == b"new"
    assert slot.take(0.0) is None


def test_traces_that_wait_too_long_give_way_whole_and_oldest_first():
    slot = ViewerSlot()
    for n in range(MAX_TRACES + 5):
        slot.offer_traces(b"%d" % n)
    taken = [slot.take(0.0) for _ in range(MAX_TRACES)]
    assert taken == [b"%d" % n for n in range(5, MAX_TRACES + 5)]
    assert slot.take(0.0) is None


def test_traces_wait_for_a_viewer_who_owes_acknowledgements():
    slot = ViewerSlot()
    for number in (1, 2):
        slot.offer(encoded(number))
        slot.take(50.0)
    slot.offer_traces(b"traces")
    assert slot.take(50.0 + STALL + 0.01) is None
    slot.offer_state(b"state")
    assert slot.take(50.0 + STALL + 0.01) == b"state"
    slot.acknowledge(1, 50.0)
    assert slot.take(50.0 + STALL + 0.01) == b"traces"


def test_traces_flow_while_no_picture_changes():
    slot = ViewerSlot()
    slot.offer(encoded(1))
    slot.take(0.0)
    slot.offer_traces(b"traces")
    assert slot.take(1000.0) == b"traces"


def test_replies_come_first():
    slot = ViewerSlot()
    slot.offer_traces(b"traces")
    slot.offer(encoded(1))
    slot.offer_state(b"state")
    slot.reply(b"pong")
    order = [slot.take(0.0) for _ in range(4)]
    assert order[:2] == [b"pong", b"state"]
    assert number_of(order[2]) == 1
    assert order[3] == b"traces"


# The hub


def test_a_frame_says_what_the_page_needs(hub):
    slot = hub.join(lambda: None)
    paint(hub, 3, t_eeg=99.5)
    message = unpack(slot.take(100.0))
    assert message.type == "frame"
    assert message.header == {
        "number": 1, "picture": 3, "epoch": 30, "t_eeg": 99.5, "t_painted": 99.7, "seed": 0,
        "state": "painted", "fade": 1.0, "chance": 0.025, "is_sure": True, "honesty": "simulated",
        "concepts": [{"name": "concept 3", "character": "", "confidence": 0.5}],
    }  # fmt: skip
    picture = Image.open(io.BytesIO(message.payload))
    assert (picture.format, picture.size) == ("JPEG", (8, 8))
    assert np.abs(np.asarray(picture, int) - 200).max() <= 2


def test_what_the_worker_interpolated_is_not_called_painted(hub):
    slot = hub.join(lambda: None)
    paint(hub, 1, state="interpolated")
    assert unpack(slot.take(100.0)).header["state"] == "interpolated"


def test_an_epoch_is_used_once_however_many_frames_are_made_from_it(hub, clock):
    slot = hub.join(lambda: None)
    for number, t_eeg in enumerate((99.5, 99.5, 99.5, 99.8), 1):
        paint(hub, number, t_eeg=t_eeg)
        clock.t += 0.1
        hub.acknowledge(slot, unpack(slot.take(clock.t)).header["number"])
    assert hub.take_drawn_ms() == pytest.approx([600, 600])


def test_what_first_use_is_made_of_adds_up(hub, clock):
    slot = hub.join(lambda: None)
    clock.t = 99.9
    paint(hub, 1, t_eeg=99.5)
    message = unpack(slot.take(100.0))
    clock.t = 100.3
    hub.acknowledge(slot, message.header["number"], shown_ms=120)
    stages = {stage: samples[0] for stage, samples in hub.take_stages_ms().items()}
    assert stages == pytest.approx({
        "published": 50, "encoded": 50, "painted": 100, "compressed": 200, "sent": 100,
        "received": 180, "drawn": 120,
    })  # fmt: skip
    assert [sum(stages.values())] == pytest.approx(hub.take_drawn_ms())
    assert hub.take_stages_ms()["drawn"] == []
    # A page's clock may be wrong, and nobody's time is less than none.
    paint(hub, 2, t_eeg=100.2)
    number = unpack(slot.take(100.4)).header["number"]
    clock.t = 100.5
    hub.acknowledge(slot, number, shown_ms=1e9)
    stages = hub.take_stages_ms()
    assert (stages["received"], stages["drawn"]) == (pytest.approx([0]), pytest.approx([100]))


def test_every_viewer_gets_the_same_bytes(hub):
    slots = [hub.join(lambda: None) for _ in range(3)]
    paint(hub)
    messages = [slot.take(100.0) for slot in slots]
    assert messages[0] is messages[1] is messages[2]


def test_a_viewer_who_stops_does_not_hold_up_another(hub):
    stopped, quick = hub.join(lambda: None), hub.join(lambda: None)
    seen = []
    for number in range(1, 11):
        paint(hub, number)
        stopped.take(100.0)
        message = unpack(quick.take(100.0))
        hub.acknowledge(quick, message.header["number"])
        seen.append(message.header["picture"])
    assert seen == list(range(1, 11))
    assert (stopped.n_sent, stopped.n_replaced) == (2, 7)
    assert hub.counts() == {
        "frames_sent": 12, "frames_drawn": 10, "frames_replaced": 7, "flash_breaches": 0,
    }  # fmt: skip


def test_what_a_viewer_counted_stays_when_it_leaves(hub):
    slot = hub.join(lambda: None)
    paint(hub)
    hub.acknowledge(slot, number_of(slot.take(100.0)))
    before = hub.counts()
    hub.leave(slot)
    hub.leave(slot)
    assert hub.counts() == before
    assert before["frames_drawn"] == 1
    assert not hub.viewers


def test_a_late_viewer_sees_the_newest_frame_at_once(hub):
    for number in (1, 2):
        paint(hub, number)
    slot = hub.join(lambda: None)
    assert unpack(slot.take(100.0)).header["picture"] == 2


def test_a_viewer_is_woken_for_every_frame(hub):
    woken = []
    hub.join(lambda: woken.append(1))
    paint(hub)
    assert woken == [1]


def test_frames_that_nobody_delivered_are_one_when_somebody_does(hub, guard):
    guard.fades = [0.2, 0.6, 1.0]
    slot = hub.join(lambda: None)
    hub.show(worker_frame())
    for _ in range(3):
        hub.tick()
    hub.deliver()
    hub.deliver()
    assert unpack(slot.take(100.0)).header["fade"] == 1.0
    assert slot.take(100.0) is None


def test_a_frame_from_before_the_loop_does_not_stop_those_after_it(hub):
    async def watch():
        slot = hub.join(lambda: None)
        hub.attach(asyncio.get_running_loop())
        await asyncio.sleep(0)
        first = slot.take(100.0)
        await asyncio.to_thread(show_and_tick, 2)
        await asyncio.sleep(0)
        return [unpack(message).header["picture"] for message in (first, slot.take(100.0))]

    def show_and_tick(number):
        hub.show(worker_frame(number))
        hub.tick()

    show_and_tick(1)
    assert asyncio.run(watch()) == [1, 2]


def test_a_worker_that_begins_again_at_one_is_shown(hub):
    slot = hub.join(lambda: None)
    for value in (10, 240):
        paint(hub, 1, value=value)
        message = unpack(slot.take(100.0))
        hub.acknowledge(slot, message.header["number"])
    assert np.asarray(Image.open(io.BytesIO(message.payload))).mean() > 200


def test_pixels_that_did_not_change_are_told_but_not_encoded_again(hub, guard, monkeypatch):
    slot = hub.join(lambda: None)
    paint(hub, 1)
    slot.take(100.0)
    same = GuardedFrame(guard.rgb, 1.0, "painted", False, 2)
    monkeypatch.setattr(guard, "tick", lambda _: same)
    monkeypatch.setattr("app.hub.encode_jpeg", None)
    hub.show(worker_frame(2))
    hub.tick()
    hub.deliver()
    assert unpack(slot.take(100.0)).header["picture"] == 2
    hub.tick()
    hub.deliver()
    assert slot.take(100.0) is None


# First use


def test_first_use_is_the_first_frame_that_is_a_tenth_of_the_way(hub, guard, clock):
    guard.fades = [0.05, 0.1, 0.5, 1.0]
    slot = hub.join(lambda: None)
    hub.show(worker_frame(1, t_eeg=99.5))
    for t in (100.0, 100.1, 100.2, 100.3):
        clock.t = t
        hub.tick()
        hub.deliver()
        number = number_of(slot.take(t))
        clock.t = t + 0.04  # until the acknowledgement arrives
        hub.acknowledge(slot, number)
    assert hub.take_drawn_ms() == [pytest.approx(640.0)]
    assert hub.take_drawn_ms() == []


def test_first_use_is_counted_once_for_all_viewers(hub, clock):
    slots = [hub.join(lambda: None) for _ in range(2)]
    paint(hub, 1, t_eeg=99.8)
    for slot in slots:
        clock.t += 0.1
        hub.acknowledge(slot, number_of(slot.take(clock.t)))
    assert hub.take_drawn_ms() == [pytest.approx(300.0)]


def test_a_late_viewer_says_nothing_of_latency(hub, clock):
    paint(hub, 1, t_eeg=99.8)
    clock.t += 60
    slot = hub.join(lambda: None)
    hub.acknowledge(slot, number_of(slot.take(clock.t)))
    assert hub.take_drawn_ms() == []
    assert hub.counts()["frames_drawn"] == 1


def test_a_picture_that_gave_way_before_it_was_drawn_has_no_first_use(hub, guard):
    guard.fades = [0.05]
    slot = hub.join(lambda: None)
    paint(hub, 1, t_eeg=99.0)
    hub.acknowledge(slot, number_of(slot.take(100.0)))
    guard.fades = [1.0]
    paint(hub, 2, t_eeg=99.9)
    hub.acknowledge(slot, number_of(slot.take(100.0)))
    assert hub.take_drawn_ms() == [pytest.approx(100.0)]


# With the real guard, and over the bus


def test_the_guard_fades_and_then_the_hub_is_idle(clock):
    hub = Hub(FlashGuard(), clock)
    slot = hub.join(lambda: None)
    hub.show(worker_frame(1, value=255, pixels=64))
    fades, means = [], []
    while hub._guard.is_moving:
        clock.t += 1 / RATE
        hub.tick()
        hub.deliver()
        if message := slot.take(clock.t):
            header = unpack(message).header
            fades.append(header["fade"])
            means.append(np.asarray(Image.open(io.BytesIO(unpack(message).payload))).mean())
            hub.acknowledge(slot, header["number"])
        assert clock.t < 105
    assert fades == sorted(fades)
    assert fades[-1] == 1.0
    assert len(fades) >= RATE / 3 - 1
    assert means[-1] > 250
    assert means[0] < 128


def test_frames_name_the_picture_that_they_move_to_and_how_far(clock):
    hub = Hub(FlashGuard(), clock)
    slot = hub.join(lambda: None)
    hub.show(worker_frame(1, value=255, pixels=64))
    pictures = []
    for n in range(60):
        if n == 3:
            hub.show(worker_frame(2, value=0, pixels=64))
        clock.t += 1 / RATE
        hub.tick()
        hub.deliver()
        if message := slot.take(clock.t):
            header = unpack(message).header
            pictures.append((header["picture"], header["fade"]))
            hub.acknowledge(slot, header["number"])
    first, second = ([fade for p, fade in pictures if p == n] for n in (1, 2))
    # The newer one is turned to before the first is reached, and its way begins anew.
    assert 0 < first[0] < first[-1] < 1
    assert 0 < second[0] < second[1] < second[-1] == 1.0
    assert [p for p, _ in pictures] == sorted(p for p, _ in pictures)


def test_the_hub_takes_frames_from_the_bus_until_it_is_stopped(tmp_path):
    Bus.make_folder(tmp_path / "bus")
    with Bus(tmp_path / "bus", "worker") as worker, Bus(tmp_path / "bus", "server") as server:
        publisher, frames = worker.publisher("frame"), server.subscriber("frame")
        hub, stop, delivered = Hub(FlashGuard()), threading.Event(), threading.Event()
        hub._notify = delivered.set
        thread = threading.Thread(target=hub.run, args=(frames, stop))
        thread.start()
        try:
            deadline = time.monotonic() + 5
            while not delivered.wait(0.05) and time.monotonic() < deadline:
                publisher.send(pack("frame", worker_frame().header, worker_frame().payload))
            assert delivered.is_set()
        finally:
            stop.set()
            thread.join(2)
        assert not thread.is_alive()


@pytest.mark.parametrize(("pixels", "layers"), [(128, 1), (512, 2)])
def test_small_pictures_keep_full_colour_resolution(pixels, layers):
    jpeg = Image.open(io.BytesIO(encode_jpeg(np.zeros((pixels, pixels, 3), np.uint8))))
    # Horizontal sampling of the luminance over that of the colours.
    assert jpeg.layer[0][1] // jpeg.layer[1][1] == layers
