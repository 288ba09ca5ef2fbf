r"""Real EEG, all the way to a picture: fine-tune, paint what was held out, and score it.

    python -m app.real_case gratings MUSE_LSL_DATA OUT
    python -m app.real_case faces MUSE_LSL_DATA OUT

One command from recordings to a report. For each fold, LDA on the other folds chooses the
epochs' rate and normalisation; the encoder is pre-trained by masked signal modelling on the
*other* experiments of the same headset, aligned with CLIP on epochs drawn from the Gaussian
model of the training trials, fine-tuned with L_SD + L_clip and a contrast on both, and
paints the test trials. The pictures, and nothing else, are read by `app.grating_reader` or
`app.face_house_reader`. All of it is done with several seeds, and again with labels that
were permuted. What is finished is kept in OUT and not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from app.drawn_model import choose_guidance, read_mixtures, train_drawn_model
from app.errors import sentence
from app.muse import CASES, PAINTER_SPECS, SPECS, Case, prepare_unlabelled
from app.real_fold import decode_fold
from app.real_lda import Peer, keep_lda
from app.real_report import Painted, write_report
from app.real_trials import load_trials, permute_labels
from models.training.config import PretrainConfig
from models.training.pretrain import pretrain

N_SEEDS, N_PERMUTED = 3, 1


def pretrain_encoder(case: Case, spec: str, data: Path, out: Path, steps: float) -> Path:
    """Masked signal modelling on the other experiments' windows by a specification, once.

    Returns
    -------
    folder of the stage.
    """
    others = (*(c.folder for c in CASES.values() if c is not case), "P300")
    name = f"{SPECS[spec].sfreq:g}-{SPECS[spec].normalisation}"
    unlabelled = prepare_unlabelled(data, others, SPECS[spec], out / f"unlabelled-{name}")
    n, stage = max(2, round(1500 * steps)), out / f"pretrain-{name}"
    lessons = PretrainConfig(steps=n, batch=128, lr=1e-3, warmup=n // 10, preset="headset")
    pretrain(unlabelled, stage, lessons)
    return stage


def run(
    name: str,
    data: Path,
    out: Path,
    steps: float = 1.0,
    n_seeds: int = N_SEEDS,
    n_permuted: int = N_PERMUTED,
) -> None:
    """Do what is not done yet and write the report to `out / name / "report"`.

    Parameters
    ----------
    steps : factor on the length of all stages.
    n_seeds : how often all is learnt and painted.
    n_permuted : how often all is learnt and painted again with permuted labels.
    """
    case, here = CASES[name], out / name
    trials = load_trials(case, data, here)
    models = train_drawn_model(out / "model", steps)
    mixtures = read_mixtures(out / "mixtures.json", *models)
    guidance = choose_guidance(mixtures)

    def paint_all(folder: str, label: np.ndarray, peer: Peer, seed: int) -> Painted:
        parts = []
        for fold, spec in enumerate(peer.painter_specs()):
            encoder = pretrain_encoder(case, spec, data, here, steps)
            images = decode_fold(
                here / folder / f"fold-{fold}",
                case,
                trials,
                spec,
                label,
                fold,
                encoder,
                models,
                guidance,
                steps,
                seed,
            )
            parts.append(images)
        return Painted.of(case, label, trials.fold, parts)

    peer = keep_lda(here / "lda.safetensors", case, trials, trials.label)
    painted = [paint_all(f"seed-{seed}", trials.label, peer, seed) for seed in range(n_seeds)]
    permuted = []
    for number in range(n_permuted):
        label = permute_labels(trials, np.random.default_rng([1, number]))
        kept = here / f"permuted-{number}" / "lda.safetensors"
        chooser = keep_lda(kept, case, trials, label, tuple(PAINTER_SPECS))
        permuted.append(paint_all(f"permuted-{number}", label, chooser, number))
    write_report(here / "report", case, trials, peer, painted, permuted, mixtures, guidance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("data", type=Path, help="muse-lsl's folder of data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=float, default=1.0, help="factor on all stages' lengths")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="how often all is learnt")
    parser.add_argument(
        "--permuted", type=int, default=N_PERMUTED, help="how often with permuted labels"
    )
    a = parser.parse_args()
    torch.set_num_threads(1)
    try:
        run(a.case, a.data, a.out, a.steps, a.seeds, a.permuted)
    except Exception as error:
        raise SystemExit(sentence(error)) from error


if __name__ == "__main__":
    main()
