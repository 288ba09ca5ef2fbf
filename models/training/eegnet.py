"""EEGNet, the small convolutional network that most would try first on EEG.

Lawhern et al. 2018, doi:10.1088/1741-2552/aace8c. Written from the paper: braindecode has it,
too, but needs torchaudio of the very version of torch, skorch, mne-bids, wfdb and more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.training.checkpoint import save_atomically
from models.training.config import Schedule
from models.training.peers import Labelled, accuracy, parts
from models.training.stage import Rows, run_stage

PAPER_SFREQ = 128.0
# Training epochs whose statistics batch normalisation takes when it predicts.
N_SETTLED = 4096
RATES = (1e-3, 4e-3)


class EEGNet(nn.Module):
    """EEGNet-8,2 (the paper's table 2), for epochs (n, n_channels, n_times).

    Parameters
    ----------
    n_channels, n_times, n_classes : of the epochs.
    sfreq : of the epochs in Hz; neighbouring samples are averaged to about the paper's 128 Hz,
        so that its kernels are as long in seconds.
    n_temporal : F1, temporal filters.
    depth : D, spatial filters of each temporal one.
    dropout : 0.25, the paper's for sessions or subjects that training has not seen.
    """

    def __init__(
        self,
        n_channels: int,
        n_times: int,
        n_classes: int,
        sfreq: float,
        n_temporal: int = 8,
        depth: int = 2,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.decimation = max(1, round(sfreq / PAPER_SFREQ))
        n_spatial = depth * n_temporal
        # Even kernels padded by half give one sample too many, which pooling drops.
        self.temporal = nn.Conv2d(1, n_temporal, (1, 64), padding=(0, 32), bias=False)
        self.temporal_norm = nn.BatchNorm2d(n_temporal)
        self.spatial = nn.Conv2d(
            n_temporal, n_spatial, (n_channels, 1), groups=n_temporal, bias=False
        )
        self.first = nn.Sequential(
            nn.BatchNorm2d(n_spatial), nn.ELU(), nn.AvgPool2d((1, 4)), nn.Dropout(dropout)
        )
        self.second = nn.Sequential(
            nn.Conv2d(n_spatial, n_spatial, (1, 16), padding=(0, 8), groups=n_spatial, bias=False),
            nn.Conv2d(n_spatial, n_spatial, 1, bias=False),
            nn.BatchNorm2d(n_spatial),
            nn.ELU(),
            nn.AvgPool2d((1, 8)),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(n_spatial * (n_times // self.decimation // 4 // 8), n_classes)

    def forward(self, eeg: torch.Tensor) -> torch.Tensor:
        """Epochs to logits (n, n_classes)."""
        if self.training:
            _limit(self.spatial.weight, 1.0)
            _limit(self.head.weight, 0.25)
        x = F.avg_pool1d(eeg, self.decimation)[:, None]
        x = self.first(self.spatial(self.temporal_norm(self.temporal(x))))
        logits: torch.Tensor = self.head(self.second(x).flatten(1))
        return logits


@torch.no_grad()
def _limit(weight: torch.Tensor, norm: float) -> None:
    """Shorten a filter's weights to a norm: the paper's only regularisation beside dropout."""
    weight.copy_(torch.renorm(weight, 2, 0, norm))


@torch.no_grad()
def settle(network: EEGNet, eeg: np.ndarray) -> None:
    """Let batch normalisation take its statistics from epochs (n, n_channels, n_times).

    A moving average would have to be kept by a stage's checkpoint; these follow from the weights.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.eval()
    for norm in norms:
        norm.train()
    for part in parts(eeg):
        network(_tensor(network, part))
    network.eval()


def _tensor(network: nn.Module, eeg: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(eeg).to(next(network.parameters()).device)


@dataclass(frozen=True, slots=True, eq=False)
class EEGNetPredictor:
    """A trained EEGNet; see `models.training.peers.Predictor`."""

    chosen: str
    network: EEGNet

    @torch.no_grad()
    def predict(self, eeg: np.ndarray) -> np.ndarray:
        """Epochs (n, n_channels, n_times) to probabilities (n, n_classes)."""
        found = [self.network(_tensor(self.network, part)).softmax(1) for part in parts(eeg)]
        return np.asarray(torch.cat(found).cpu().numpy())


class EEGNetTask(nn.Module):
    """Learns the class of epochs; a `Task` of a stage."""

    def __init__(self, network: EEGNet, data: Labelled) -> None:
        super().__init__()
        self.network, self._data = network, data

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Epochs."""
        return {"index": torch.randint(len(self._data.label), (batch,), generator=generator)}

    def load(self, rows: Rows) -> Rows:
        """EEG and labels."""
        index = rows["index"].numpy()
        eeg, label = self._data.eeg[index], self._data.label[index]
        return {"eeg": torch.from_numpy(eeg), "label": torch.from_numpy(label)}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Cross-entropy, and the share that is right."""
        self.network.train()
        logits = self.network(rows["eeg"])
        right = logits.argmax(1) == rows["label"]
        return {"loss": F.cross_entropy(logits, rows["label"]), "top1": right.float().mean()}


@dataclass(frozen=True, slots=True)
class EEGNetConfig(Schedule):
    """How EEGNet is trained: Adam, as in the paper, whose 500 passes are cut to about 13."""

    steps: int = 5000
    batch: int = 128
    weight_decay: float = 0.0
    save_every: int = 400


class _Best:
    """The checkpoint of a stage that names most of the validation epochs, kept in its folder."""

    def __init__(
        self, folder: Path, network: EEGNet, settled: np.ndarray, validation: Labelled
    ) -> None:
        self.path, self.top1 = folder / "best.pt", -1.0
        self._network, self._settled, self._validation = network, settled, validation
        if not (folder / "checkpoint.pt").is_file():
            self.path.unlink(missing_ok=True)
        elif self.path.is_file():
            self.top1 = torch.load(self.path, weights_only=True)["top1"]

    def look(self, step: int) -> dict[str, float]:
        settle(self._network, self._settled)
        top1 = accuracy(EEGNetPredictor("", self._network), self._validation)
        if top1 > self.top1:
            self.top1 = top1
            state = {"top1": top1, "step": step, "network": self._network.state_dict()}
            save_atomically(state, self.path)
        return {"top1": top1}


def fit_eegnet(
    train: Labelled,
    validation: Labelled,
    sfreq: float,
    out: Path,
    config: EEGNetConfig,
    identity: dict[str, str],
    say: Callable[[str], None] = print,
    rates: Sequence[float] = RATES,
) -> EEGNetPredictor:
    """Train EEGNet once for each learning rate; the best checkpoint on validation stays.

    Parameters
    ----------
    sfreq : of the epochs in Hz.
    out : folder; each learning rate is a stage in it, and goes on from its checkpoint.
    config : of all of them; its learning rate is not looked at.
    identity : what else a checkpoint must agree in to be gone on from, as the data.
    rates : highest learning rates to choose from.

    Raises
    ------
    TrainingError
        A checkpoint belongs to other settings or data, or cannot be written.
    """
    n_channels, n_times = train.eeg.shape[1:]
    settled = train.eeg[np.random.default_rng(0).permutation(len(train.eeg))[:N_SETTLED]]
    n_classes, best = int(train.label.max()) + 1, []
    for rate in rates:
        folder = out / f"lr-{rate:g}"
        torch.manual_seed(config.seed)
        network = EEGNet(n_channels, n_times, n_classes, sfreq)
        kept = _Best(folder, network, settled, validation)
        run_stage(
            folder, EEGNetTask(network, train), replace(config, lr=rate), say, kept.look, identity
        )
        best.append((kept.top1, rate, kept.path))
    _, rate, path = max(best)
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    return EEGNetPredictor(f"learning rate {rate:g}, {state['step']} steps", network.eval())
