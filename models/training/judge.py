"""The judge: names the concept in a picture; trained apart, used only to score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from models.training.config import Schedule
from models.training.prepared import PreparedSet, Shards, images_to_tensor
from models.training.stage import Rows, processes, run_stage


class Judge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A small convolutional classifier of pictures (n, 3, 128, 128) in -1 to 1."""

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

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_concepts)."""
        # Maximum and mean: the object may be small, the background large.
        maps = self.features(pictures).flatten(2)
        out: torch.Tensor = self.head(maps.mean(2) + maps.amax(2))
        return out


def blur(pictures: torch.Tensor) -> torch.Tensor:
    """Soften half of a batch and add noise, so that the judge does not live on sharp edges."""
    factor = int(torch.randint(1, 4, (1,)))
    small = F.avg_pool2d(pictures, factor) if factor > 1 else pictures
    soft = F.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    some = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
    return torch.where(some, soft, pictures) + 0.03 * torch.randn_like(pictures)


@torch.no_grad()
def accuracy(judge: Judge, pictures: Shards) -> float:
    """Share of the set's pictures that the judge names rightly."""
    label = pictures["label"]
    right = 0
    for index in torch.arange(len(pictures)).split(128):
        pixels = images_to_tensor(pictures.rows("images", index)).to(judge.device)
        right += int((judge(pixels).argmax(1).cpu() == label[index]).sum())
    return right / len(pictures)


class JudgeTask(nn.Module):
    """Learns to name the concept in softened and noisy pictures."""

    def __init__(self, judge: Judge, pictures: Shards) -> None:
        super().__init__()
        self.judge, self._pictures, self._label = judge, pictures, pictures["label"]

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures."""
        return {"index": torch.randint(len(self._pictures), (batch,), generator=generator)}

    def load(self, rows: Rows) -> Rows:
        """Pixels and labels."""
        index = rows["index"]
        pixels = images_to_tensor(self._pictures.rows("images", index))
        return {"pixels": pixels, "label": self._label[index]}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Cross-entropy of the concept."""
        logits, label = self.judge(blur(rows["pixels"])).float(), rows["label"]
        return {
            "loss": F.cross_entropy(logits, label),
            "top1": (logits.argmax(1) == label).float().mean(),
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
    data, others = PreparedSet(pictures).pictures(), PreparedSet(held_out).pictures()
    torch.manual_seed(schedule.seed)
    judge = Judge(1 + int(data["label"].max()))

    def look(_step: int) -> dict[str, float]:
        return {"top1": accuracy(judge, others)}

    run_stage(out, JudgeTask(judge, data), schedule, say, look, {"pictures": str(pictures)})
    if processes().is_main_process:
        judge.save_pretrained(out / "judge")
        say(f"{out / 'judge'} holds the judge.")
