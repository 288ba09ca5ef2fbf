"""Decoded pictures beside seen ones: every metric, for every kind of EEG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.training.metrics import Score
from models.training.prepared import Shards
from models.training.scorers import NotMeasured
from models.training.seen import unit_pictures
from models.training.trials import Condition, Options, Trials

SEEN = "the seen pictures themselves"
# Pictures that a network looks at together.
BATCH = 64

See = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of every condition.

    Attributes
    ----------
    title : a few words.
    what : what it is, in a clause.
    chance : what a decoder that knows nothing gets; None where only the controls say that.
    scores : by condition.
    values : (samples, n), of each picture painted from the EEG; None for a score of sets.
    form : how its values are written, as `format` takes it.
    """

    title: str
    what: str
    chance: float | None
    scores: dict[str, Score]
    values: np.ndarray | None = None
    form: str = ".3f"


Metrics = dict[str, Metric | NotMeasured]


@dataclass(frozen=True, slots=True, eq=False)
class Naming:
    """What each trial was taken for.

    Attributes
    ----------
    by : who named it.
    label : (n,), the set's label that was said of the first sample.
    """

    by: str
    label: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Decoded pictures beside seen ones.

    Attributes
    ----------
    trials, options : of the evaluation.
    seen : pictures of the prepared set.
    painted : decoded pictures, by name.
    conditions : which decoded picture stands for which trial.
    """

    trials: Trials
    options: Options
    seen: Shards
    painted: dict[str, Shards]
    conditions: dict[str, Condition]

    def look(self, see: See) -> dict[str, np.ndarray]:
        """What a network makes of all decoded pictures, by name of the shards."""
        return {name: look(shards, _all(shards), see) for name, shards in self.painted.items()}

    def look_at_seen(self, see: See) -> np.ndarray:
        """What a network makes of the different seen pictures, (n_images, ...)."""
        return look(self.seen, self.trials.images, see)

    def metric(
        self,
        title: str,
        what: str,
        chance: float | None,
        values_of: Callable[[str, np.ndarray], np.ndarray],
        form: str = "",
    ) -> Metric:
        """A metric of all conditions.

        Parameters
        ----------
        title, what, chance, form : see `Metric`; what has a chance is a share if nothing is said.
        values_of : from the shards' name and the picture's row for each trial (n,) to the
            trials' values (n,); samples of a trial are averaged.
        """
        values = {
            name: np.stack([values_of(c.painted, rows) for rows in c.index])
            for name, c in self.conditions.items()
        }
        scores = {name: self.score(v.mean(0)) for name, v in values.items()}
        form = form or (".3f" if chance is None else ".1%")
        return Metric(title, what, chance, scores, values["EEG"], form)

    def score(self, values: np.ndarray) -> Score:
        """The score of one value for each trial."""
        return Score.of(values, self.trials.image, self.options.seed)


@torch.inference_mode()
def look(shards: Shards, rows: torch.Tensor, see: See) -> np.ndarray:
    """What a network makes of pictures, (len(rows), ...), a batch at a time."""
    return np.concatenate(
        [see(unit_pictures(shards, part)).cpu().numpy() for part in rows.split(BATCH)]
    )


def _all(shards: Shards) -> torch.Tensor:
    return torch.arange(len(shards))
