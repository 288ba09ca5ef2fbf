"""The web server, alive on a free port, with real HTTP and WebSocket clients."""

import json
import socket
import threading
import time
from contextlib import contextmanager, suppress

import httpx
import numpy as np
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.errors import AddressError
from app.flash_guard import GuardedFrame
from app.hub import Hub
from app.listener import MAX_MESSAGE, listen, uvicorn_config
from app.messages import Message, pack, unpack
from app.metrics import Metrics
from app.picture_set import StimulusPicture
from app.presentation import Presentation
from app.relay import Relay
from app.rights import Rights
from app.server import MAX_BODY, create_app
from app.session_state import SessionState
from app.settings import Settings
from tests.personal_report import write_report

OPERATOR = "o" * 32
VIEWER = "v" * 32
WAIT = 5.0


class OpenGuard:
    """Lets every picture through at once."""

    def __init__(self):
        self.n_replaced = self.n_breaches = self.number = 0
        self.is_moving = False

    def show(self, rgb, _t):
        self.number += 1
        self.rgb = rgb

    def tick(self, _t):
        return GuardedFrame(self.rgb, 1.0, "painted", True, self.number)


class Server:
    """A running server, what it published, and clients for it."""

    def __init__(self, web, viewer_token="", pictures=(), settings=None):
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.rights = Rights(self.port, OPERATOR, viewer_token)
        self.published = []
        self.guard = OpenGuard()
        self.hub = Hub(self.guard)
        self.relay = Relay(
            SessionState("simulated:", "weights/scale-model"),
            self.hub,
            self.rights,
            Metrics(),
            lambda topic, header: self.published.append((topic, header)),
            presentation=Presentation(pictures, time.monotonic),
        )
        self._uvicorn = uvicorn.Server(
            uvicorn_config(create_app(self.relay, web, settings), Settings())
        )
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self.listener],))
        self._thread.start()
        self.until(lambda: self._uvicorn.started)

    def close(self):
        self._uvicorn.should_exit = True
        self._thread.join(WAIT)
        self.listener.close()
        assert not self._thread.is_alive()

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    def http(self, **headers):
        return httpx.Client(base_url=self.origin, headers=headers, trust_env=False)

    @contextmanager
    def operator(self):
        with self.http(origin=self.origin) as client:
            assert client.post("/api/operator", json={"token": OPERATOR}).status_code == 200
            yield client

    def ws(self, *, origin="own", token=None, headers=None, **options):
        headers = dict(headers or {})
        if token:
            headers["Cookie"] = f"{self.rights.cookie}={token}"
        return connect(
            f"ws://127.0.0.1:{self.port}/ws",
            origin=self.origin if origin == "own" else origin,
            additional_headers=headers,
            proxy=None,
            max_size=None,
            **options,
        )

    def in_loop(self, function, *args):
        """Run in the event loop, as the bus's thread does it."""
        done = threading.Event()

        def call():
            function(*args)
            done.set()

        self.relay._loop.call_soon_threadsafe(call)
        assert done.wait(WAIT)

    def tell(self, kind, header, payload=b""):
        self.in_loop(self.relay.receive, Message(kind, header, payload))

    def paint(self, number, pixels=8):
        now = time.monotonic()
        header = {
            "number": number, "epoch": number, "kind": "sliding", "state": "painted",
            "t_eeg": now - 0.3, "t_published": now - 0.2, "t_encoded": now - 0.1, "t_painted": now,
            "seed": 0,
            "height": pixels, "width": pixels, "concepts": [],
            "chance": 0.025, "is_sure": True, "honesty": "simulated",
        }  # fmt: skip
        rgb = np.random.default_rng(number).integers(0, 256, (pixels, pixels, 3), np.uint8)
        self.hub.show(Message("frame", header, rgb.tobytes()))
        self.hub.tick()
        # What was offered is in every slot now.
        self.in_loop(lambda: None)

    def until(self, condition):
        deadline = time.monotonic() + WAIT
        while not (value := condition()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)
        return value

    def controls(self):
        return [header["action"] for topic, header in self.published if topic == "control"]


@pytest.fixture
def web(tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>Phosphene</title>")
    (folder / "main.js").write_text("export const answer = 42;\n")
    (tmp_path / "secret.txt").write_text("not for browsers")
    return folder


@contextmanager
def running(web, **options):
    server = Server(web, **options)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server(web):
    with running(web) as server:
        yield server


@pytest.fixture
def remote(web):
    """As beyond loopback: viewers need a token."""
    with running(web, viewer_token=VIEWER) as server:
        yield server


def receive(ws, *kinds, timeout=WAIT):
    """The next message of one of these types."""
    deadline = time.monotonic() + timeout
    while True:
        message = unpack(ws.recv(timeout=max(0.0, deadline - time.monotonic())))
        if message.type in kinds:
            return message


def nothing_but_states(ws, seconds):
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            assert unpack(ws.recv(timeout=left)).type == "state"
        except TimeoutError:
            return


def acquisition(**changes):
    return {
        "from": "acquisition", "t": time.monotonic(), "samples_in": 500, "samples_lost": 2,
        "state": "running", "message": "", "fidelity": 0.9, "fidelity_text": "Close.",
        "info": {"name": "a headset", "ch_names": ["Fz", "Oz"], "sfreq": 250.0, "honesty": "live"},
        "quality": [{"name": "Fz", "grade": "good", "reasons": []}], "epochs_published": 3,
        "is_ready": True, **changes,
    }  # fmt: skip


def worker(**changes):
    return {
        "from": "worker", "t": time.monotonic(), "state": "ready", "message": "",
        "bundle": "scale-model", "frames_painted": 8, "epochs_replaced": 0, "epochs_dropped": 0,
        "is_paused": False, "painted_ms": [100.0, 300.0], **changes,
    }  # fmt: skip


# Frames


def test_a_frame_reaches_the_page_and_its_acknowledgement_is_a_first_use(server):
    with server.ws() as ws:
        receive(ws, "state")
        server.paint(1)
        frame = receive(ws, "frame")
        assert frame.header["picture"] == 1
        assert bytes(frame.payload[:3]) == b"\xff\xd8\xff"
        ws.send(pack("ack", {"number": frame.header["number"]}))
        drawn = server.until(
            lambda: [ms for t, h in server.published if t == "telemetry" for ms in h["drawn_ms"]]
        )
        assert 300 <= drawn[0] < 300 + 1000 * WAIT
        last = server.published[-1][1]
        assert (last["from"], last["viewers"], last["frames_sent"], last["frames_drawn"]) == (
            "server", 1, 1, 1,
        )  # fmt: skip


def test_a_page_that_never_acknowledges_gets_two_frames_only(server):
    with server.ws() as ws:
        receive(ws, "state")
        for number in range(1, 8):
            server.paint(number)
            n_sent = min(number, 2)
            server.until(lambda n_sent=n_sent: server.hub.counts()["frames_sent"] == n_sent)
        first, second = receive(ws, "frame"), receive(ws, "frame")
        assert (first.header["picture"], second.header["picture"]) == (1, 2)
        nothing_but_states(ws, 0.7)
        ws.send(pack("ack", {"number": second.header["number"]}))
        assert receive(ws, "frame").header["picture"] == 7
        assert server.hub.counts()["frames_replaced"] == 4


def test_a_page_that_reads_nothing_does_not_harm_another(server):
    # Its pings stay unanswered and its connection fills up.
    with server.ws(max_queue=1) as idle, server.ws() as quick:
        receive(quick, "state")
        # 500 kB a second of traces, which need no acknowledgement.
        traces = {
            "first_sample": 0, "n_channels": 128, "n_times": 400, "sfreq": 1000.0,
            "honesty": "live", "t_last": 0.0, "is_ready": True,
        }  # fmt: skip
        latencies = []
        for number in range(1, 31):
            server.tell("traces", traces, bytes(4 * 128 * 400))
            begun = time.monotonic()
            server.paint(number)
            frame = receive(quick, "frame")
            latencies.append(time.monotonic() - begun)
            quick.send(pack("ack", {"number": frame.header["number"]}))
            assert frame.header["picture"] == number
        assert sorted(latencies)[15] < 0.25
        assert len(server.hub.viewers) == 2
        slots = list(server.hub.viewers)
        assert (slots[0].n_sent, slots[1].n_sent) == (2, 30)
        # It will not read the end of the conversation either.
        idle.socket.shutdown(socket.SHUT_RDWR)


def test_a_late_page_gets_the_state_and_the_newest_picture_at_once(server):
    for number in (1, 2, 3):
        server.paint(number)
    with server.ws() as ws:
        assert {receive(ws, "state", "frame").type for _ in range(2)} == {"state", "frame"}


def test_a_page_that_leaves_is_forgotten(server):
    with server.ws() as ws:
        receive(ws, "state")
        assert len(server.hub.viewers) == 1
    server.until(lambda: not server.hub.viewers)


def test_there_is_an_end_to_viewers(server, monkeypatch):
    monkeypatch.setattr("app.server.MAX_VIEWERS", 2)
    with server.ws(), server.ws():
        with pytest.raises(InvalidStatus) as refused, server.ws():
            pass
        assert refused.value.response.status_code == 503
        assert b"2 viewers already" in refused.value.response.body
        with server.http() as client:
            assert "2 viewers already" in client.get("/healthz").json()["refusal"]


# Traces and state


def test_traces_go_to_the_page_as_they_came(server):
    header = {
        "first_sample": 250, "n_channels": 2, "n_times": 10, "sfreq": 250.0, "honesty": "live",
        "t_last": 3.5, "is_ready": True,
    }  # fmt: skip
    samples = np.arange(20, dtype="<f4").reshape(2, 10)
    with server.ws() as ws:
        receive(ws, "state")
        server.tell("traces", header, samples.tobytes())
        traces = receive(ws, "traces")
    assert traces.header == {n: header[n] for n in header if n not in ("t_last", "is_ready")}
    np.testing.assert_array_equal(np.frombuffer(traces.payload, "<f4").reshape(2, 10), samples)


def test_the_state_says_what_everyone_told(server):
    server.tell("telemetry", acquisition())
    server.tell("telemetry", worker())
    server.tell("marker", {"timestamp": 5.0, "label": "onset/elephant", "details": {}})
    with server.ws() as ws:
        state = receive(ws, "state").header
    assert state["honesty"] == "live"
    assert state["source"] == "a headset"
    assert state["ch_names"] == ["Fz", "Oz"]
    assert (state["samples_in"], state["samples_lost"]) == (500, 2)
    assert (state["fidelity"], state["fidelity_text"]) == (0.9, "Close.")
    assert state["quality"] == [{"name": "Fz", "grade": "good", "reasons": []}]
    assert state["bundle"] == "scale-model"
    assert state["seen"] == {
        "name": "elephant", "character": "🐘", "picture": "", "is_on": True, "t": 5.0,
    }  # fmt: skip
    assert state["latency_ms"]["painted"]["p50"] == 200.0
    assert state["latency_ms"]["drawn"] == {"p50": None, "p95": None, "p99": None}
    assert (state["sentence"], state["is_operator"], state["is_paused"]) == ("", False, False)
    assert state["viewers"] == 1


def test_what_people_should_know_is_told_at_once(server, monkeypatch):
    monkeypatch.setattr("app.relay.STATE_INTERVAL", 60.0)
    server.tell("telemetry", acquisition())
    with server.ws() as ws:
        receive(ws, "state")
        time.sleep(0.1)
        server.tell("marker", {"timestamp": 5.0, "label": "onset/panda", "details": {}})
        assert receive(ws, "state").header["seen"]["is_on"] is True
        server.tell("marker", {"timestamp": 7.0, "label": "offset", "details": {}})
        assert receive(ws, "state").header["seen"] == {
            "name": "panda", "character": "🐼", "picture": "", "is_on": False, "t": 7.0,
        }  # fmt: skip
        children = {"worker": {"state": "restarting", "restarts": 1, "message": "It fell."}}
        server.tell("telemetry", {"from": "supervisor", "t": 0.0, "children": children})
        state = receive(ws, "state").header
        assert state["sentence"] == "It fell. It is being started again."
        assert state["children"] == children


@pytest.mark.parametrize("changes", [{"state": "finished"}, {"t": 0.0}])
def test_nothing_is_seen_when_no_eeg_comes(server, changes):
    server.tell("telemetry", acquisition(**changes))
    server.tell("marker", {"timestamp": 5.0, "label": "onset/elephant", "details": {}})
    with server.ws() as ws:
        assert receive(ws, "state").header["seen"] is None


def test_the_state_comes_again_without_a_change(server):
    with server.ws() as ws:
        for _ in range(3):
            receive(ws, "state", timeout=2.0)


def test_a_ping_is_answered_with_both_clocks(server):
    with server.ws() as ws:
        before = time.monotonic()
        ws.send(pack("ping", {"t_page": 12.5}))
        pong = receive(ws, "pong").header
    assert pong["t_page"] == 12.5
    assert before <= pong["t_server"] <= time.monotonic()


# What a page may say


@pytest.mark.parametrize(
    "said",
    [
        "text", b"", b"\0" * 8, pack("frame", {}), pack("telemetry", {"from": "worker"}),
        pack("ack", {}), pack("ack", {"number": "1"}), pack("ping", {}),
        pack("ping", {"t_page": "now"}),
    ],
)  # fmt: skip
def test_nonsense_ends_the_connection_with_a_sentence(server, said):
    with server.ws() as ws:
        ws.send(said)
        assert receive(ws, "error").header["sentence"].endswith(".")
        with pytest.raises(ConnectionClosed) as closed:
            receive(ws, "frame")
        assert closed.value.rcvd.code == 1008


def test_a_page_that_floods_is_cut_off(server):
    with server.ws() as ws:
        with suppress(ConnectionClosed):
            for _ in range(2000):
                ws.send(pack("ping", {"t_page": 0}))
        with suppress(ConnectionClosed):
            while True:
                receive(ws, "error")
        assert ws.close_code == 1008
    server.until(lambda: not server.hub.viewers)


def test_a_message_of_more_than_64_kib_is_refused(server):
    with server.ws() as ws:
        ws.send(pack("ack", {"number": 1}, bytes(MAX_MESSAGE)))
        with pytest.raises(ConnectionClosed) as closed:
            receive(ws, "error")
        assert closed.value.rcvd.code == 1009


def test_messages_are_not_compressed(server):
    with server.ws() as ws:
        assert "Sec-WebSocket-Extensions" not in ws.response.headers


# Rights


def test_control_without_the_operators_token_is_refused(server):
    with server.ws() as ws:
        ws.send(pack("control", {"action": "pause"}))
        assert receive(ws, "error").header["sentence"].startswith("Only the operator may do this.")
    with server.http(origin=server.origin) as client:
        response = client.post("/api/control", json={"action": "pause"})
    assert response.status_code == 401
    assert response.json()["sentence"].startswith("Only the operator may do this.")
    assert server.controls() == []


def test_the_operator_controls_by_http_and_by_websocket(server):
    with server.operator() as client:
        assert client.post("/api/control", json={"action": "pause"}).json() == {"action": "pause"}
    with server.ws(token=OPERATOR) as ws:
        assert receive(ws, "state").header["is_operator"] is True
        ws.send(pack("control", {"action": "resume"}))
        ws.send(pack("control", {"action": "stop"}))
        server.until(lambda: len(server.controls()) == 3)
    assert server.controls() == ["pause", "resume", "stop"]


RECORDING = {"is_on": True, "subject": "P01", "keep_days": 30, "has_consent": True}


def test_the_operator_begins_and_ends_a_recording_and_everyone_sees_it(server):
    with server.operator() as client:
        assert client.post("/api/recording", json=RECORDING).json() == {"is_on": True}
        assert client.post("/api/recording", json={"is_on": False}).json() == {"is_on": False}
    asked = [header for topic, header in server.published if topic == "control"]
    wanted = {name: value for name, value in RECORDING.items() if name != "is_on"}
    assert asked == [{"action": "record", "request": wanted}, {"action": "stop-recording"}]

    def tell(state):
        report = {"state": state, "message": "No room.", "restarts": 0}
        children = {"from": "supervisor", "t": 0.0, "children": {"recorder": report}}
        server.tell("telemetry", children)

    with server.ws() as ws:
        assert receive(ws, "state").header["recording"] is None
        server.tell("telemetry", {"from": "recorder", "t": 0.0, "seconds": 61.5, "n_missed": 2})
        tell("running")
        seen = receive_until(ws, lambda header: header["recording"] is not None)
        assert seen["recording"] == {"seconds": 61.5, "n_missed": 2}
        tell("failed")
        seen = receive_until(ws, lambda header: header["recording"] is None)
        assert seen["sentence"] == "No room."


def receive_until(ws, is_it):
    while not is_it(header := receive(ws, "state").header):
        pass
    return header


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"has_consent": False}, 400, "only of a person who agreed"),
        ({"subject": "../x"}, 400, "A pseudonym has"),
        ({"keep_days": 10**6}, 400, "1 to 3650 days"),
    ],
)
def test_a_recording_that_makes_no_sense_is_refused(server, changed, status, said):
    with server.operator() as client:
        response = client.post("/api/recording", json=RECORDING | changed)
    assert response.status_code == status
    assert said in response.json()["sentence"]
    assert server.controls() == []


def test_nobody_else_may_record(server):
    with server.http(origin=server.origin) as client:
        response = client.post("/api/recording", json=RECORDING)
    assert response.status_code == 401
    assert response.json()["sentence"].startswith("Only the operator may do this.")
    assert server.controls() == []


def test_a_worker_that_was_started_again_is_paused_again(server):
    with server.operator() as client:
        client.post("/api/control", json={"action": "pause"})
    server.tell("telemetry", worker(is_paused=True))
    time.sleep(0.3)
    assert server.controls() == ["pause"]
    with server.ws() as ws:
        server.tell("telemetry", worker(is_paused=False))
        server.until(lambda: server.controls() == ["pause", "pause"])
        # Else the page's button would ask for a pause once more instead of its end.
        assert receive(ws, "state").header["is_paused"] is True


@pytest.mark.parametrize("action", ["explode", None, 7, ["pause"]])
def test_an_action_that_there_is_not_gets_a_sentence(server, action):
    with server.operator() as client:
        response = client.post("/api/control", json={"action": action})
    assert response.status_code == 400
    assert "use pause, resume, stop." in response.json()["sentence"]
    with server.ws(token=OPERATOR) as ws:
        ws.send(pack("control", {"action": action}))
        assert "There is no action" in receive(ws, "error").header["sentence"]
    assert server.controls() == []


@pytest.mark.parametrize("path", ["/api/operator", "/api/control", "/api/recording"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_a_request_from_a_foreign_origin_is_refused_even_with_the_token(server, path, origin):
    headers = {"Cookie": f"{server.rights.cookie}={OPERATOR}"}
    headers |= {"origin": origin} if origin else {}
    with server.http(**headers) as client:
        response = client.post(path, json={"action": "pause", "token": OPERATOR})
    assert response.status_code == 403
    assert "not from this server's own" in response.json()["sentence"]
    assert "set-cookie" not in response.headers
    assert server.controls() == []


def test_a_websocket_from_a_foreign_origin_is_refused(server):
    with pytest.raises(InvalidStatus) as refused, server.ws(origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def test_a_program_without_an_origin_may_read_but_not_control(server):
    with server.ws(origin=None, token=OPERATOR) as ws:
        assert receive(ws, "state").header["is_operator"] is False
        ws.send(pack("control", {"action": "stop"}))
        assert receive(ws, "error").header["sentence"].startswith("Only the operator")
    assert server.controls() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1"])
def test_a_foreign_host_is_refused_everywhere(server, host):
    host = host.format(port=server.port)
    with server.http(host=host) as client:
        for path in ("/", "/healthz", "/metrics", "/main.js"):
            response = client.get(path)
            assert response.status_code == 403
            assert response.json()["sentence"].startswith("This server does not answer to the name")
    request = (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Origin: http://{host}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as raw:
        raw.sendall(request.encode())
        assert b" 403 " in raw.recv(4096).split(b"\r\n")[0]


def test_the_operators_cookie_is_out_of_reach_for_scripts_and_other_sites(server):
    with server.http(origin=server.origin) as client:
        response = client.post("/api/operator", json={"token": OPERATOR})
    assert response.json() == {"role": "operator"}
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie


@pytest.mark.parametrize("token", ["wrong", "", None, 5, VIEWER])
def test_a_wrong_token_gives_no_cookie(server, token):
    with server.http(origin=server.origin) as client:
        response = client.post("/api/operator", json={"token": token})
    assert response.status_code == 401
    assert response.json()["sentence"].startswith("This is not a token of the running session.")
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"[" * 3000, 400), (b" " * (MAX_BODY + 1), 413)],
)
def test_a_request_that_is_not_a_small_json_object_is_refused(server, content, status):
    with server.http(origin=server.origin) as client:
        response = client.post("/api/operator", content=content)
    assert response.status_code == status
    assert response.json()["sentence"].startswith("The request is")


def test_beyond_loopback_viewers_need_a_token(remote):
    with pytest.raises(InvalidStatus) as refused, remote.ws():
        pass
    assert refused.value.response.status_code == 401
    with remote.http(origin=remote.origin) as client:
        assert client.get("/metrics").status_code == 401
        health = client.get("/healthz").json()
        assert "children" not in health
        assert health["refusal"].startswith("Viewers need a token here.")
        # The page itself holds nothing; it must come to take the token.
        assert client.get("/").status_code == 200
        assert client.post("/api/viewer", json={"token": VIEWER}).json() == {"role": "viewer"}
        assert client.get("/metrics").status_code == 200
        assert "refusal" not in client.get("/healthz").json()
        assert client.post("/api/control", json={"action": "stop"}).status_code == 401


def test_beyond_loopback_only_the_operator_sees_eeg(remote):
    header = {
        "first_sample": 0, "n_channels": 1, "n_times": 1, "sfreq": 250.0, "honesty": "live",
        "t_last": 0.0, "is_ready": True,
    }  # fmt: skip
    with remote.ws(token=VIEWER) as viewer, remote.ws(token=OPERATOR) as operator:
        for ws in (viewer, operator):
            receive(ws, "state")
        remote.tell("traces", header, bytes(4))
        receive(operator, "traces")
        nothing_but_states(viewer, 0.3)


# Files, health and metrics


def test_the_page_and_its_modules_are_served_with_strict_headers(server):
    with server.http() as client:
        for path, kind in (("/", "text/html"), ("/main.js", "text/javascript")):
            response = client.get(path)
            assert response.status_code == 200
            assert response.headers["content-type"].startswith(kind)
            policy = response.headers["content-security-policy"]
            for part in (
                "default-src 'self'", "img-src 'self' blob: data:", "style-src 'self'",
                "frame-ancestors 'none'",
            ):  # fmt: skip
                assert part in policy
            assert "unsafe" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == "no-store"
            assert "server" not in response.headers


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/docs", "/openapi.json", "/nothing"]
)
def test_nothing_else_is_served(server, path):
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as raw:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
        )
        raw.sendall(request.encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert b"not for browsers" not in answer


def test_health_is_503_until_everyone_is_up(server):
    with server.http() as client:
        response = client.get("/healthz")
        assert response.status_code == 503
        assert response.json()["children"]["worker"]["state"] == "starting"
        server.tell("telemetry", acquisition())
        server.tell("telemetry", worker(state="loading", message="The bundle is being loaded."))
        assert client.get("/healthz").status_code == 503
        server.tell("telemetry", worker())
        response = client.get("/healthz")
        assert response.status_code == 200
        assert response.json() == {
            "status": "ok",
            "children": {
                "server": {"state": "running", "message": ""},
                "acquisition": {"state": "running", "message": ""},
                "worker": {"state": "ready", "message": ""},
            },
        }


@pytest.mark.parametrize("role", ["acquisition", "worker"])
@pytest.mark.parametrize("state", ["restarting", "failed"])
def test_health_is_503_while_a_child_is_down(server, role, state):
    server.tell("telemetry", acquisition())
    server.tell("telemetry", worker())
    children = {role: {"state": state, "restarts": 1, "message": "It fell."}}
    server.tell("telemetry", {"from": "supervisor", "t": 0.0, "children": children})
    with server.http() as client:
        response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["children"][role] == {"state": state, "message": "It fell."}


def test_health_is_503_when_a_child_falls_silent(server):
    server.tell("telemetry", acquisition())
    server.tell("telemetry", worker(t=time.monotonic() - 60))
    with server.http() as client:
        response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["children"]["worker"]["state"] == "silent"


def test_health_is_well_when_a_recording_has_ended(server):
    server.tell("telemetry", acquisition(t=time.monotonic() - 60))
    server.tell("telemetry", worker())
    children = {"acquisition": {"state": "finished", "restarts": 0, "message": ""}}
    server.tell("telemetry", {"from": "supervisor", "t": 0.0, "children": children})
    with server.http() as client:
        assert client.get("/healthz").status_code == 200


def test_metrics_are_prometheus_text(server):
    server.tell("telemetry", worker())
    with server.http() as client, server.ws() as ws:
        receive(ws, "state")
        server.until(lambda: "phosphene_viewers 1.0" in client.get("/metrics").text)
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "phosphene_frames_painted_total 8.0" in response.text
    # The server's own telemetry comes back over the bus: it must not count twice.
    counts = {"from": "server", "t": 0.0, "drawn_ms": [5.0], "viewers": 9}
    server.tell("telemetry", counts)
    with server.http() as client:
        assert "phosphene_drawn_seconds_count 0.0" in client.get("/metrics").text


# The address


def test_an_address_that_is_taken_gets_a_sentence():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressError, match=rf"127\.0\.0\.1:{port} is taken .* --port\."):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_gets_a_sentence():
    with pytest.raises(AddressError, match=r"cannot be listened on .* --host 127\.0\.0\.1\."):
        listen("192.0.2.7", 8765)


def test_an_address_is_free_again_after_its_server_was_killed(server):
    with server.ws() as ws:
        receive(ws, "state")
    # Connections that are being closed must not hold it.
    server.close()
    listen("127.0.0.1", server.port).close()


def test_a_certificate_that_cannot_be_read_gets_a_sentence(server, tmp_path):
    settings = Settings(tls_cert=str(tmp_path / "no.pem"), tls_key=str(tmp_path / "no.key"))
    with pytest.raises(AddressError, match=r"no\.pem .* cannot be used \(No such file"):
        uvicorn_config(create_app(server.relay), settings)
    (tmp_path / "no.pem").write_text("nonsense")
    (tmp_path / "no.key").write_text("nonsense")
    with pytest.raises(AddressError, match=r"cannot be used \("):
        uvicorn_config(create_app(server.relay), settings)


def test_the_final_telemetry_is_the_last_word(web):
    with running(web) as server:
        pass
    topic, header = server.published[-1]
    assert (topic, header["from"], header["viewers"]) == ("telemetry", "server", 0)
    json.dumps(header)


# Presentation


@pytest.fixture
def presenting(web, tmp_path):
    pictures = []
    for label, name in enumerate(("cat", "dog", "fish")):
        path = tmp_path / f"{name}.png"
        path.write_bytes(name.encode())
        pictures.append(StimulusPicture(f"{name} 1", name, label, path))
    (web / "calibrate.html").write_text("<!doctype html><title>Calibrate</title>")
    with running(web, pictures=tuple(pictures)) as server:
        yield server


def said(event, trial=1, **changes):
    now = time.monotonic()
    t = now + 1 if event == "planned" else now
    return pack("stimulus", {"event": event, "trial": trial, "t": t, "error_s": 0.01, **changes})


def test_a_presentation_is_the_operators(presenting):
    with presenting.http(origin=presenting.origin) as client:
        for answer in (
            client.post("/api/presentation", json={"minutes": 1}),
            client.get("/api/pictures/0"),
            client.get("/api/events"),
        ):
            assert answer.status_code == 401
            assert "Only the operator" in answer.json()["sentence"]
        # The page itself is no secret.
        assert client.get("/calibrate").text.endswith("<title>Calibrate</title>")
    with presenting.operator() as client:
        headers = {"origin": "http://elsewhere.example"}
        refused = client.post("/api/presentation", json={"minutes": 1}, headers=headers)
        assert refused.status_code == 403


def test_the_operator_gets_a_plan_and_its_pictures(presenting):
    with presenting.operator() as client:
        plan = client.post("/api/presentation", json={"minutes": 0.5, "seed": 3}).json()
        assert plan["seed"] == 3
        for trial in plan["trials"]:
            assert client.get("/" + trial["address"]).text == trial["class"]
        for address in ("/api/pictures/3", "/api/pictures/-1"):
            assert client.get(address).status_code == 404
        bad = client.post("/api/presentation", json={"minutes": "long"})
        assert (bad.status_code, "0.1 to 60" in bad.json()["sentence"]) == (400, True)


def test_a_server_without_pictures_says_what_to_do(server):
    with server.operator() as client:
        answer = client.post("/api/presentation", json={"minutes": 1})
    assert answer.status_code == 400
    assert "--pictures" in answer.json()["sentence"]


def stimuli(server):
    return [header for topic, header in server.published if topic == "stimulus"]


def test_what_the_operators_page_shows_goes_on_the_bus(presenting):
    with presenting.operator() as client:
        plan = client.post("/api/presentation", json={"minutes": 0.2}).json()
    first = plan["trials"][0]
    with presenting.ws(token=OPERATOR) as ws:
        for event in ("run", "planned", "shown", "response", "gone", "ended"):
            ws.send(said(event))
        found = presenting.until(lambda: stimuli(presenting)[5:] and stimuli(presenting))
    assert [header["event"] for header in found] == [
        "run", "planned", "shown", "response", "gone", "ended",
    ]  # fmt: skip
    names = ("trial", "run", "picture", "class", "label", "is_catch")
    for header in found:
        assert {name: header[name] for name in names} == {name: first[name] for name in names}
        assert header["error_s"] == 0.01


def test_a_malformed_stimulus_is_answered_and_the_page_stays(presenting):
    with presenting.operator() as client:
        client.post("/api/presentation", json={"minutes": 0.2})
    wrong = [
        said("seen"), said("shown", trial=99), said("shown", t="now"), said("planned", t=0),
        said("shown", error_s=None), pack("stimulus", {}),
    ]  # fmt: skip
    with presenting.ws(token=OPERATOR) as ws:
        for message in wrong:
            ws.send(message)
            assert receive(ws, "error").header["sentence"].endswith(".")
        assert stimuli(presenting) == []
        ws.send(said("shown"))
        presenting.until(lambda: len(stimuli(presenting)) == 1)


@pytest.mark.parametrize("options", [{}, {"token": OPERATOR, "origin": None}])
def test_only_the_operators_page_may_say_what_is_shown(presenting, options):
    with presenting.operator() as client:
        client.post("/api/presentation", json={"minutes": 0.2})
    with presenting.ws(**options) as ws:
        ws.send(said("shown"))
        assert "Only the operator" in receive(ws, "error").header["sentence"]
    assert stimuli(presenting) == []


def test_the_feed_tells_markers_and_stimuli_as_they_happen(presenting):
    with presenting.operator() as client:
        client.post("/api/presentation", json={"minutes": 0.2})
        with client.stream("GET", "/api/events") as answer:
            assert answer.headers["content-type"].startswith("application/x-ndjson")
            lines = answer.iter_lines()
            assert json.loads(next(lines)) == {"type": "begin"}
            marker = {"timestamp": 1.5, "label": "onset/cat", "details": {"trial": 1}}
            presenting.tell("marker", marker)
            assert json.loads(next(lines)) == {"type": "marker", **marker}
            with presenting.ws(token=OPERATOR) as ws:
                ws.send(said("shown"))
                found = json.loads(next(lines))
            assert (found["type"], found["event"], found["trial"]) == ("stimulus", "shown", 1)
            presenting.in_loop(presenting.relay.feed.end)
            assert list(lines) == []


def test_where_a_recording_lies_is_for_the_operator(server):
    header = {"from": "recorder", "t": 0.0, "file": "recordings/P01/a.xdf", "seconds": 2.0}
    server.tell("telemetry", {**header, "n_missed": 0})
    for token, expected in ((OPERATOR, "recordings/P01/a.xdf"), (None, None)):
        with server.ws(token=token) as ws:
            assert receive(ws, "state").header.get("recording_file") == expected


# Training


@pytest.fixture
def recorded(web, tmp_path):
    """Where P01 was recorded."""
    (tmp_path / "r" / "P01").mkdir(parents=True)
    (tmp_path / "r" / "P01" / "a.xdf").touch()
    settings = Settings(recordings=str(tmp_path / "r"), source="lsl:name=My cap")
    with running(web, settings=settings) as server:
        yield server


def told(server, state, asked, message=""):
    training = {"subject": "P01", "asked": asked, "state": state, "message": message}
    header = {"from": "supervisor", "t": 0.0, "children": {}, "training": training}
    server.tell("telemetry", header)


def test_training_and_its_report_are_the_operators(recorded, tmp_path):
    write_report(tmp_path / "r" / "P01")
    with recorded.http(origin=recorded.origin) as client:
        for answer in (
            client.post("/api/calibration", json={"subject": "P01"}),
            client.post("/api/calibration", json={"is_on": False}),
            client.get("/api/report?subject=P01"),
        ):
            assert answer.status_code == 401
            assert "Only the operator" in answer.json()["sentence"]
    with recorded.operator() as client:
        headers = {"origin": "http://elsewhere.example"}
        answer = client.post("/api/calibration", json={"subject": "P01"}, headers=headers)
        assert answer.status_code == 403
    assert recorded.controls() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "a pseudonym has"),
        ({"subject": 5}, "a pseudonym has"),
        ({"subject": "../P01"}, "a pseudonym has"),
        ({"subject": "P02"}, "Nothing was recorded of P02"),
    ],
)
def test_a_training_that_cannot_be_is_refused(recorded, body, said):
    with recorded.operator() as client:
        answer = client.post("/api/calibration", json=body)
    assert (answer.status_code, said in answer.json()["sentence"]) == (400, True)
    assert recorded.controls() == []


def test_a_personal_bundle_teaches_none(web, tmp_path):
    bundle = tmp_path / "bundle"
    write_report(bundle)
    settings = Settings(recordings=str(tmp_path), bundle=str(bundle))
    with running(web, settings=settings) as server, server.operator() as client:
        answer = client.post("/api/calibration", json={"subject": "P01"})
    assert (answer.status_code, "trained for one person" in answer.text) == (400, True)


def test_a_training_begins_goes_on_and_ends(recorded):
    with recorded.operator() as client, recorded.ws(token=OPERATOR) as ws:
        assert client.post("/api/calibration", json={"subject": "P01"}).json() == {"is_on": True}
        header = recorded.published[-1][1]
        assert header == {"action": "train", "subject": "P01", "asked": header["asked"]}
        asked = header["asked"]
        # What is still said of an older one changes nothing.
        told(recorded, "failed", asked - 9, "It fell.")
        again = client.post("/api/calibration", json={"subject": "P01"})
        assert (again.status_code, "goes on already" in again.text) == (409, True)
        told(recorded, "running", asked)
        for number, done in ((asked - 9, 0.9), (asked, 0.5)):
            progress = {"asked": number, "done": done, "what": "Testing.", "seconds": 4.0}
            recorded.tell("telemetry", {"from": "trainer", "t": 0.0, **progress})
            expected = 0.5 if number == asked else 0.0
            recorded.until(
                lambda expected=expected: (
                    (receive(ws, "state").header["training"] or {}).get("done") == expected
                )
            )
        assert client.post("/api/calibration", json={"is_on": False}).json() == {"is_on": False}
        assert recorded.published[-1][1] == {"action": "stop-training"}
        told(recorded, "failed", asked, "There was no room.")
        state = recorded.until(
            lambda: (
                (found := receive(ws, "state").header["training"])["state"] == "failed" and found
            )
        )
        assert state == {
            "subject": "P01", "state": "failed", "message": "There was no room.",
            "done": 0.5, "what": "Testing.", "seconds": 4.0,
        }  # fmt: skip
        assert client.post("/api/calibration", json={"subject": "P01"}).status_code == 200
    with recorded.ws() as viewer:
        assert "training" not in receive(viewer, "state").header


def test_nobody_is_trained_while_a_recording_goes_on(recorded):
    children = {"recorder": {"state": "running", "restarts": 0, "message": ""}}
    recorded.tell("telemetry", {"from": "supervisor", "t": 0.0, "children": children})
    with recorded.operator() as client:
        answer = client.post("/api/calibration", json={"subject": "P01"})
    assert (answer.status_code, "A recording goes on" in answer.text) == (409, True)
    assert recorded.controls() == []


def test_a_report_comes_with_the_command_to_watch(recorded, tmp_path):
    folder = tmp_path / "r" / "P01"
    with recorded.operator() as client:
        assert client.get("/api/report?subject=P01").status_code == 404
        assert client.get("/api/report?subject=../r").status_code == 400
        assert client.get("/api/report").status_code == 400
        report = write_report(folder)
        assert client.get("/api/report?subject=P01").json() == {
            "report": report,
            "command": f"phosphene serve --bundle {folder}/bundle --source 'lsl:name=My cap'",
        }
        write_report(folder, bundle="")
        assert client.get("/api/report?subject=P01").json()["command"] == ""
        (folder / "report.json").write_text("{}")
        answer = client.get("/api/report?subject=P01")
        assert (answer.status_code, "Train again" in answer.text) == (500, True)
