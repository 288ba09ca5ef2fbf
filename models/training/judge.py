"""The judge: reads concept and appearance of a picture; trained apart, used only to score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from models.training.config import Schedule
from models.training.prepared import APPEARANCE, PreparedSet, Shards, images_to_tensor
from models.training.stage import Rows, processes, run_stage

# Of the squared error of the appearance, whose values lie within 0 and 1.
APPEARANCE_WEIGHT = 10.0


class Judge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A small convolutional reader of pictures (n, 3, 128, 128) in -1 to 1."""

    @register_to_config
    def __init__(self, n_concepts: int = 40, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width, 6 * width):
            layers += [
                nn.Conv2d(channels, out, 3, stride=2, padding=1),
                nn.GroupNorm(4, out),
                nn.GELU(),
                nn.Conv2d(out, out, 3, padding=1, groups=out),
                nn.Conv2d(out, out, 1),
                nn.GELU(),
            ]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, n_concepts)
        self.appearance_head = nn.Linear(3 * channels, len(APPEARANCE))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_concepts)."""
        return self.read(pictures)[0]

    def read(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, n_concepts), and the appearance (n, 6) in the order of `APPEARANCE`."""
        maps = self.features(pictures)
        flat = maps.flatten(2)
        # Maximum and mean: the object may be small, the background large.
        pooled = flat.mean(2) + flat.amax(2)
        # Where each feature is: the mean place under its softmax.
        share = flat.softmax(2).view_as(maps)
        side = torch.linspace(0, 1, maps.shape[-1], device=maps.device)
        place = ((share.sum(2) * side).sum(2), (share.sum(3) * side).sum(2))
        return self.head(pooled), self.appearance_head(torch.cat([pooled, *place], 1))


def blur(pictures: torch.Tensor) -> torch.Tensor:
    """Soften half of a batch and add noise, so that the judge does not live on sharp edges."""
    factor = int(torch.randint(1, 4, (1,)))
    small = F.avg_pool2d(pictures, factor) if factor > 1 else pictures
    soft = F.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    some = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
    return torch.where(some, soft, pictures) + 0.03 * torch.randn_like(pictures)


@torch.no_grad()
def score(judge: Judge, pictures: Shards, appearance: torch.Tensor) -> dict[str, float]:
    """Share of pictures that are named rightly, and correlations of what else is read."""
    named, found = [], []
    for index in torch.arange(len(pictures)).split(128):
        pixels = images_to_tensor(pictures.rows("images", index)).to(judge.device)
        logits, read = judge.read(pixels)
        named.append(logits.argmax(1).cpu() == pictures["label"][index])
        found.append(read.cpu())
    read = torch.cat(found)
    scores = {"top1": float(torch.cat(named).float().mean())}
    for column, name in enumerate(APPEARANCE):
        pair = torch.stack([read[:, column], appearance[:, column]])
        scores[name] = float(torch.corrcoef(pair)[0, 1])
    return scores


class JudgeTask(nn.Module):
    """Learns concept and appearance from softened and noisy pictures.

    Parameters
    ----------
    judge : that is trained.
    pictures : with a column `images` (n, H, W, 3) and `label`.
    appearance : (n, 6), of the pictures.
    """

    def __init__(self, judge: Judge, pictures: Shards, appearance: torch.Tensor) -> None:
        super().__init__()
        self.judge, self._pictures, self._label = judge, pictures, pictures["label"]
        self._appearance = appearance

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures."""
        return {"index": torch.randint(len(self._pictures), (batch,), generator=generator)}

    def load(self, rows: Rows) -> Rows:
        """Pixels and labels."""
        index = rows["index"]
        pixels = images_to_tensor(self._pictures.rows("images", index))
        return {
            "pixels": pixels,
            "label": self._label[index],
            "appearance": self._appearance[index],
        }

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Cross-entropy of the concept, and squared error of the appearance."""
        logits, appearance = self.judge.read(blur(rows["pixels"]))
        concept = F.cross_entropy(logits.float(), rows["label"])
        error = F.mse_loss(appearance.float(), rows["appearance"])
        return {
            "loss": concept + APPEARANCE_WEIGHT * error,
            "top1": (logits.argmax(1) == rows["label"]).float().mean(),
            "appearance": error,
        }


def train(
    pictures: Path,
    out: Path,
    schedule: Schedule,
    held_out: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Train the judge and save it to `out / "judge"`.

    Parameters
    ----------
    pictures : folder of a prepared set with pictures.
    out : folder of the stage.
    held_out : another one, that is scored and never trained on.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    known, held = PreparedSet(pictures), PreparedSet(held_out)
    data, others = known.pictures(), held.pictures()
    appearance = held.appearance()
    torch.manual_seed(schedule.seed)
    judge = Judge(1 + int(data["label"].max()))

    def look(_step: int) -> dict[str, float]:
        return score(judge, others, appearance)

    run_stage(
        out,
        JudgeTask(judge, data, known.appearance()),
        schedule,
        say,
        look,
        {"pictures": str(pictures)},
    )
    if processes().is_main_process:
        judge.save_pretrained(out / "judge")
        say(f"{out / 'judge'} holds the judge.")
