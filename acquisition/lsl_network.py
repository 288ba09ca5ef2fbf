"""LSL's library and network: loaded once, set up before its first use, searched."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acquisition.channels import Channel
from acquisition.errors import SourceError

# A session of this machine alone (tests, several replays); it is isolation, not security.
SESSION_VARIABLE = "PHOSPHENE_LSL_SESSION"

# liblsl reads its settings once, at its first call.
_settings: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class LSLStream:
    """A stream that is announced on the network.

    Attributes
    ----------
    uid : differs for each outlet, even of the same name.
    handle : liblsl's own description, from which an inlet is made.
    """

    name: str
    type: str
    source_id: str
    hostname: str
    uid: str
    n_channels: int
    sfreq: float
    handle: Any

    def describe(self) -> str:
        """For people: 'UN-2023' (EEG, 8 channels, 250 Hz)."""
        rate = f"{self.sfreq:g} Hz" if self.sfreq else "irregular"
        plural = "s" if self.n_channels != 1 else ""
        return (
            f"'{self.name}' ({self.type or 'no type'}, {self.n_channels} channel{plural}, {rate})"
        )


def load_pylsl(known_peers: tuple[str, ...] = (), session: str = "") -> Any:
    """Import pylsl and set liblsl up; later calls give the module and change nothing.

    Parameters
    ----------
    known_peers : hosts to ask besides multicast; this one is always asked.
    session : LSL's SessionID; streams of another session are not seen.

    Raises
    ------
    SourceError
        There is no liblsl, or it was set up otherwise before.
    """
    local = os.environ.get(SESSION_VARIABLE, "")
    settings = configuration(known_peers, session or local, is_local=bool(local))
    pylsl = _import_pylsl()
    if not _settings:
        pylsl.set_config_content(settings)
        _settings["content"] = settings
    elif settings != _settings["content"]:
        raise SourceError(
            "LSL is already in use with other known peers or another session. "
            "It takes these settings once: start the program anew to change them."
        )
    return pylsl


def configuration(known_peers: tuple[str, ...], session: str, is_local: bool = False) -> str:
    """Settings for liblsl, which also keep it from reading an lsl_api.cfg that lies about.

    KnownPeers always names this machine: without it liblsl 1.17 sees one of several local
    streams.
    """
    peers = ", ".join(dict.fromkeys(("127.0.0.1", *known_peers)))
    lines = ["[lab]", f"KnownPeers = {{{peers}}}"]
    if session:
        lines += [f"SessionID = {session}"]
    if is_local:
        lines += ["[ports]", "IPv6 = disable", "[multicast]", "ResolveScope = machine"]
        lines += ["ListenAddress = 127.0.0.1", "Interfaces = {127.0.0.1}"]
    lines += ["[tuning]", "WatchdogCheckInterval = 1", "WatchdogTimeThreshold = 2"]
    return "\n".join([*lines, "[log]", "level = -3", ""])


def _import_pylsl() -> Any:
    try:
        return importlib.import_module("pylsl")
    except RuntimeError:  # pylsl's wheel for this system holds no liblsl
        for name in [n for n in sys.modules if n.split(".")[0] == "pylsl"]:
            del sys.modules[name]
        library = bundled_library()
        if library is None:
            raise SourceError(
                "LSL needs the library liblsl, which pylsl does not bring for this system. "
                "Run `pip install mne-lsl`, which brings one."
            ) from None
        os.environ["PYLSL_LIB"] = str(library)
        return importlib.import_module("pylsl")


def bundled_library() -> Path | None:
    """The liblsl inside mne-lsl, found without importing that."""
    spec = importlib.util.find_spec("mne_lsl")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted((Path(folder) / "lsl" / "lib").glob("*lsl*")):
            if file.suffix in (".dll", ".dylib") or ".so" in file.suffixes:
                return file
    return None


class StreamFinder:
    """Watches the network for streams in the background; asking it never blocks."""

    def __init__(self, pylsl: Any) -> None:
        self._resolver = pylsl.ContinuousResolver(forget_after=5.0)

    def streams(self) -> list[LSLStream]:
        """The streams that are there now, in order of name and type."""
        found = [
            LSLStream(
                s.name(), s.type(), s.source_id(), s.hostname(), s.uid(),
                s.channel_count(), s.nominal_srate(), s,
            )
            for s in self._resolver.results()
        ]  # fmt: skip
        return sorted(found, key=lambda s: (s.name, s.type, s.source_id, s.uid))


def list_streams(
    timeout: float = 2.0, known_peers: tuple[str, ...] = (), session: str = ""
) -> list[LSLStream]:
    """The LSL streams on the network, after looking for `timeout` seconds.

    Raises
    ------
    SourceError
        There is no liblsl.
    """
    finder = StreamFinder(load_pylsl(known_peers, session))
    time.sleep(timeout)
    return finder.streams()


def read_channels(info: Any) -> tuple[Channel, ...]:
    """Labels, types and units of a stream's full description."""
    channels: list[Channel] = []
    node = info.desc().child("channels").child("channel")
    while not node.empty() and len(channels) < info.channel_count():
        label = node.child_value("label") or node.child_value("name")
        channels.append(Channel(label, node.child_value("type"), node.child_value("unit")))
        node = node.next_sibling("channel")
    n_silent = info.channel_count() - len(channels)
    return (*channels, *[Channel()] * n_silent)
