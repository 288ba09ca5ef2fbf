"""The bus between processes, here between threads and sockets of one."""

import stat
import time

import pytest
import zmq

from app.bus import PUBLISHERS, Bus, Subscriber, Subscribers
from app.errors import SettingsError
from app.messages import pack


@pytest.fixture
def folder(tmp_path):
    Bus.make_folder(tmp_path / "session")
    return tmp_path / "session"


@pytest.mark.skipif(not zmq.has("ipc"), reason="the system has no ipc")
def test_a_folder_whose_sockets_paths_are_too_long_is_a_sentence(tmp_path):
    long = tmp_path / ("x" * 100)
    with pytest.raises(SettingsError, match=r"paths of \d+ bytes.* Set TMPDIR to a short path"):
        Bus.make_folder(long)


@pytest.fixture
def bus(folder):
    """Opens the bus in a role and closes all of them."""
    buses = []

    def open_bus(role):
        buses.append(Bus(folder, role))
        return buses[-1]

    yield open_bus
    for each in buses:
        each.close()


def until_connected(publisher, subscriber):
    """Subscriptions take a moment; send until the newest arrives: then none is on its way."""
    for n in range(1000):
        publisher.send(pack("marker", {"hello": n}))
        while (message := subscriber.receive(0.02)) and message.header["hello"] < n:
            pass
        if message:
            return
    raise AssertionError("nothing arrived in 20 s")


def test_messages_of_a_topic_arrive_in_order(bus):
    publisher = bus("acquisition").publisher("marker", depth=256)
    subscriber = bus("server").subscriber("marker", depth=256)
    until_connected(publisher, subscriber)
    for n in range(100):
        publisher.send(pack("marker", {"n": n}, bytes(n)))
    received = [subscriber.receive(1) for _ in range(100)]
    assert [m.header["n"] for m in received] == list(range(100))
    assert [len(m.payload) for m in received] == list(range(100))
    assert subscriber.receive(0) is None


def test_newest_returns_the_last_and_counts_what_it_replaced(bus):
    publisher = bus("worker").publisher("frame")
    subscriber = bus("server").subscriber("frame")
    until_connected(publisher, subscriber)
    for n in range(5):
        publisher.send(pack("frame", {"n": n}))
    # The last may still be on its way when the first is taken: count over both.
    deadline, n_replaced, newest = time.monotonic() + 2, 0, -1
    n_taken = 0
    while newest != 4 and time.monotonic() < deadline:
        message, replaced = subscriber.newest(0.1)
        if message:
            newest, n_replaced, n_taken = message.header["n"], n_replaced + replaced, n_taken + 1
    assert newest == 4
    assert n_replaced + n_taken == 5


def test_newest_says_when_there_is_nothing(bus):
    assert bus("server").subscriber("frame").newest(0) == (None, 0)


def test_one_subscriber_hears_every_publisher_of_a_topic(bus):
    publishers = [bus(role).publisher("telemetry") for role in PUBLISHERS["telemetry"]]
    subscriber = bus("supervisor").subscriber("telemetry")
    heard = set()
    deadline = time.monotonic() + 4
    while len(heard) < len(publishers) and time.monotonic() < deadline:
        for n, publisher in enumerate(publishers):
            publisher.send(pack("telemetry", {"from": n}))
        while message := subscriber.receive(0.02):
            heard.add(message.header["from"])
    assert heard == set(range(len(publishers)))


def test_a_busy_topic_does_not_starve_another(bus):
    acquisition = bus("acquisition")
    busy = acquisition.publisher("traces", depth=64)
    quiet = acquisition.publisher("marker")
    subscriber = bus("server").subscriber("traces", "marker")
    until_connected(busy, subscriber)
    until_connected(quiet, subscriber)
    for n in range(30):
        busy.send(pack("traces", {"n": n}))
    quiet.send(pack("marker", {"label": "onset/panda"}))
    deadline = time.monotonic() + 20
    while len(subscriber._poller.poll(0)) < 2:  # until both are there
        assert time.monotonic() < deadline
    order = [subscriber.receive(1).type for _ in range(31)]
    assert order.index("marker") < 5


def test_what_comes_to_several_sessions_is_told_apart(bus, tmp_path):
    Bus.make_folder(tmp_path / "other")
    with (
        Bus(tmp_path / "other", "acquisition") as acquisition,
        Bus(tmp_path / "other", "worker") as me,
    ):
        publishers = [each.publisher("epoch") for each in (bus("acquisition"), acquisition)]
        subscribers = [each.subscriber("epoch", "control") for each in (bus("worker"), me)]
        for publisher, subscriber in zip(publishers, subscribers, strict=True):
            until_connected(publisher, subscriber)
        both = Subscribers(subscribers)
        assert list(both.receive(0.01)) == []
        publishers[1].send(pack("epoch", {"n": 1}))
        assert [(i, m.header["n"]) for i, m in both.receive(5)] == [(1, 1)]
        for n in (2, 3):
            publishers[0].send(pack("epoch", {"n": n}))
        found = []
        while len(found) < 2:
            found += [(i, m.header["n"]) for i, m in both.receive(5)]
        assert found == [(0, 2), (0, 3)]


def test_a_slow_subscriber_does_not_block_the_publisher(bus):
    publisher = bus("acquisition").publisher("epoch", depth=2)
    subscriber = bus("worker").subscriber("epoch", depth=2)
    until_connected(publisher, subscriber)
    begun = time.monotonic()
    for _ in range(2000):
        publisher.send(pack("epoch", {}, bytes(32_768)))
    assert time.monotonic() - begun < 2
    n_received = 0
    while subscriber.receive(0.1):
        n_received += 1
    assert 0 < n_received < 2000


def test_a_publisher_that_is_started_again_is_found(bus):
    first = bus("worker")
    subscriber = bus("server").subscriber("frame")
    until_connected(first.publisher("frame"), subscriber)
    first.close()
    until_connected(bus("worker").publisher("frame"), subscriber)


def test_a_killed_predecessor_does_not_hold_the_address(folder, bus):
    (folder / "frame.worker").write_bytes(b"")
    until_connected(bus("worker").publisher("frame"), bus("server").subscriber("frame"))


def test_last_words_before_closing_arrive(bus):
    worker = bus("worker")
    publisher, subscriber = worker.publisher("telemetry"), bus("supervisor").subscriber("telemetry")
    until_connected(publisher, subscriber)
    publisher.send(pack("telemetry", {"last": True}, bytes(100_000)))
    worker.close()
    assert subscriber.receive(1).header == {"last": True}


def test_the_folder_is_for_this_user_alone(folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_process_publishes_only_its_own_topics(bus):
    with pytest.raises(AssertionError, match="worker does not publish epoch"):
        bus("worker").publisher("epoch")


def test_without_ipc_messages_go_over_loopback_with_keys(tmp_path, monkeypatch):
    if not zmq.has("curve"):
        pytest.skip("this libzmq has no CURVE")
    has = zmq.has
    monkeypatch.setattr("app.bus.zmq.has", lambda what: what != "ipc" and has(what))
    folder = tmp_path / "session"
    Bus.make_folder(folder)
    assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
    with Bus(folder, "worker") as worker, Bus(folder, "server") as server:
        publisher, subscriber = worker.publisher("frame"), server.subscriber("frame")
        until_connected(publisher, subscriber)
        address = publisher._socket.get_string(zmq.LAST_ENDPOINT)
        assert address.startswith("tcp://127.0.0.1:")
        # Who lacks the key hears nothing.
        with zmq.Context() as context, context.socket(zmq.SUB) as stranger:
            stranger.linger = 0
            stranger.setsockopt(zmq.SUBSCRIBE, b"")
            stranger.connect(address)
            eavesdropper = Subscriber([stranger])
            for _ in range(10):
                publisher.send(pack("frame", {}))
                assert eavesdropper.receive(0.02) is None
            assert subscriber.receive(1) is not None


def test_a_publisher_learns_of_everybody_who_begins_to_listen(bus):
    publisher = bus("acquisition").publisher("raw")
    assert not publisher.has_joined()
    for _ in range(2):
        recorder = bus("recorder")
        subscriber = recorder.subscriber("raw")
        deadline = time.monotonic() + 20
        while not publisher.has_joined():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # From now on nothing is lost, the very next message included.
        publisher.send(pack("raw", {"n": 1}))
        assert subscriber.receive(5).header == {"n": 1}
        assert not publisher.has_joined()
    first = recorder
    first.close()
    publisher.send(pack("raw", {}))
    time.sleep(0.2)
    assert not publisher.has_joined(), "one that leaves is none that comes"
