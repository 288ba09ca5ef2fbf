"""Nearest concepts of a CLIP embedding, with a confidence and when to say "not sure"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class ConceptTable(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Prototypes of the concepts in CLIP's space.

    Parameters
    ----------
    names : of the concepts, in the order of their labels.
    clip_dim : of the space.
    temperature : of the softmax over cosine similarities; fitted on held-out sessions so
        that the confidence is the share of right answers (Guo et al. 2017,
        arXiv 1706.04599).

    Attributes
    ----------
    seen : embeddings of unit length to the log odds that something was seen, less those from
        which it is believed; 1 for all until it is fitted.
    """

    @register_to_config
    def __init__(
        self,
        names: Sequence[str] = (),
        clip_dim: int = 768,
        temperature: float = 0.05,  # noqa: ARG002  (kept in the configuration)
    ) -> None:
        super().__init__()
        self.prototypes = torch.nn.Parameter(
            F.normalize(torch.randn(len(names), clip_dim), dim=1), requires_grad=False
        )
        self.seen = torch.nn.Linear(clip_dim, 1).requires_grad_(False)
        torch.nn.init.zeros_(self.seen.weight)
        torch.nn.init.ones_(self.seen.bias)

    @property
    def chance(self) -> float:
        """Probability of a right guess."""
        return 1 / len(self.config.names)

    def forward(self, clip_embeds: torch.Tensor) -> torch.Tensor:
        """CLIP embeddings (n, clip_dim) to probabilities (n, n_concepts)."""
        cosine = F.normalize(clip_embeds, dim=1) @ F.normalize(self.prototypes, dim=1).T
        probabilities: torch.Tensor = (cosine / self.config.temperature).softmax(dim=1)
        return probabilities

    def log_odds(self, clip_embeds: torch.Tensor) -> torch.Tensor:
        """That anything was seen, by CLIP embeddings (n, clip_dim): (n,)."""
        odds: torch.Tensor = self.seen(F.normalize(clip_embeds, dim=1))[:, 0]
        return odds

    def is_sure(self, clip_embeds: torch.Tensor) -> torch.Tensor:
        """Whether anything was seen, by CLIP embeddings (n, clip_dim): (n,) bool."""
        return self.log_odds(clip_embeds) > 0
