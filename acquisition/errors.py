"""Errors of the acquisition's side.

AcquisitionError
├── SourceError               a source cannot be opened or read
│   ├── SourceNotFoundError       no such stream, board, port or file
│   ├── SourceBusyError           the device or port is in use
│   └── RecordingError            a recording is damaged, or holds no EEG
├── StreamInfoError           names, units or rate missing or contradictory
├── MontageError              electrodes cannot be mapped to the model's
└── EpochSpecError            a bundle's epoch specification makes no sense

Every message says what was expected, what was found and what to do.
"""


class AcquisitionError(Exception):
    """Anything that went wrong between the headset and the epoch."""


class SourceError(AcquisitionError):
    """A source cannot be opened or read."""


class SourceNotFoundError(SourceError):
    """No such stream, board, port or file."""


class SourceBusyError(SourceError):
    """The device or port is in use."""


class RecordingError(SourceError):
    """A recording is damaged, or holds no EEG."""


class StreamInfoError(AcquisitionError):
    """Channel names, unit or rate are missing or contradictory."""


class MontageError(AcquisitionError):
    """The headset's electrodes cannot be mapped to the model's."""


class EpochSpecError(AcquisitionError):
    """An epoch specification makes no sense."""
