"""The stage that gives a bundle its reader: from sets of simulated sessions to what is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.epoch_spec import EpochSpec
from acquisition.stimuli import BACKGROUND_HUES
from app.bundle import read_epoch_spec
from app.pictures import FontMissingError, glyph
from app.prepare import Wanted, prepare_sources
from app.settings import ROOT
from models.errors import TrainingError
from models.pipeline import load_bundle
from models.training.population import Population
from models.training.prepared import PreparedSet
from models.training.scale_reader import population_of, train_reader
from models.training.seen import SeenEpochs

BUNDLE, CLIP = ROOT / "weights" / "scale-model", ROOT / "weights" / "training" / "clip"
SPEC = read_epoch_spec(BUNDLE)
LONG = replace(SPEC, tmin=-0.996, n_times=768, normalisation="none")


def prepare(
    out: Path, sessions: Sequence[tuple[int, int]], spec: EpochSpec = SPEC, **more: object
) -> Path:
    sources = [f"simulated:?subject={subject}&session={session}" for subject, session in sessions]
    prepare_sources(out, sources, Wanted(spec, seconds=480.0, **more))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        glyph("1f408")
    except FontMissingError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("reader")
    prepare(folder / "locked", [(0, 900), (0, 901)], with_images=True)
    prepare(folder / "long", [(0, 902)], LONG)
    prepare(folder / "population", [(1, 0), (2, 0), (3, 0)], LONG)
    kinds = ("sliding", "marker-locked")
    prepare(folder / "held-out", [(0, 903)], replace(SPEC, hop=256), kinds=kinds, with_images=True)
    prepare(folder / "new", [(0, 904)], with_images=True)
    return folder


@pytest.mark.slow
def test_the_reader_reads_and_tells_what_is_seen_in_a_new_session(folder: Path) -> None:
    lines: list[str] = []
    sets = (folder / name for name in ("locked", "long", "held-out"))
    train_reader(BUNDLE, folder / "out", *sets, CLIP, folder / "population", lines.append)
    assert lines[-1].endswith("holds the bundle with its reader.")
    pipeline = load_bundle(folder / "out")
    assert Population.load(folder / "out" / "population.safetensors").mean.shape[0] == 40
    seen = SeenEpochs(PreparedSet(folder / "new"), "marker-locked")
    eeg = seen.eeg(torch.arange(len(seen)))
    reader = pipeline.reader
    # Of three sizes, three places either way, eight hues, grey and white.
    assert tuple(reader.config.slots) == (3, 3, 3, len(BACKGROUND_HUES) + 2)
    # Of the simulated subject a picture appears 2.5 s after the one before, at least.
    assert reader.config.stream_apart == round(2.5 * 250 / 8)
    alone = reader.scores(eeg, is_locked=True).argmax(1)
    # By chance 4 of 160.
    assert (alone == seen.label).sum() > 16
    assert (pipeline.encode(eeg).probabilities.argmax(1) == seen.label).float().mean() > 0.5
    places = np.array([c.split()[5] for c in PreparedSet(folder / "new").captions()])
    # In the order of the alphabet: bottom, middle, top.
    said = reader.words_of(eeg, seen.label)[:, 3:6]
    of_top, of_bottom = (
        said[torch.from_numpy(places[seen.image_id] == name), index].mean()
        for name, index in (("top", 2), ("bottom", 0))
    )
    assert of_top > 1 / 3
    assert of_bottom > 1 / 3


def test_sets_that_do_not_fit_get_their_sentence(folder: Path) -> None:
    spec = SPEC.to_dict()
    with pytest.raises(TrainingError, match="does not hold long epochs in microvolts"):
        population_of(folder / "locked", spec)
    with pytest.raises(TrainingError, match=r"epochs of 1 subject\(s\)"):
        population_of(folder / "long", spec)
