"""Painting by class: the mean conditioning of a class, painted once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import PreparedSetError
from models.pipeline import EEGToImagePipeline, fixed_noise, load_bundle
from models.training.by_class import ClassContexts, class_contexts, paint_by_class
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from models.training.trials import Options
from tests.viewed_set import N_LABELS, make_viewed_set

OPTIONS = Options(steps=2, guidance=1.5, batch=2, samples=2)


@pytest.fixture
def seen(tmp_path: Path) -> SeenEpochs:
    return SeenEpochs(PreparedSet(make_viewed_set(tmp_path / "set", 12)), "marker-locked")


@pytest.fixture
def pipeline(tiny_bundle: Path) -> EEGToImagePipeline:
    return load_bundle(tiny_bundle)


def test_the_conditioning_of_a_class_is_the_mean_of_its_epochs(
    pipeline: EEGToImagePipeline, seen: SeenEpochs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.by_class.BATCH", 5)
    found = class_contexts(pipeline, seen)
    for label in range(N_LABELS):
        places = (seen.label == label).nonzero()[:, 0]
        context, time_embedding, _ = pipeline.encode(seen.eeg(places))[:3]
        torch.testing.assert_close(found.context[label].float(), context.mean(0))
        torch.testing.assert_close(found.time_embedding[label].float(), time_embedding.mean(0))


def test_a_class_without_epochs_is_told(
    pipeline: EEGToImagePipeline, seen: SeenEpochs, tmp_path: Path
) -> None:
    others = seen.part((seen.label != 2).nonzero()[:, 0])
    with pytest.raises(PreparedSetError, match="hold none of label 2"):
        class_contexts(pipeline, others)
    contexts = class_contexts(pipeline, seen)
    with pytest.raises(PreparedSetError, match="taken for label 7"):
        paint_by_class(pipeline, np.array([0, 7]), contexts, tmp_path / "painted", OPTIONS)


def test_every_class_is_painted_once_a_sample_as_live_use_would(
    pipeline: EEGToImagePipeline, seen: SeenEpochs, tmp_path: Path
) -> None:
    contexts = class_contexts(pipeline, seen)
    labels = np.array([3, 0, 3, 4, 0])
    shards, rows = paint_by_class(pipeline, labels, contexts, tmp_path / "painted", OPTIONS)
    assert len(shards) == 3 * OPTIONS.samples
    assert rows.tolist() == [[1, 0, 1, 2, 0], [4, 3, 4, 5, 3]]
    # An encoder that said just this would be painted so.
    noise, generator = fixed_noise(pipeline, OPTIONS.seed + 1)
    one = ClassContexts(contexts.context[4:5].float(), contexts.time_embedding[4:5].float())
    latents = pipeline.denoise(one.context, one.time_embedding, noise, 2, 1.5, [generator])
    wanted = (pipeline.decode(latents)[0] * 255).round().permute(1, 2, 0)
    painted = shards.rows("images", torch.tensor([5]))[0].float()
    assert (painted - wanted).abs().max() <= 1
    assert (shards.rows("images", torch.tensor([2]))[0].float() - wanted).abs().max() > 1
