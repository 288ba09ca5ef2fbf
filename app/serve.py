"""What `serve`, `demo` and `replay` do before and around a session."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from acquisition.errors import SourceNotFoundError
from app.bundle import find_bundle, read_epoch_spec
from app.errors import AddressError, SettingsError
from app.guests import guests
from app.recorder import Request
from app.session import Addresses, Commands, Session, announce, child_commands
from app.settings import DEFAULTS, Settings
from app.subjects import warn
from app.summary import check_writable
from models.bundle_files import check_bundle

# Docker and Podman leave these in every container.
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))

XDF_SUFFIXES = (".xdf", ".xdfz", ".xdf.gz")


def recording_source(file: Path, speed: float = 1.0, loop: bool = False) -> str:
    """The source's name of a recording.

    >>> recording_source(Path("a.xdf"), 2.0)
    'xdf:a.xdf?speed=2'
    >>> recording_source(Path("b.edf"), loop=True)
    'file:b.edf?loop=true'
    """
    if not file.name.isprintable() or "?" in str(file):
        raise SourceNotFoundError(
            f"A source's file may have no question mark in its name; rename {str(file)!r}."
        )
    kind = "xdf" if file.name.lower().endswith(XDF_SUFFIXES) else "file"
    parameters = [f"speed={speed:g}"] * (speed != 1) + ["loop=true"] * loop
    return f"{kind}:{file}" + ("?" + "&".join(parameters) if parameters else "")


def listen_once(host: str, port: int) -> int:
    """Listen for a moment, and return the port: `port`, or a free one for 0.

    Raises
    ------
    AddressError
        The address is taken, is not this machine's, or needs other rights.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            if os.name == "posix":
                # As servers do: what the last run left in TIME_WAIT is not in the way.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
            return int(listener.getsockname()[1])
    except OSError as error:
        reason = "is taken by another program" if error.errno == errno.EADDRINUSE else (
            f"cannot be listened on ({error.strerror})"
        )  # fmt: skip
        raise AddressError(
            f"{host}:{port} {reason}. Choose another with --port (0 takes a free one) or --host."
        ) from error


def _free_port(settings: Settings, may_take_another_port: bool, say: Callable[[str], None]) -> int:
    try:
        return listen_once(settings.listen_host, settings.port)
    except AddressError:
        # Whoever names a port means it.
        if not may_take_another_port or settings.port != DEFAULTS["port"]:
            raise
    port = listen_once(settings.listen_host, 0)
    say(f"Port {settings.port} is taken; using {port}.")
    return port


def _free_ports(host: str, n: int) -> list[int]:
    """Different ones that are free, none of which was asked for."""
    ports: set[int] = set()
    while len(ports) < n:
        ports.add(listen_once(host, 0))
    return list(ports)


def recording_commands(folder: Path) -> Commands:
    """Of a session that only records."""
    every = child_commands(folder)
    return {role: every[role] for role in ("acquisition", "recorder")}


def record(
    settings: Settings,
    subject: str,
    keep_days: int,
    has_consent: bool,
    say: Callable[[str], None],
) -> None:
    """Record a source, without pictures and without a page.

    Parameters
    ----------
    subject, keep_days, has_consent : see `app.recorder.Request`.

    Raises
    ------
    BundleError, SummaryError, SettingsError, SourceError, ChildFailedError
        In one sentence each.
    """
    from acquisition.source import parse_source

    request = Request(subject, keep_days, has_consent)
    parse_source(settings.source)
    # Not for what is written: acquisition also cuts epochs, which here nobody takes.
    bundle = find_bundle(settings.bundle)
    read_epoch_spec(bundle)
    summary = Path(settings.summary).absolute() if settings.summary else None
    if summary:
        check_writable(summary)
    settings = settings.with_values(
        bundle=str(bundle),
        summary=str(summary or ""),
        recordings=str(Path(settings.recordings).absolute()),
    )

    warn(Path(settings.recordings), datetime.now(UTC).date(), say)
    session = Session(settings, say, lambda _: None, recording_commands, request)
    say(f"Recording {settings.source}. Ctrl-C ends it.")
    session.run()
    say(session.recorded)


def serve(
    settings: Settings, say: Callable[[str], None], may_take_another_port: bool = False
) -> None:
    """Run a session; what can be known to be wrong is said before any process starts.

    Raises
    ------
    BundleError, AddressError, SummaryError, SettingsError, SourceError, ChildFailedError
        In one sentence each.
    """
    from acquisition.source import parse_source

    if settings.in_container and not any(mark.exists() for mark in CONTAINER_MARKS):
        raise SettingsError(
            "--in-container is for a Docker or Podman container; this is none, and whoever is on "
            "the network could change the session. Leave it out, or see --allow-remote."
        )
    if settings.in_container and settings.also:
        raise SettingsError(
            "Of a container one port is published, and --also needs one for each further source. "
            "Run a container for each instead."
        )
    for source in (settings.source, *settings.also):
        parse_source(source)
    bundle = find_bundle(settings.bundle)
    check_bundle(bundle)
    read_epoch_spec(bundle)
    summary = Path(settings.summary).absolute() if settings.summary else None
    if summary:
        check_writable(summary)
    settings = settings.with_values(
        bundle=str(bundle),
        summary=str(summary or ""),
        recordings=str(Path(settings.recordings).absolute()),
        port=_free_port(settings, may_take_another_port, say),
    )

    warn(Path(settings.recordings), datetime.now(UTC).date(), say)
    # Summary and marker outlet are of the first.
    alike = settings.with_values(also=(), summary="", marker_outlet="")
    ports = _free_ports(settings.listen_host, len(settings.also))
    others = [
        alike.with_values(source=source, port=port)
        for source, port in zip(settings.also, ports, strict=True)
    ]

    def on_address(addresses: Addresses) -> None:
        announce(settings, addresses)
        say("Ctrl-C ends it.")

    with guests(others, say) as folders:
        Session(settings, say, on_address, guests=folders).run()
