"""The address that the server listens on, and how uvicorn serves there."""

from __future__ import annotations

import errno
import socket
import ssl
import sys

import uvicorn
from fastapi import FastAPI

from app.errors import AddressError
from app.settings import Settings

MAX_MESSAGE = 64 * 1024

# What waits in the system for a slow viewer is out of our hands: 64 KiB, not megabytes.
SEND_BUFFER = 64 * 1024

BACKLOG = 64
MAX_CONNECTIONS = 256


def listen(host: str, port: int) -> socket.socket:
    """Take an address.

    Raises
    ------
    AddressError
        It is taken, or this machine may not listen on it.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if sys.platform == "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # A server that was killed leaves connections behind that would hold the address.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            why = "is taken by another program. Stop that one, or choose another with --port"
        elif error.errno in (errno.EACCES, errno.EPERM):
            why = "is not for ordinary users. Choose one above 1023 with --port"
        else:
            why = f"cannot be listened on ({error.strerror}). Use --host 127.0.0.1"
        raise AddressError(f"The address {host}:{port} {why}.") from error
    return listener


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves: one worker, no compression, bounded messages, no access log."""
    if settings.tls_cert:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except OSError as error:
            raise AddressError(
                f"The TLS certificate {settings.tls_cert} with the key {settings.tls_key} cannot "
                f"be used ({error.strerror or error}). Check --tls-cert and --tls-key."
            ) from error
    return uvicorn.Config(
        app,
        loop="asyncio",
        ws="websockets-sansio",
        # JPEG does not shrink: 8 % less for 0.35 ms per frame and viewer.
        ws_per_message_deflate=False,
        ws_ping_interval=20,
        ws_max_size=MAX_MESSAGE,
        limit_concurrency=MAX_CONNECTIONS,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )
