"""The one settings tree: defaults < TOML file < environment < flags.

Each field's text is its `--help` and its row in `docs/settings.md`
(`python -m app.settings` prints that page). Nothing else reads the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from app.errors import EXIT_CODE_TEXTS, SettingsError

ROOT = Path(__file__).resolve().parent.parent
"""Where the program lies."""

PREFIX = "PHOSPHENE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
# Known in the environment alone; `acquisition.lsl_network` reads the second one itself.
VARIABLES = {
    CONFIG_VARIABLE: "Settings file (TOML), as `--config`.",
    f"{PREFIX}LSL_SESSION": "Keeps LSL on this machine, in a session of this name (for tests).",
}

Epochs = Literal["auto", "sliding", "marker-locked"]
Unit = Literal["", "uV", "mV", "V", "nV"]
Device = Literal["auto", "cpu", "cuda"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a session runs; every field is a flag, a variable and a TOML key.

    Raises
    ------
    SettingsError
        A value is out of its range, or values contradict each other.
    """

    source: Annotated[
        str,
        "Where EEG comes from: simulated:, lsl:name=..., brainflow:BOARD?serial_port=..., "
        "xdf:FILE?speed=2&loop=true, or file:FILE for other recordings.",
    ] = "simulated:"
    also: Annotated[
        tuple[str, ...],
        "Further sources, each with a page of its own, that are painted by the same worker.",
    ] = ()
    bundle: Annotated[
        str,
        "Folder of the model that paints; a relative path is looked for here, then beside "
        "the program.",
    ] = "weights/scale-model"
    host: Annotated[str, "Address that the server listens on."] = "127.0.0.1"
    port: Annotated[int, "Port that the server listens on; 0 takes a free one."] = 8765
    ch_names: Annotated[
        tuple[str, ...],
        "Names of the EEG channels in order, as Fp1,Fp2,...; overrides what the source says.",
    ] = ()
    unit: Annotated[Unit, "Unit of the source's samples; overrides what the source says."] = ""
    known_peers: Annotated[
        tuple[str, ...],
        "Hosts that are asked for LSL streams besides multicast, as 10.0.0.2,lab-pc.",
    ] = ()
    epochs: Annotated[
        Epochs,
        "What is painted: epochs locked to the onset markers, sliding windows, or, as auto, those "
        "while pictures are presented and these while none are.",
    ] = "auto"
    seed: Annotated[int, "Seed of the painter; the same seed and EEG give the same picture."] = 0
    threads: Annotated[int, "CPU threads of the worker; 0 leaves one core to the others."] = 0
    device: Annotated[Device, "Where the worker computes."] = "auto"
    open_browser: Annotated[bool, "Open the page in a browser where there is a display."] = True
    duration: Annotated[
        float,
        "Seconds after which the session ends, counted from its start; 0 runs until stopped.",
    ] = 0.0
    summary: Annotated[str, "File for a summary of the session as JSON, written at its end."] = ""
    recordings: Annotated[str, "Folder of recordings, with a folder in it for each pseudonym."] = (
        "recordings"
    )
    pictures: Annotated[
        str,
        "Folder of the images that /calibrate presents, with one folder in it for each class; "
        "by default the bundle's stimuli.",
    ] = ""
    marker_outlet: Annotated[
        str, "Name of an LSL stream for the markers of what is presented; none by default."
    ] = ""
    tls_cert: Annotated[str, "TLS certificate (PEM); needed beyond this machine."] = ""
    tls_key: Annotated[str, "Private key of the TLS certificate (PEM)."] = ""
    allow_remote: Annotated[
        bool,
        "Let other machines reach the page, over TLS and with tokens for viewers too.",
    ] = False
    in_container: Annotated[
        bool,
        "Listen on all addresses of a container whose port is published on 127.0.0.1 alone; "
        "rights stay those of this machine.",
    ] = False
    log_level: Annotated[LogLevel, "How much is logged to the terminal."] = "warning"
    debug: Annotated[bool, "Show tracebacks."] = False

    def __post_init__(self) -> None:
        self._check("port", 0 <= self.port <= 65535, "0 to 65535")
        self._check("threads", 0 <= self.threads <= 256, "0 to 256")
        self._check("seed", 0 <= self.seed < 2**63, "0 or more")
        self._check("duration", 0 <= self.duration < float("inf"), "0 or more seconds")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise SettingsError(
                "TLS needs both halves: give --tls-cert and --tls-key together, or neither."
            )
        if self.in_container and not self.is_loopback:
            raise SettingsError(
                f"--in-container expects the name that this machine calls the page by, 127.0.0.1, "
                f"not --host {self.host}. Leave --host out."
            )
        if not self.is_loopback and not (self.allow_remote and self.tls_cert):
            raise SettingsError(
                f"--host {self.host} can be reached from other machines, which needs "
                "--allow-remote, --tls-cert and --tls-key. Use --host 127.0.0.1 for this "
                "machine alone."
            )

    def _check(self, name: str, is_good: bool, expected: str) -> None:
        if not is_good:
            found = getattr(self, name)
            raise SettingsError(f"{flag_name(name)} expects {expected}, not {found}.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def listen_host(self) -> str:
        """What the server listens on; `host` is what the page is called by."""
        return "0.0.0.0" if self.in_container else self.host

    def with_values(self, **values: Any) -> Self:
        """The same settings but for `values`."""
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, or a TOML table."""
        return cls(**{name: _checked(name, value) for name, value in values.items()})


_TYPES = get_type_hints(Settings)
TEXTS: dict[str, str] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Settings, include_extras=True).items()
}
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Settings)}


def flag_name(name: str) -> str:
    """The flag of a field.

    >>> flag_name("ch_names")
    '--ch-names'
    """
    return "--" + name.replace("_", "-")


def variable_name(name: str) -> str:
    """The environment variable of a field.

    >>> variable_name("ch_names")
    'PHOSPHENE_CH_NAMES'
    """
    return PREFIX + name.upper()


def choices(name: str) -> tuple[str, ...]:
    """The values that a field may have, where they are few."""
    kind = _TYPES[name]
    return get_args(kind) if get_origin(kind) is Literal else ()


def _unknown(what: str, found: str, known: list[str]) -> SettingsError:
    near = difflib.get_close_matches(found, known, n=3, cutoff=0.6)
    remedy = f"Did you mean {' or '.join(near)}?" if near else "docs/settings.md lists them all."
    return SettingsError(f"There is no {what} called {found}. {remedy}")


def _checked(name: str, value: Any) -> Any:
    """A value from JSON or TOML, of the field's type."""
    if name not in _TYPES:
        raise _unknown("setting", name, list(_TYPES))
    kind = _TYPES[name]
    if allowed := choices(name):
        if value not in allowed:
            expected = ", ".join(c for c in allowed if c)
            raise SettingsError(f"{flag_name(name)} expects one of {expected}, not '{value}'.")
        return value
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        expected = "a list of names"
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    else:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
            kind, "text"
        )
    raise SettingsError(f"The setting {name} expects {expected}, not {value!r}.")


_WORDS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip


def parse(name: str, text: str) -> Any:
    """A field's value from text, as a variable or a flag gives it.

    >>> parse("ch_names", "Fp1, Fp2")
    ('Fp1', 'Fp2')
    """
    kind = _TYPES[name]
    if get_origin(kind) is tuple:
        return tuple(item.strip() for item in text.split(",") if item.strip())
    try:
        value = _WORDS[text.strip().lower()] if kind is bool else (
            kind(text) if kind in (int, float) else text
        )  # fmt: skip
    except (KeyError, ValueError):
        value = text
    return _checked(name, value)


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read ({error.strerror}). "
            "Check --config and its permissions."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} is not TOML: {error}.") from error
    return {name: _checked(name, value) for name, value in table.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = {variable_name(name): name for name in _TYPES}
    values = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in VARIABLES:
            continue
        if variable not in names:
            raise _unknown("setting in the environment", variable, [*names, *VARIABLES])
        values[names[variable]] = parse(names[variable], text)
    return values


def load_settings(
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Put the settings together.

    Parameters
    ----------
    flags : values given on the command line, by field.
    config : TOML file; by default the one that PHOSPHENE_CONFIG names, if any. None is
        looked for elsewhere: a file planted in a working directory must change nothing.
    environ : by default the process's environment.
    defaults : a command's own, in place of the fields'.

    Raises
    ------
    SettingsError
        An unknown name, a value of the wrong type, or values that contradict each other.
    """
    environ = os.environ if environ is None else environ
    if config is None and environ.get(CONFIG_VARIABLE):
        config = Path(environ[CONFIG_VARIABLE])
    values = dict(defaults or {})
    values |= _from_toml(config) if config else {}
    values |= _from_environment(environ)
    values |= flags or {}
    return Settings(**values)


def has_display() -> bool:
    """Whether a browser could show a page here."""
    if os.name == "nt" or os.uname().sysname == "Darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a child process that may use `threads` threads.

    The child imports from where this program lies. Its settings come from the session,
    not from variables. Idle OpenMP threads sleep instead of spinning: on two cores a
    spinning pool takes the core that acquisition needs.
    """
    counts = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX) or k in VARIABLES}
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    # Progress bars and advice to programmers are not for the operator's terminal.
    quiet = {"TQDM_DISABLE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
    return {**quiet, **kept, **counts, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value}`" if value not in ("", ()) else "none"


def markdown() -> str:
    """The page `docs/settings.md`."""
    rows = []
    for name, text in TEXTS.items():
        if allowed := [c for c in choices(name) if c]:
            text += f" One of {', '.join(f'`{c}`' for c in allowed)}."
        rows.append(
            f"| `{name}` | `{flag_name(name)}` | `{variable_name(name)}` "
            f"| {_shown(DEFAULTS[name])} | {text} |"
        )
    codes = [f"| {code.value} | {text} |" for code, text in EXIT_CODE_TEXTS.items()]
    return "\n".join(
        [
            "# Settings",
            "",
            "Written by `python -m app.settings`; a test holds it equal to the code.",
            "",
            "A setting comes from its default, a TOML file (`--config FILE` or "
            f"`{CONFIG_VARIABLE}`), the environment, or a flag; the later one counts. Lists are "
            "written with commas in the environment and in flags, as `[...]` in TOML. A flag "
            "that is true or false has an opposite, as in `--no-open-browser`.",
            "",
            "| TOML key | flag | variable | default | what it does |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Known in the environment alone:",
            "",
            "| variable | what it does |",
            "| --- | --- |",
            *(f"| `{variable}` | {text} |" for variable, text in VARIABLES.items()),
            "",
            "## Exit codes",
            "",
            "| code | what happened |",
            "| --- | --- |",
            *codes,
            "",
        ]
    )


if __name__ == "__main__":
    print(markdown(), end="")
