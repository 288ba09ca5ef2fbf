"""What a stage starts from: an encoder of EEG, and perhaps its conditioner."""

from __future__ import annotations

from pathlib import Path

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import TrainingError
from models.training.base import load_stage
from models.training.prepared import Shards

REMEDY = (
    "Give --encoder a folder that `phosphene pretrain`, `phosphene scale-model align` or "
    "`phosphene import` wrote."
)


def read_encoder(folder: Path, epochs: Shards, prepared: Path) -> EEGEncoder:
    """The encoder in `folder / "eeg_encoder"`.

    Parameters
    ----------
    epochs, prepared : that it must fit, and the folder of their set.

    Raises
    ------
    TrainingError
        The folder holds none, or it was built for other epochs.
    """
    encoder: EEGEncoder = load_stage(EEGEncoder, folder / "eeg_encoder", "The EEG encoder", REMEDY)
    check_shapes(encoder, epochs, prepared)
    return encoder


def read_conditioner(folder: Path) -> EEGConditioner | None:
    """The conditioner beside it, or None.

    Raises
    ------
    TrainingError
        It is damaged.
    """
    path = folder / "conditioner"
    return load_stage(EEGConditioner, path, "The conditioner", REMEDY) if path.is_dir() else None


def check_shapes(encoder: EEGEncoder, epochs: Shards, prepared: Path) -> None:
    """Refuse an encoder that was built for other epochs."""
    expected = (encoder.config.in_channels, encoder.config.n_times)
    found = epochs.shape("eeg")
    if expected != found:
        raise TrainingError(
            f"The encoder takes epochs of {expected[0]} channels x {expected[1]} samples; "
            f"{prepared} holds {found[0]} x {found[1]}. Prepare both sets with the same --spec."
        )
