"""The paper's three losses (arXiv 2306.16934), a function each."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def eeg_recon_loss(x: torch.Tensor, x_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L_EEG_recon = 1/|M| sum over i in M of (x_i - x_hat_i)^2, over masked tokens only.

    Parameters
    ----------
    x, x_hat : patches and their reconstruction, (n, tokens, values).
    mask : (n, tokens), 1 where a token was hidden.
    """
    error = (x - x_hat).square().mean(dim=2)
    return (error * mask).sum() / mask.sum()


def sd_loss(target: torch.Tensor, predicted: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """L_SD = E w(t) ||eps - eps_theta(x_t, t, tau_theta(y))||^2, mean over elements.

    Parameters
    ----------
    target, predicted : (n, ...); the noise, or what else a base model predicts.
    weight : (n,), of the timesteps; ones in the paper.
    """
    return ((predicted - target).square().flatten(1).mean(1) * weight).mean()


def clip_loss(image_embeds: torch.Tensor, eeg_embeds: torch.Tensor) -> torch.Tensor:
    """L_clip = 1 - <E_I(I), h(tau_theta(y))> / (|E_I(I)| |h(tau_theta(y))|), mean over rows.

    Parameters
    ----------
    image_embeds : E_I(I), (n, dim), from the frozen CLIP image encoder.
    eeg_embeds : h(tau_theta(y)), (n, dim).
    """
    return 1 - F.cosine_similarity(image_embeds, eeg_embeds, dim=-1).mean()
