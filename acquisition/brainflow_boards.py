"""BrainFlow's boards by name, their rows, and what its errors mean."""

from __future__ import annotations

import difflib
import importlib.resources
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from acquisition.errors import SourceBusyError, SourceError, SourceNotFoundError
from acquisition.stream_info import Honesty

# These replay what was recorded elsewhere; BrainFlow erases the markers on the way.
_NO_DEVICE = ("PLAYBACK_FILE_BOARD", "NO_BOARD")


@dataclass(frozen=True, slots=True)
class BoardLayout:
    """Which row of a board's data is what.

    Attributes
    ----------
    key : the board's name in a source, such as "cyton_daisy"; `name` is for people.
    labels : of the EEG rows; empty strings where the board names no electrodes.
    package_stride : by how much the package number grows from package to package.
    """

    id: int
    key: str
    name: str
    sfreq: float
    n_rows: int
    eeg_rows: tuple[int, ...]
    labels: tuple[str, ...]
    timestamp_row: int
    marker_row: int
    package_row: int
    package_stride: int
    honesty: Honesty


@cache
def load_brainflow() -> Any:
    """Import BrainFlow and silence its log, which otherwise goes to stderr.

    Raises
    ------
    SourceError
        Its library does not load here.
    """
    import brainflow
    from brainflow import board_shim

    # BrainFlow 5.23 asks for the files of a module that is no package; Python 3.11 refuses
    # that, and its way out needs pkg_resources, which setuptools 82 no longer has.
    board_shim.files = lambda _module: importlib.resources.files("brainflow")
    try:
        brainflow.BoardShim.disable_board_logger()
    except OSError as error:
        raise SourceError(
            f"BrainFlow's library does not load on this machine ({error}). Its Linux libraries "
            "are for x86-64 only; use an LSL stream instead."
        ) from error
    return brainflow


def board_names() -> dict[str, int]:
    """Names of all boards as `brainflow:` takes them, and their ids."""
    ids = load_brainflow().BoardIds
    return {short_name(b.name): int(b.value) for b in ids if b.name not in _NO_DEVICE}


def short_name(name: str) -> str:
    """A board's name without what every board's name ends in.

    >>> short_name("CYTON_DAISY_BOARD")
    'cyton_daisy'
    """
    return name.lower().removesuffix("_board").replace("-", "_").replace(" ", "_")


def board_layout(name: str) -> BoardLayout:
    """The rows of the board called `name`, in any case, with or without _BOARD.

    Raises
    ------
    SourceNotFoundError
        There is no such board; names like it are listed.
    SourceError
        It has no EEG.
    """
    names = board_names()
    key = short_name(name)
    if key == "playback_file":
        raise SourceError(
            "BrainFlow's playback erases markers. Use file:RECORDING.csv?board=NAME instead."
        )
    if key == "streaming":
        raise SourceError(
            "brainflow:streaming needs the board that is streamed: master_board=0 for a Cyton, "
            "and ip_address=... and ip_port=... of the stream."
        )
    if key not in names:
        close = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
        close += [n for n in names if key and key in n and n not in close]
        hint = f"Did you mean {' or '.join(close[:4])}? " if close else ""
        raise SourceNotFoundError(
            f"BrainFlow knows no board '{name}'. {hint}`phosphene sources` lists all {len(names)}."
        )
    brainflow = load_brainflow()
    rows: dict[str, Any] = brainflow.BoardShim.get_board_descr(names[key])
    if "eeg_channels" not in rows:
        raise SourceError(f"The board {key} has no EEG channel. Use another board.")
    eeg_rows = tuple(int(r) for r in rows["eeg_channels"])
    labels = tuple(str(rows.get("eeg_names", "")).split(","))
    return BoardLayout(
        id=names[key],
        key=key,
        name=str(rows["name"]),
        sfreq=float(rows["sampling_rate"]),
        n_rows=int(rows["num_rows"]),
        eeg_rows=eeg_rows,
        labels=labels if len(labels) == len(eeg_rows) else ("",) * len(eeg_rows),
        timestamp_row=int(rows["timestamp_channel"]),
        marker_row=int(rows["marker_channel"]),
        package_row=int(rows["package_num_channel"]),
        # Two of the Cyton's packages make one sample of its Daisy.
        package_stride=2 if "daisy" in key else 1,
        honesty="simulated" if key == "synthetic" else "live",
    )


def list_boards() -> list[BoardLayout]:
    """All boards that deliver EEG, in order of their names."""
    found = []
    for name in sorted(board_names()):
        try:
            found.append(board_layout(name))
        except SourceError:
            continue  # no EEG
    return found


def board_parameters(board: str, parameters: Mapping[str, str]) -> Any:
    """BrainFlowInputParams from the parameters of a source's name.

    Raises
    ------
    SourceError
        A parameter is unknown or not a number where one is needed.
    SourceNotFoundError
        The serial port does not exist.
    """
    filled = load_brainflow().BrainFlowInputParams()
    known = vars(filled)
    for name, text in parameters.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2) or sorted(known)
            raise SourceError(
                f"brainflow:{board} has no parameter '{name}'. Did you mean {' or '.join(close)}?"
                if len(close) <= 2
                else f"brainflow: has no parameter '{name}'. It knows {', '.join(close)}."
            )
        if isinstance(known[name], int):
            if not text.lstrip("-").isdigit():
                raise SourceError(f"{name} is '{text}'; expected a whole number.")
            setattr(filled, name, int(text))
        else:
            setattr(filled, name, text)
    port = Path(filled.serial_port)
    if port.is_absolute() and not port.exists():
        raise SourceNotFoundError(_no_port(filled.serial_port))
    return filled


def explain(error: Any, board: str, serial_port: str = "") -> SourceError:
    """BrainFlow's error as one sentence with the remedy.

    Parameters
    ----------
    error : a BrainFlowError; its `exit_code` decides.
    """
    code = int(error.exit_code)
    codes = load_brainflow().BrainFlowExitCodes
    if code in (codes.UNABLE_TO_OPEN_PORT_ERROR, codes.PORT_ALREADY_OPEN_ERROR):
        return _port_error(board, serial_port)
    if code == codes.ANOTHER_BOARD_IS_CREATED_ERROR:
        return SourceBusyError(
            f"The board {board} is already open in this program. Close the other session first."
        )
    sentences = {
        codes.INVALID_ARGUMENTS_ERROR: (
            f"{board} needs other parameters than these: serial_port=... where it has a port, "
            "mac_address=... or serial_number=... for Bluetooth, ip_address=... and ip_port=... "
            "for a network."
        ),
        codes.BOARD_NOT_READY_ERROR: (
            f"{board} does not answer. Switch it on (Cyton: to PC), put in fresh batteries, and "
            "plug the dongle in anew."
        ),
        codes.SYNC_TIMEOUT_ERROR: (
            f"{board} answered but sent no samples in time. Switch it off and on."
        ),
        codes.UNSUPPORTED_BOARD_ERROR: (
            f"BrainFlow does not support {board} on this system. Use an LSL stream instead."
        ),
        codes.GENERAL_ERROR: (
            f"{board} cannot be opened. Check its port or address, that Bluetooth is on where it "
            "needs that, and that no other program uses it."
        ),
    }
    if code in (codes.SER_PORT_ERROR, codes.BOARD_WRITE_ERROR, codes.INCOMMING_MSG_ERROR,
                codes.INITIAL_MSG_ERROR):  # fmt: skip
        return SourceError(
            f"The port of {board} opens but does not speak as the board should. Check that "
            f"{serial_port or 'the port'} is the right one, and switch the board off and on."
        )
    name = codes(code).name if code in iter(codes) else str(code)
    fallback = f"{board} failed with BrainFlow's {name}. Switch it off and on, then try again."
    return SourceError(sentences.get(code, fallback))


def _port_error(board: str, port: str) -> SourceError:
    if not port:
        return SourceNotFoundError(
            f"{board} was not found. Switch it on, keep it near, and check that this machine's "
            "Bluetooth is on; or name its port by serial_port=..."
        )
    if Path(port).is_absolute() and not Path(port).exists():
        return SourceNotFoundError(_no_port(port))
    if Path(port).exists() and not os.access(port, os.R_OK | os.W_OK):
        return SourceBusyError(
            f"{port} exists but may not be opened by this user. Run "
            "`sudo usermod -aG dialout $USER` and log in again."
        )
    return SourceBusyError(
        f"{port} cannot be opened: another program uses it (OpenBCI GUI?), or it is no serial "
        "port. Close that program, or choose another port."
    )


def _no_port(port: str) -> str:
    folder = Path("/dev")
    found = sorted(
        str(p) for pattern in ("ttyUSB*", "ttyACM*", "cu.*") for p in folder.glob(pattern)
    )
    there = f"Serial ports here: {', '.join(found)}." if found else "There is no serial port here."
    return f"There is no port {port}. {there} Plug in the dongle and check the name."
