"""Errors of the models' side.

ModelError
├── BundleError          a folder that does not hold a usable bundle
├── CheckpointError      a published checkpoint that cannot be read or does not fit
├── PreparedSetError     training data that is missing or damaged
│   └── SplitError           its rows cannot be split as asked
├── TrainingError        a stage of training that cannot begin or go on
├── ScorerError          a classifier or CLIP to score pictures by that cannot be used
└── EpochShapeError      EEG whose shape the encoder was not built for
"""


class ModelError(Exception):
    """Anything that went wrong with weights, bundles or their input."""


class BundleError(ModelError):
    """The bundle is missing, incomplete or damaged."""


class CheckpointError(ModelError):
    """A published checkpoint cannot be read, or is not of the reference's structure."""


class PreparedSetError(ModelError):
    """The prepared set is missing, incomplete or damaged."""


class SplitError(PreparedSetError):
    """The rows of a prepared set cannot be split as asked."""


class TrainingError(ModelError):
    """A stage of training cannot begin or go on."""


class ScorerError(ModelError):
    """A classifier, CLIP or Inception to score pictures by is missing or damaged."""


class EpochShapeError(ModelError):
    """EEG of another shape than the encoder's."""
