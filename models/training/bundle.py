"""From trained parts to a bundle: a folder that `phosphene serve` runs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from models.concepts import ConceptTable
from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import TrainingError
from models.ip_adapter import ImageAdapter
from models.pipeline import EEGToImagePipeline
from models.training.base import Base, embed_pictures
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs

# Share of epochs without an answer that may be taken for one.
FALSE_ANSWERS = 0.1
# Epochs that temperature and threshold are fitted on.
FITTED = 1024
# Windows of each kind without an answer that training is taken from, and electrodes that are off.
UNSEEN, OFF = 4096, 256
# Training epochs that prototypes are turned on, what holds them back, and their softmax at first.
TURNED_ON = 16_384
STRAY_WEIGHT = 1e-4
START_TEMPERATURE = 0.05
HELD_OUT = "held_out.safetensors"
# A bundle's card tells how its weights were made; those of a variant are others.
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Sampler:
    """How the bundle paints; written to `painter.json`."""

    num_inference_steps: int = 20
    guidance_scale: float = 1.0


def concept_names(data: PreparedSet) -> dict[int, str]:
    """Names of a set's labels, by number."""
    if "concepts" in data.spec:
        return dict(enumerate(data.spec["concepts"]))
    return {number: name for name, number in data.spec.get("labels", {}).items()}


def surrogates(eeg: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Epochs without an event: random phases, the same for all channels of an epoch.

    Spectra and the covariance of channels stay as they are (Prichard and Theiler 1994,
    doi 10.1103/PhysRevLett.73.951).

    Parameters
    ----------
    eeg : (n, n_channels, n_times).
    """
    spectrum = torch.fft.rfft(eeg)
    phase = 2 * torch.pi * torch.rand(len(eeg), 1, spectrum.shape[2], generator=generator)
    # The mean has no phase, nor has the highest frequency of an even number of samples.
    phase[..., 0] = 0
    if eeg.shape[2] % 2 == 0:
        phase[..., -1] = 0
    turned = spectrum * torch.polar(torch.ones_like(phase), phase)
    out: torch.Tensor = torch.fft.irfft(turned, eeg.shape[2])
    return out


def mean_prototypes(image_embeds: torch.Tensor, label: torch.Tensor, n_labels: int) -> torch.Tensor:
    """Mean embedding of each label's pictures, of unit length.

    Parameters
    ----------
    image_embeds : of pictures, (n, clip_dim).
    label : of the pictures, (n,).

    Returns
    -------
    tensor of shape (n_labels, clip_dim); zero, which is near to nothing, for a label without
    pictures.
    """
    sums = torch.zeros(n_labels, image_embeds.shape[1]).index_add(0, label, image_embeds)
    return F.normalize(sums, dim=1)


def picture_prototypes(
    pictures: PreparedSet, names: dict[int, str], path: Path, clip: str
) -> torch.Tensor:
    """Mean embedding of each concept's pictures, also of those whose EEG nobody learns from.

    Parameters
    ----------
    pictures : that show all concepts.
    names : of the concepts, which are 0 to n - 1.
    path : where what CLIP made of the pictures is kept.
    clip : name or folder.

    Returns
    -------
    tensor of shape (n_concepts, clip_dim).

    Raises
    ------
    TrainingError, ScorerError
        The pictures are of other concepts, or of some there is none; there is no such CLIP.
    """
    label = pictures.pictures()["label"]
    if concept_names(pictures) != names or label.unique().numel() != len(names):
        raise TrainingError(
            f"{pictures.folder} does not show all concepts of the EEG, and no others. Give "
            "--zero-shot what `phosphene prepare --pictures` wrote."
        )
    embeds = torch.from_numpy(embed_pictures(path, pictures, clip).astype(np.float32))
    return mean_prototypes(embeds, label, len(names))


def fit_prototypes(prototypes: torch.Tensor, embeds: torch.Tensor, label: torch.Tensor) -> None:
    """Turn prototypes, in place, to where EEG of their concepts lies in CLIP's space.

    EEG of a concept does not lie around its pictures: what EEG tells little of, as fine
    detail, is missing in its embeddings. The cross-entropy of the labels says how far to turn.

    Parameters
    ----------
    prototypes : (n_concepts, clip_dim), of unit length; zero ones have no epochs and stay.
    embeds : (n, clip_dim), of training epochs, of unit length.
    label : (n,), of the epochs.
    """
    is_known = prototypes.norm(dim=1) > 0
    begun = prototypes[is_known]
    place = is_known.cumsum(0)[label] - 1
    turned = begun.clone().requires_grad_()
    log_temperature = torch.tensor(math.log(START_TEMPERATURE), requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [turned, log_temperature], max_iter=100, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = embeds @ F.normalize(turned, dim=1).T / log_temperature.exp()
        stray = (turned - begun).square().sum()
        loss = F.cross_entropy(logits, place) + STRAY_WEIGHT * stray
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    prototypes[is_known] = F.normalize(turned.detach(), dim=1)


def unseen(seen: SeenEpochs, generator: torch.Generator, n: int) -> torch.Tensor:
    """Epochs of nobody who sees anything, up to `n` (m, n_channels, n_times).

    Windows in which nothing was seen; where the set has none, epochs whose phases were randomised.
    """
    blank = seen.blank
    if len(blank):
        return seen.epochs.rows("eeg", blank[_some(len(blank), n, generator)]).float()
    return surrogates(seen.eeg(_some(len(seen), n, generator)), generator)


def electrodes_off(eeg: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Open inputs, which give white noise as loud as epochs `eeg`, and one with silent inputs."""
    noise = torch.randn(OFF, *eeg.shape[1:], generator=generator)
    return torch.cat([noise * eeg.std((0, 2))[:, None], torch.zeros_like(noise[:1])])


def fit_seen(
    seen: nn.Linear, answered: torch.Tensor, without: torch.Tensor, held_out: torch.Tensor
) -> None:
    """Fit, in place, what tells embeddings of something from those of nothing.

    Parameters
    ----------
    seen : (clip_dim) to log odds, not above 0 for all but a tenth of `held_out`.
    answered, without : (n, clip_dim) and (m, clip_dim), of unit length, to learn from.
    held_out : (k, clip_dim), that have no answer.
    """
    embeds = torch.cat([answered, without]).double().numpy()
    is_seen = np.arange(len(embeds)) < len(answered)
    scaler = StandardScaler().fit(embeds)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(embeds), is_seen)
    seen.weight.data = torch.from_numpy(model.coef_ / scaler.scale_).float()
    seen.bias.data.zero_()
    seen.bias.data -= seen(held_out)[:, 0].quantile(1 - FALSE_ANSWERS)


def _some(n: int, most: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(n, generator=generator)[:most]


@torch.no_grad()
def fit_concepts(
    names: dict[int, str],
    image_embeds: np.ndarray,
    seen: SeenEpochs,
    held_out: SeenEpochs,
    encoder: EEGEncoder,
    conditioner: EEGConditioner,
    seed: int = 0,
    prototypes: torch.Tensor | None = None,
) -> ConceptTable:
    """Prototypes and what tells nothing from something, from training pictures and EEG.

    Held-out EEG gives the temperature, which makes the confidence the share of right answers,
    and the threshold, which a tenth of the epochs pass that have no answer.

    Parameters
    ----------
    names : of the labels, which are 0 to n - 1.
    image_embeds : of all pictures, (n_pictures, clip_dim).
    seen, held_out : training and held-out epochs.
    prototypes : (n, clip_dim), which stay as they are; None: of the pictures that were seen, turned
        to the EEG of their concepts.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.from_numpy(np.asarray(image_embeds, np.float32))
    table: ConceptTable = ConceptTable([names[i] for i in range(len(names))], pictures.shape[1])
    device = next(encoder.parameters()).device

    def embed(eeg: torch.Tensor) -> torch.Tensor:
        parts = [conditioner(encoder(part.to(device)))[2].float().cpu() for part in eeg.split(64)]
        return F.normalize(torch.cat(parts), dim=1)

    known = _some(len(seen), TURNED_ON, generator)
    embeds = torch.cat([embed(seen.eeg(part)) for part in known.split(1024)])
    if prototypes is None:
        shown, first = np.unique(seen.image_id.numpy(), return_index=True)
        label = seen.label[torch.from_numpy(first)]
        prototypes = mean_prototypes(pictures[torch.from_numpy(shown)], label, len(names))
        fit_prototypes(prototypes, embeds, seen.label[known])
    table.prototypes.data = prototypes

    chosen = _some(len(held_out), FITTED, generator)
    similarity = embed(held_out.eeg(chosen)) @ prototypes.T
    temperatures = torch.logspace(-2.5, 0, 60)
    losses = [F.cross_entropy(similarity / t, held_out.label[chosen]) for t in temperatures]
    table.register_to_config(temperature=float(temperatures[torch.stack(losses).argmin()]))

    nothing = unseen(seen, generator, UNSEEN)
    without = torch.cat([embed(nothing), embed(electrodes_off(nothing, generator))])
    fit_seen(table.seen, embeds, without, embed(unseen(held_out, generator, FITTED)))
    return table


def write_bundle(
    out: Path, pipeline: EEGToImagePipeline, epoch_spec: dict[str, Any], sampler: Sampler
) -> None:
    """Write what every bundle has, with weights in fp16."""
    pipeline.to("cpu", torch.float16).save_pretrained(out)
    for path in out.glob("*/config.json"):
        # diffusers notes the folder that weights came from, which is nobody's business.
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    text = json.dumps(epoch_spec, indent=2)
    (out / "epoch_spec.json").write_text(text + "\n", encoding="utf-8")
    painter = {
        "num_inference_steps": sampler.num_inference_steps,
        "guidance_scale": sampler.guidance_scale,
    }
    (out / "painter.json").write_text(json.dumps(painter) + "\n", encoding="utf-8")


def save_variant(out: Path, pipeline: EEGToImagePipeline, bundle: Path, sampler: Sampler) -> None:
    """Write a bundle, with whatever else than weights and its card the one it is made of holds."""
    epoch_spec = json.loads((bundle / "epoch_spec.json").read_text(encoding="utf-8"))
    write_bundle(out, pipeline, epoch_spec, sampler)
    for path in bundle.iterdir():
        if path.name == CARD or (out / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, out / path.name)
        else:
            shutil.copy(path, out)


def sampled_from_noise(scheduler: DDPMScheduler) -> DDIMScheduler:
    """DDIM with a base's noise schedule."""
    return DDIMScheduler.from_config(
        scheduler.config,
        clip_sample=False,
        set_alpha_to_one=False,
        # The first of few steps must start from pure noise (Lin et al. 2023, arXiv 2305.08891).
        timestep_spacing="trailing",
    )


def save_bundle(
    out: Path,
    base: Base,
    encoder: EEGEncoder,
    conditioner: EEGConditioner,
    concepts: ConceptTable | None,
    data: PreparedSet,
    held_out: dict[str, SeenEpochs],
    sampler: Sampler,
    adapter: ImageAdapter | None = None,
    scheduler: LCMScheduler | None = None,
) -> None:
    """Write what was fine-tuned as a bundle.

    Parameters
    ----------
    data : the prepared set whose `epoch_spec` the bundle takes over.
    held_out : `val` and `test`, of which the bundle keeps the rows, so that an evaluation on
        the same set takes no trial that training saw.
    adapter : of the image route.
    scheduler : of a base that was distilled; None: DDIM with the base's noise schedule.
    """
    pipeline = EEGToImagePipeline(
        vae=base.vae,
        unet=base.unet,
        scheduler=scheduler or sampled_from_noise(base.scheduler),
        eeg_encoder=encoder,
        conditioner=conditioner,
        concepts=concepts,
        image_adapter=adapter,
    )
    write_bundle(out, pipeline, data.spec["epoch_spec"], sampler)
    rows = {name: part.index for name, part in held_out.items()}
    notes = {"prepared": data.digest(), "honesty": str(data.spec.get("honesty"))}
    save_file(rows, out / HELD_OUT, notes)


def read_held_out(bundle: Path, data: PreparedSet) -> dict[str, torch.Tensor] | None:
    """Rows of a prepared set that a bundle's training did not learn from.

    Returns
    -------
    `val` and `test`, each (n,); None if the bundle was not trained on this very set.
    """
    path = bundle / HELD_OUT
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("prepared") != data.digest():
            return None
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
