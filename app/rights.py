"""Who may read and who may change the session's state.

On loopback reading is open; whatever changes state needs the operator's token and a
known Origin. Beyond loopback (which settings allow over TLS only) viewers need a token
too, and only the operator sees EEG. Every request, also a WebSocket's handshake, names
a known Host, else another site's name that was pointed at this machine (DNS rebinding)
would make its pages ours.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["operator", "viewer"]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

# 22 characters of base64 are 132 bits.
MIN_TOKEN_CHARACTERS = 22

FOREIGN_HOST = "This server does not answer to the name {found}. Open {expected}."
FOREIGN_ORIGIN = (
    "The request came from a page of {found}, not from this server's own. Open {expected}."
)
NO_TOKEN = (
    "Only the operator may do this. Open the address with #operator=... that the terminal shows."
)
WRONG_TOKEN = "This is not a token of the running session. Copy the address from the terminal."
NO_VIEWER_TOKEN = (
    "Viewers need a token here. Ask the operator for the address with #viewer=... in it."
)


def page_address(scheme: str, host: str, port: int) -> str:
    """Where the page of a server is that listens on `host`.

    >>> page_address("https", "::1", 8765)
    'https://[::1]:8765/'
    """
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}/"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Rights:
    """What the server checks requests against.

    Attributes
    ----------
    port : that the server listens on.
    operator_token : of the session, at least 128 bits.
    viewer_token : of the session; "" where reading is open.
    host : that the server listens on.
    is_tls : whether it speaks TLS.
    """

    port: int
    operator_token: str = field(repr=False)
    viewer_token: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    is_tls: bool = False

    def __post_init__(self) -> None:
        tokens = [self.operator_token, *([self.viewer_token] if self.viewer_token else [])]
        if any(len(token) < MIN_TOKEN_CHARACTERS for token in tokens):
            raise ValueError(f"A token has at least {MIN_TOKEN_CHARACTERS} characters (128 bits).")

    @property
    def scheme(self) -> str:
        return "https" if self.is_tls else "http"

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header that are known, in lower case."""
        names = {*LOOPBACK_NAMES, f"[{self.host}]" if ":" in self.host else self.host}
        if self.viewer_token:
            names.add(socket.gethostname())
        is_default = self.port == {"http": 80, "https": 443}[self.scheme]
        bare = names if is_default else set()
        return frozenset(n.lower() for n in {f"{name}:{self.port}" for name in names} | bare)

    @property
    def address(self) -> str:
        """Of the page, for sentences."""
        return page_address(self.scheme, self.host, self.port)

    def knows_host(self, host: str | None) -> bool:
        """Whether a Host header names this server."""
        if host is None:
            return False
        if host.lower() in self.hosts:
            return True
        # Beyond loopback a machine has addresses that it does not know of. A number is
        # no name that someone could have pointed here.
        name, _, port = host.rpartition(":")
        return bool(self.viewer_token) and port == str(self.port) and _is_address(name)

    def knows_origin(self, origin: str | None, host: str | None) -> bool:
        """Whether an Origin header names a page of this server, under the name it was asked by."""
        return (
            origin is not None
            and host is not None
            and self.knows_host(host)
            and origin.lower() == f"{self.scheme}://{host.lower()}"
        )

    def role_of_token(self, token: object) -> Role | None:
        """Who holds this token; takes equally long for every wrong one."""
        if not isinstance(token, str):
            return None
        given = token.encode(errors="replace")
        if hmac.compare_digest(given, self.operator_token.encode()):
            return "operator"
        if self.viewer_token and hmac.compare_digest(given, self.viewer_token.encode()):
            return "viewer"
        return None

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers share cookies between the ports of a host."""
        return f"phosphene_{self.port}"

    def role(self, cookies: Mapping[str, str]) -> Role | None:
        """Who sent a request; None may do nothing (on loopback everyone may read)."""
        role = self.role_of_token(cookies.get(self.cookie))
        return role or (None if self.viewer_token else "viewer")

    def sees_eeg(self, role: Role) -> bool:
        """Whether raw traces go to this role: beyond loopback they are the operator's."""
        return role == "operator" or not self.viewer_token


class RateLimit:
    """A bucket of `burst` messages that fills at `rate` per second.

    Parameters
    ----------
    rate : messages per second in the long run.
    burst : messages at once.
    clock : seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._level = burst
        self._t = clock()

    def allows(self) -> bool:
        """Whether one more message is within the limit; counts it if so."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._t) * self._rate)
        self._t = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
