"""Concepts, compositions and what they look like."""

from __future__ import annotations

import colorsys
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acquisition.errors import SourceError
from acquisition.stimuli import (
    BACKGROUND_HUES,
    FEATURE_NAMES,
    Composition,
    concepts,
    features,
    random_composition,
    read_stimuli,
)


@pytest.fixture
def composition() -> Composition:
    return random_composition(np.random.default_rng(0), 3)


def test_there_are_forty_concepts_each_with_its_own_class_name_and_character() -> None:
    assert len(concepts()) == 40
    for attribute in ("wnid", "name", "character"):
        assert len({getattr(c, attribute) for c in concepts()}) == 40
    assert all(c.wnid.startswith("n") and len(c.wnid) == 9 for c in concepts())


def test_imagenets_indices_are_in_the_order_of_the_wordnet_ids() -> None:
    indices = [c.imagenet_index for c in sorted(concepts(), key=lambda c: c.wnid)]
    assert indices == sorted(set(indices))
    assert min(indices) >= 0
    assert max(indices) < 1000


def test_substitutions_are_named() -> None:
    notes = {c.name: c.note for c in concepts()}
    for name in ("car", "teapot", "golf", "basket", "postbox", "rocket", "shirt"):
        assert "substitution" in notes[name]


def test_the_same_seed_draws_the_same_composition() -> None:
    a = random_composition(np.random.default_rng(5), 1)
    assert a == random_composition(np.random.default_rng(5), 1)
    assert a != random_composition(np.random.default_rng(6), 1)


def test_caption_names_concept_colour_size_and_place(composition: Composition) -> None:
    c = replace(composition, hue=BACKGROUND_HUES["blue"], saturation=0.8, size=0.85, x=0.3, y=0.7)
    assert c.caption == "a large horse on the bottom left of a blue background"
    assert replace(c, saturation=0.05, value=0.9).colour_name == "white"


def test_each_side_of_the_picture_moves_its_own_features(composition: Composition) -> None:
    base = features(composition)
    assert base.shape == (len(FEATURE_NAMES),)

    def moved(**change: object) -> set[str]:
        difference = features(replace(composition, **change)) - base  # type: ignore[arg-type]
        return {n for n, d in zip(FEATURE_NAMES, difference, strict=True) if abs(d) > 1e-9}

    assert moved(x=0.1) == {"x"}
    assert moved(size=0.5) == {"size"}
    assert moved(hue=(composition.hue + 0.5) % 1) <= {
        "background_luminance",
        "background_red_green",
        "background_blue_yellow",
    }
    assert moved(is_mirrored=not composition.is_mirrored) <= {"axis_cos", "axis_sin"}
    assert moved(label=7) >= {"object_luminance", "aspect", "fill"}


def test_features_have_mean_nothing_and_variance_one() -> None:
    rng = np.random.default_rng(3)
    drawn = np.array([features(random_composition(rng, i % 40)) for i in range(4000)])
    assert np.abs(drawn.mean(axis=0)).max() < 0.1
    assert np.abs(drawn.std(axis=0) - 1).max() < 0.1


def test_background_features_follow_the_colour(composition: Composition) -> None:
    place = FEATURE_NAMES.index("background_red_green")

    def red_green(hue: float, saturation: float = 1.0) -> float:
        look = replace(composition, hue=hue, saturation=saturation, value=1.0)
        return float(features(look)[place])

    grey, red, blue = red_green(0.0, 0.0), red_green(0.0), red_green(BACKGROUND_HUES["blue"])
    rgb = colorsys.hsv_to_rgb(BACKGROUND_HUES["blue"], 1.0, 1.0)
    # In shares of pure red's distance from grey.
    assert red > grey
    assert (blue - grey) / (red - grey) == pytest.approx(rgb[0] - rgb[1])


def test_stimuli_are_read_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {f"{c.name} 1": random_composition(rng, i) for i, c in enumerate(concepts())}
    path = tmp_path / "stimuli.json"

    def write(names: list[str]) -> None:
        path.write_text(json.dumps({"stimuli": {name: made[name].to_dict() for name in names}}))

    write(list(made))
    assert read_stimuli(tmp_path) == made
    write([name for name in made if name != "cat 1"])
    with pytest.raises(SourceError, match=r"has no picture of cat\. Paint them anew"):
        read_stimuli(tmp_path)
    strange = [made["cat 1"].to_dict() | change for change in ({"label": 99}, {"hue": "red"})]
    damaged = [json.dumps({"stimuli": {"cat 1": values}}) for values in strange]
    for text in ("", "[]", '{"stimuli": {"cat": {"label": 1}}}', *damaged):
        path.write_text(text)
        with pytest.raises(SourceError, match="does not say what its pictures show"):
            read_stimuli(tmp_path)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        read_stimuli(tmp_path)
