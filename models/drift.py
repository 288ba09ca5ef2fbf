"""How a person's EEG has changed since calibration, followed without knowing what is seen.

Hair dries electrodes, people tire: the mean response to a picture moves, and with it every linear
decision. What all pictures have in common needs no labels, so its running mean is taken off and
that of calibration put in its place (Vidaurre et al. 2011, doi:10.1109/TBME.2010.2093133).
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

# Epochs that calibration counts for beside new ones, and that are remembered: so many seconds.
PRIOR, MEMORY = 50.0, 300.0
# Of what is seen in calibration itself, what is called usual.
USUAL = 0.95


class Drift(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Running statistics of epochs beside those of calibration; used by one thread.

    Parameters
    ----------
    n_channels, n_times : of epochs.
    share : of an epoch that is new in a sliding window.
    usual : `amount` that 95 % of calibration's own epochs stay below.

    Attributes
    ----------
    mean : (n_channels, n_times), of calibration's marker-locked epochs.
    covariance : (n_channels, n_channels), of the same.
    """

    @register_to_config
    def __init__(
        self,
        n_channels: int,
        n_times: int,
        share: float = 0.25,  # noqa: ARG002 - kept in the config
        usual: float = 0.0,  # noqa: ARG002 - likewise
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_channels, n_times), requires_grad=False)
        self.covariance = nn.Parameter(torch.eye(n_channels), requires_grad=False)
        self.restart()

    @classmethod
    def of(cls, eeg: np.ndarray, hop: int) -> Drift:
        """Of calibration's marker-locked epochs (n, n_channels, n_times), in their order.

        Parameters
        ----------
        hop : samples between sliding windows.
        """
        n_channels, n_times = eeg.shape[1:]
        drift: Drift = cls(n_channels, n_times, hop / n_times)
        drift.mean.data = torch.from_numpy(eeg.mean(axis=0, dtype=np.float32))
        covariances = np.mean([_covariance(epoch) for epoch in eeg], axis=0)
        drift.covariance.data = torch.from_numpy(covariances.astype(np.float32))
        drift.restart()
        amounts = []
        for epoch in eeg:
            drift.follow(epoch, True)
            amounts.append(drift.amount)
        drift.register_to_config(usual=float(np.quantile(amounts, USUAL)))
        drift.restart()
        return drift

    def restart(self) -> None:
        """Forget all but calibration."""
        self._mean: np.ndarray | None = None
        self._covariance: np.ndarray | None = None
        self._n_mean = self._n_covariance = PRIOR

    def follow(self, eeg: np.ndarray, is_locked: bool) -> np.ndarray:
        """Take an epoch (n_channels, n_times) in, and give it as calibration would have had it.

        Of sliding windows, which begin at any time, the mean tells nothing: they stay as they are.
        """
        if eeg.shape != self.mean.shape:
            return eeg  # the encoder says what it wants
        if self._mean is None or self._covariance is None:
            self._mean = self.mean.numpy(force=True).astype(np.float64)
            self._covariance = self.covariance.numpy(force=True).astype(np.float64)
        weight = 1.0 if is_locked else float(self.config.share)
        self._n_covariance = min(self._n_covariance + weight, MEMORY)
        step = weight / self._n_covariance
        self._covariance += step * (_covariance(eeg) - self._covariance)
        if not is_locked:
            return eeg
        self._n_mean = min(self._n_mean + 1, MEMORY)
        self._mean += (eeg - self._mean) / self._n_mean
        moved = self._mean - self.mean.numpy(force=True)
        return np.asarray(eeg - moved, np.float32)

    @property
    def amount(self) -> float:
        """How far the electrodes' covariance has moved, as a share of calibration's (Frobenius)."""
        if self._covariance is None:
            return 0.0
        before = self.covariance.numpy(force=True)
        return float(np.linalg.norm(self._covariance - before) / np.linalg.norm(before))


def _covariance(eeg: np.ndarray) -> np.ndarray:
    return np.asarray(eeg.astype(np.float64) @ eeg.T / eeg.shape[1])
