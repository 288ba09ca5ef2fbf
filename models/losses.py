"""The paper's three losses (arXiv 2306.16934) and a contrast, a function each."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Of the contrast's softmax over pictures, whose cosines lie within a few tenths.
TEMPERATURE = 0.1


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


def contrast_loss(image_embeds: torch.Tensor, eeg_embeds: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) among rows.

    Rows that saw the same picture count as one another's right answer.

    Parameters
    ----------
    image_embeds, eeg_embeds : (n, dim).
    """
    image, eeg = F.normalize(image_embeds, dim=1), F.normalize(eeg_embeds, dim=1)
    # In full precision, whatever autocast says: products of unit vectors, sharpened.
    with torch.autocast(eeg.device.type, enabled=False):
        logits = eeg @ image.T / TEMPERATURE
    same = (image[:, None] == image).all(2).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
