"""Errors of the application, and the exit code of every error.

AppError
├── SettingsError     a setting makes no sense, or there is none of that name
├── AddressError      the address is taken, or must not be listened on
├── SummaryError      what was asked for cannot be written there
├── PainterLogError   a painter's log is damaged, or cannot be done again
└── ChildFailedError  a child process ended before the session was ready

Every message says what was expected, what was found and what to do.
"""

from __future__ import annotations

from enum import IntEnum

from acquisition import errors as acquisition_errors
from models import errors as model_errors


class ExitCode(IntEnum):
    """What `phosphene` and its child processes return to the shell."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    SOURCE = 3
    SOURCE_NOT_FOUND = 4
    SOURCE_BUSY = 5
    RECORDING = 6
    STREAM_INFO = 7
    MONTAGE = 8
    BUNDLE = 9
    ADDRESS = 10
    OUTPUT = 11
    DOCTOR = 12
    TRAINING = 13
    INTERRUPTED = 14


EXIT_CODE_TEXTS: dict[ExitCode, str] = {
    ExitCode.OK: "ended as asked (also by Ctrl-C, SIGTERM, or the end of --duration)",
    ExitCode.FAILURE: "something unexpected; --debug shows where",
    ExitCode.USAGE: "an argument or a setting makes no sense",
    ExitCode.SOURCE: "the source cannot be opened or read",
    ExitCode.SOURCE_NOT_FOUND: "no such stream, board, port or file",
    ExitCode.SOURCE_BUSY: "the device or its port is in use",
    ExitCode.RECORDING: "the recording is damaged or holds no EEG",
    ExitCode.STREAM_INFO: "channel names, unit or rate are missing or contradictory",
    ExitCode.MONTAGE: "the electrodes cannot be mapped to the bundle's",
    ExitCode.BUNDLE: "the bundle or checkpoint is missing, incomplete or damaged",
    ExitCode.ADDRESS: "the address is taken, or may not be listened on",
    ExitCode.OUTPUT: "a file or folder cannot be written",
    ExitCode.DOCTOR: "doctor found something that must be mended",
    ExitCode.TRAINING: "training or evaluation cannot begin or go on: its settings, data or files",
    ExitCode.INTERRUPTED: "training was stopped before its end; the same command goes on",
}


class AppError(Exception):
    """Anything that went wrong in the composition of the parts."""


class SettingsError(AppError):
    """A setting makes no sense, or there is none of that name."""


class AddressError(AppError):
    """The address is taken, or must not be listened on."""


class SummaryError(AppError):
    """What was asked for, as a summary, a prepared set or a bundle, cannot be written there."""


class PainterLogError(AppError):
    """A painter's log is missing or damaged, or what it tells cannot be done again."""


class ChildFailedError(AppError):
    """A child process ended before the session was ready.

    Parameters
    ----------
    sentence : the child's own.
    exit_code : the child's own.
    """

    def __init__(self, sentence: str, exit_code: ExitCode) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


# The first class that an error is an instance of decides.
_EXIT_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (SettingsError, ExitCode.USAGE),
    (AddressError, ExitCode.ADDRESS),
    (SummaryError, ExitCode.OUTPUT),
    (PainterLogError, ExitCode.RECORDING),
    (acquisition_errors.SourceNotFoundError, ExitCode.SOURCE_NOT_FOUND),
    (acquisition_errors.SourceBusyError, ExitCode.SOURCE_BUSY),
    (acquisition_errors.RecordingError, ExitCode.RECORDING),
    (acquisition_errors.SourceError, ExitCode.SOURCE),
    (acquisition_errors.StreamInfoError, ExitCode.STREAM_INFO),
    (acquisition_errors.MontageError, ExitCode.MONTAGE),
    (acquisition_errors.EpochSpecError, ExitCode.BUNDLE),
    (model_errors.BundleError, ExitCode.BUNDLE),
    (model_errors.CheckpointError, ExitCode.BUNDLE),
    (model_errors.ModelError, ExitCode.TRAINING),
)

KNOWN_ERRORS: tuple[type[Exception], ...] = (
    AppError,
    acquisition_errors.AcquisitionError,
    model_errors.ModelError,
)
"""Errors whose text is written for people; any other is a defect."""


def exit_code(error: Exception) -> ExitCode:
    """The exit code of an error.

    >>> exit_code(acquisition_errors.MontageError("two known electrodes"))
    <ExitCode.MONTAGE: 8>
    """
    if isinstance(error, ChildFailedError):
        return error.exit_code
    return next((c for kind, c in _EXIT_CODES if isinstance(error, kind)), ExitCode.FAILURE)


def sentence(error: Exception) -> str:
    """What to tell people about an error.

    >>> sentence(KeyError("sfreq"))
    "Something unexpected happened (KeyError: 'sfreq'). Run again with --debug to see where."
    """
    if isinstance(error, KNOWN_ERRORS):
        return str(error)
    return (
        f"Something unexpected happened ({type(error).__name__}: {error}). "
        "Run again with --debug to see where."
    )
