"""The server process: the page, its WebSocket, health and metrics.

The event loop never waits for pictures: the hub has a thread of its own, and a second
one reads telemetry, markers and traces from the bus.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Any, get_args

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.bundle import find_bundle
from app.bus import Bus
from app.child import begin_child
from app.errors import SettingsError
from app.flash_guard import FlashGuard
from app.hub import Hub
from app.listener import listen, uvicorn_config
from app.messages import pack
from app.metrics import Metrics
from app.personal import bundle_says, find_sessions, read_report, serve_command
from app.picture_set import find_pictures
from app.presentation import Presentation
from app.recorder import Request as RecordingRequest
from app.recorder import is_pseudonym
from app.relay import Relay, Sent
from app.rights import (
    FOREIGN_HOST,
    FOREIGN_ORIGIN,
    NO_TOKEN,
    NO_VIEWER_TOKEN,
    WRONG_TOKEN,
    Rights,
    Role,
)
from app.session_state import SessionState, to_action
from app.settings import Settings
from app.thumbnails import read_thumbnails
from app.trainer import RECORDING_GOES_ON
from app.viewer import serve_viewer

WEB = Path(__file__).resolve().parent.parent / "web"

MAX_VIEWERS = 64
MAX_BODY = 4096

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A page of yesterday must not talk to a server of today.
    "Cache-Control": "no-store",
}


class _Refusal(Exception):  # noqa: N818 (an answer, not an error of ours)
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Gate:
    """Answers only to its own name, and says on every answer what a browser may do with it."""

    def __init__(self, app: ASGIApp, rights: Rights) -> None:
        self._app = app
        self._rights = rights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        host = Headers(scope=scope).get("host")
        if self._rights.knows_host(host):
            await self._app(scope, receive, send_with_headers)
            return
        sentence = FOREIGN_HOST.format(found=host, expected=self._rights.address)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(_sentence(403, sentence))
        else:
            await _sentence(403, sentence)(scope, receive, send_with_headers)


def _sentence(status: int, sentence: str) -> Response:
    return JSONResponse({"sentence": sentence}, status)


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise _Refusal(413, f"The request is longer than {MAX_BODY} bytes.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Refusal(400, "The request is not JSON.") from error
    if not isinstance(body, dict):
        raise _Refusal(400, "The request is not a JSON object.")
    return body


def create_app(relay: Relay, web_folder: Path = WEB, settings: Settings | None = None) -> FastAPI:
    """Put the web application together.

    Parameters
    ----------
    relay : of the session, with its state, hub, rights and metrics.
    web_folder : whose files are served.
    settings : of the session; by default those of one without settings.
    """
    rights = relay.rights
    session_settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        async with relay.running():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Gate, rights=rights)

    @app.exception_handler(_Refusal)
    async def refuse(request: Request, refusal: _Refusal) -> Response:  # noqa: ARG001
        return _sentence(refusal.status, str(refusal))

    def check_origin(origin: str | None, host: str | None) -> None:
        if not rights.knows_origin(origin, host):
            found = origin or "nowhere (there is no Origin)"
            raise _Refusal(403, FOREIGN_ORIGIN.format(found=found, expected=rights.address))

    def check_operator(request: Request) -> None:
        if rights.role(request.cookies) != "operator":
            raise _Refusal(401, NO_TOKEN)

    def admit(role: Role | None) -> Role:
        """Let someone watch, or refuse it."""
        if role is None:
            raise _Refusal(401, NO_VIEWER_TOKEN)
        if len(relay.hub.viewers) >= MAX_VIEWERS:
            raise _Refusal(503, f"There are {MAX_VIEWERS} viewers already; try again later.")
        return role

    @app.get("/healthz")
    async def healthz(request: Request) -> Response:
        is_well, children = relay.state.health(relay.clock())
        report: dict[str, Any] = {"status": "ok" if is_well else "unavailable"}
        role = rights.role(request.cookies)
        if role:
            report["children"] = children
        try:
            admit(role)
        except _Refusal as refusal:
            # A browser does not tell a page why its WebSocket was refused.
            report["refusal"] = str(refusal)
        return JSONResponse(report, 200 if is_well else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        if rights.role(request.cookies) is None:
            raise _Refusal(401, NO_VIEWER_TOKEN)
        return PlainTextResponse(relay.metrics.text(), media_type=Metrics.MEDIA_TYPE)

    @app.post("/api/operator")
    @app.post("/api/viewer")
    async def enter(request: Request) -> Response:
        check_origin(request.headers.get("origin"), request.headers.get("host"))
        token = (await _body(request)).get("token")
        role = rights.role_of_token(token)
        if role is None:
            raise _Refusal(401, WRONG_TOKEN)
        response = JSONResponse({"role": role})
        response.set_cookie(
            rights.cookie, str(token), httponly=True, samesite="strict", secure=rights.is_tls
        )
        return response

    @app.post("/api/control")
    async def control(request: Request) -> Response:
        check_origin(request.headers.get("origin"), request.headers.get("host"))
        check_operator(request)
        try:
            action = to_action((await _body(request)).get("action"))
        except ValueError as error:
            raise _Refusal(400, str(error)) from error
        relay.act(action)
        return JSONResponse({"action": action})

    @app.post("/api/recording")
    async def recording(request: Request) -> Response:
        check_origin(request.headers.get("origin"), request.headers.get("host"))
        check_operator(request)
        body = await _body(request)
        try:
            wanted = RecordingRequest.from_dict(body) if body.get("is_on") is True else None
        except SettingsError as error:
            raise _Refusal(400, str(error)) from error
        relay.record(wanted)
        return JSONResponse({"is_on": wanted is not None})

    @app.post("/api/calibration")
    async def calibration(request: Request) -> Response:
        check_origin(request.headers.get("origin"), request.headers.get("host"))
        check_operator(request)
        body = await _body(request)
        if body.get("is_on") is False:
            relay.train(None)
            return JSONResponse({"is_on": False})
        try:
            find_sessions(session_settings, body.get("subject"))
        except SettingsError as error:
            raise _Refusal(400, str(error)) from error
        if relay.state.recording is not None:
            raise _Refusal(409, RECORDING_GOES_ON)
        if relay.state.is_training:
            raise _Refusal(409, "A training goes on already. Wait for it, or stop it.")
        relay.train(body["subject"])
        return JSONResponse({"is_on": True})

    @app.get("/api/report")
    async def report(request: Request, subject: str = "") -> Response:
        check_operator(request)
        if not is_pseudonym(subject):
            raise _Refusal(400, f"Name a pseudonym, as ?subject=P01; found {subject!r}.")
        try:
            found = read_report(Path(session_settings.recordings) / subject)
        except SettingsError as error:
            raise _Refusal(500, str(error)) from error
        if found is None:
            raise _Refusal(404, f"There is no report for {subject}. Train, and there will be.")
        command = serve_command(session_settings, subject) if found["bundle"] else ""
        return JSONResponse({"report": found, "command": command})

    @app.post("/api/presentation")
    async def presentation(request: Request) -> Response:
        check_origin(request.headers.get("origin"), request.headers.get("host"))
        check_operator(request)
        try:
            return JSONResponse(relay.presentation.begin(await _body(request)))
        except ValueError as error:
            raise _Refusal(400, str(error)) from error

    @app.get("/api/pictures/{number}")
    async def picture(request: Request, number: int) -> Response:
        check_operator(request)
        pictures = relay.presentation.pictures
        if not 0 <= number < len(pictures):
            raise _Refusal(404, f"There is no picture {number}; there are {len(pictures)}.")
        return FileResponse(pictures[number].path)

    @app.get("/api/events")
    async def events(request: Request) -> Response:
        check_operator(request)
        return StreamingResponse(relay.feed.lines(), media_type="application/x-ndjson")

    @app.get("/calibrate")
    async def calibrate() -> Response:
        return FileResponse(web_folder / "calibrate.html")

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        origin, host = websocket.headers.get("origin"), websocket.headers.get("host")
        role = rights.role(websocket.cookies)
        try:
            # Programs send no Origin: they may read as any viewer, never change anything.
            if origin is not None:
                check_origin(origin, host)
            elif role == "operator":
                role = "viewer"
            role = admit(role)
        except _Refusal as refusal:
            await websocket.send_denial_response(_sentence(refusal.status, str(refusal)))
            return
        assert role is not None  # whoever has none was refused
        await websocket.accept()
        await serve_viewer(websocket, relay, role)

    app.mount("/", StaticFiles(directory=web_folder, html=True))
    return app


class _Server(uvicorn.Server):
    """Ends the feeds before it ends, as it would wait for their readers."""

    def __init__(self, config: uvicorn.Config, relay: Relay) -> None:
        super().__init__(config)
        self._relay = relay

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._relay.feed.end()
        await super().shutdown(sockets)


class _Threads:
    """Threads without which the server is of no use: when one fails, the server ends."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.error: Exception | None = None

    def start(self, name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            try:
                target()
            except Exception as error:
                self.error = error
                self._server.should_exit = True

        self._threads.append(threading.Thread(target=run, name=name))
        self._threads[-1].start()

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()


def main() -> None:
    """Run as the child process `server`."""
    with begin_child("server") as child:
        settings = child.settings
        rights = Rights(
            port=settings.port,
            operator_token=child.operator_token,
            viewer_token=child.viewer_token,
            host=settings.host,
            is_tls=bool(settings.tls_cert),
        )
        with (
            listen(settings.listen_host, settings.port) as listener,
            Bus(child.folder, "server") as bus,
        ):
            publishers = {topic: bus.publisher(topic, depth=256) for topic in get_args(Sent)}

            def send(topic: Sent, header: dict[str, Any]) -> None:
                publishers[topic].send(pack(topic, header))

            hub = Hub(FlashGuard())
            bundle = find_bundle(settings.bundle)
            thumbnails = read_thumbnails(bundle / "stimuli")
            presentation = Presentation(find_pictures(settings.pictures, bundle), time.monotonic)
            name, says = Path(settings.bundle).name, bundle_says(bundle)
            state = SessionState(settings.source, name, thumbnails, says)
            relay = Relay(state, hub, rights, Metrics(), send, presentation=presentation)
            server = _Server(uvicorn_config(create_app(relay, settings=settings), settings), relay)
            frames = bus.subscriber("frame")
            news = bus.subscriber("telemetry", "marker", "traces", depth=256)
            threads = _Threads(server)
            threads.start("hub", lambda: hub.run(frames, threads.stop))
            threads.start("news", lambda: relay.run(news, threads.stop))
            try:
                server.run(sockets=[listener])
            finally:
                # Before the bus closes under them.
                threads.join()
            if threads.error:
                raise threads.error


if __name__ == "__main__":
    main()
