"""Errors of the models' side.

ModelError
├── BundleError          a folder that does not hold a usable bundle
├── PreparedSetError     training data that is missing or damaged
├── ScorerError          a classifier or CLIP to score pictures by that cannot be used
└── EpochShapeError      EEG whose shape the encoder was not built for
"""


class ModelError(Exception):
    """Anything that went wrong with weights, bundles or their input."""


class BundleError(ModelError):
    """The bundle is missing, incomplete or damaged."""


class PreparedSetError(ModelError):
    """The prepared set is missing, incomplete or damaged."""


class ScorerError(ModelError):
    """A classifier, CLIP or Inception to score pictures by is missing or damaged."""


class EpochShapeError(ModelError):
    """EEG of another shape than the encoder's."""
