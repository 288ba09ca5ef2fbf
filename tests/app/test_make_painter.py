"""A painter of one's own pictures, by the published parts in small, and a person read with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from app.bundle import read_epoch_spec
from app.calibrate import calibrate
from app.errors import ExitCode
from app.make_painter import UNTRAINED
from app.personal import bundle_says
from app.picture_set import find_pictures
from app.session_epochs import read_sessions
from models.keyframes import KeyframePainter
from models.pipeline import load_bundle
from models.training.scorers import open_encoder
from tests.command import run
from tests.models.training.made_sets import make_base, make_clip
from tests.models.training.test_image_route import add_text_encoder, make_published
from tests.sessions import write_session
from tests.tiny_bundle import make_tiny_bundle

Capture = pytest.CaptureFixture[str]
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
COLOURS = {"cherry": (200, 20, 40), "sea": (20, 60, 200), "wood": (120, 80, 30)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and Stable Diffusion, IP-Adapter, CLIP and an encoder's bundle in small."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / "pictures" / name).mkdir(parents=True)
        for k in range(2):
            noise = rng.integers(-20, 20, (60, 80, 3)) + np.array(colour)
            picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            picture.save(folder / "pictures" / name / f"{k}.png")
    # Another file of the same stem.
    picture.save(folder / "pictures" / "wood" / "1.jpg")
    make_base(folder / "base")
    add_text_encoder(folder / "base")
    make_published(folder / "ip", folder / "base")
    make_clip(folder / "clip")
    make_tiny_bundle(folder / "eeg")
    return folder


def made(parts: Path, out: Path, **other: object) -> list[object]:
    given = {"base": "base", "adapter": "ip", "clip": "clip", "encoder": "eeg"}
    options = [f"--{name}={other.get(name, parts / place)}" for name, place in given.items()]
    pictures = other.get("pictures", parts / "pictures")
    return ["make-painter", pictures, out, *options, "--steps=2", "--guidance=3"]


@pytest.fixture(scope="module")
def painter(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("painters") / "mine"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(monkeypatch, *made(parts, out)) == 0
    return out


def test_it_knows_the_pictures_and_nobody(parts: Path, painter: Path) -> None:
    pipeline = load_bundle(painter)
    assert pipeline.route == "image"
    assert pipeline.concepts.config.names == list(COLOURS)
    clip = open_encoder(str(parts / "clip"), torch.device("cpu"))
    shown = find_pictures("", painter)
    assert [p.class_name for p in shown] == ["cherry"] * 2 + ["sea"] * 2 + ["wood"] * 3
    assert len({p.name for p in shown}) == 7
    images = np.array([np.asarray(Image.open(p.path)) for p in shown])
    assert images.shape == (7, 512, 512, 3)
    with torch.no_grad():
        embeds = clip(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    mean = F.normalize(F.normalize(embeds, dim=1)[:2].mean(0), dim=0)
    # JPEG and half precision differ a little.
    assert float(mean @ pipeline.concepts.prototypes[0].float()) > 0.999
    assert pipeline.image_adapter.config.embed_norm == pytest.approx(
        float(embeds.norm(dim=1).mean()), rel=0.01
    )
    eeg = torch.randn(20, 32, 256)
    for is_locked in (False, True):
        encoded = pipeline.encode(eeg, is_locked)
        assert not encoded.is_sure.any()
        torch.testing.assert_close(encoded.probabilities, torch.full((20, 3), 1 / 3))
    assert bundle_says(painter) == UNTRAINED
    assert json.loads((painter / "painter.json").read_text()) == {
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
    }


def test_a_person_is_read_and_shares_the_painter(painter: Path, tmp_path: Path) -> None:
    names = tuple(COLOURS)
    known = {"n_classes": 3, "class_names": names, "trials_per_class": 24, "effect_uv": 12.0}
    session = write_session(tmp_path / "P01" / "s.xdf", n_runs=3, **known)  # type: ignore[arg-type]
    report = calibrate([session], painter, session.parent)
    assert report["verdict"] == "decodes"
    bundle = Path(report["bundle"])
    assert (bundle / WEIGHTS).stat().st_ino == (painter / WEIGHTS).stat().st_ino
    assert "nobody" not in bundle_says(bundle)

    other = write_session(tmp_path / "P01b" / "s.xdf", seed=5, **known)  # type: ignore[arg-type]
    found = read_sessions([other], read_epoch_spec(painter), names)
    pipeline = load_bundle(bundle)
    encoded = pipeline.encode(torch.from_numpy(found.locked))
    named = encoded.probabilities.argmax(1).numpy()
    assert (named == found.label).mean() > 0.8
    assert encoded.is_sure.float().mean() > 0.5
    # What is named is painted: as the adapter paints the class's pictures.
    wanted = pipeline.image_adapter(pipeline.concepts.prototypes.float())
    torch.testing.assert_close(encoded.context.float(), wanted[named], atol=2e-2, rtol=2e-2)
    assert not encoded.time_embedding.any()
    # Sliding windows are read, too, by their own means.
    windows = found.windows
    own = windows.trial >= 0
    said = pipeline.encode(torch.from_numpy(windows.eeg[own]), False).probabilities.argmax(1)
    right = found.label[np.searchsorted(found.trial, windows.trial[own])]
    assert (said.numpy() == right).mean() > 0.5

    frames = KeyframePainter.from_bundle(bundle, device="cpu")
    pictures = {
        int(k): np.asarray(frames.paint(found.locked[np.flatnonzero(named == k)[0]])[1].rgb)
        for k in range(3)
    }
    assert not np.array_equal(pictures[0], pictures[1])


def test_what_cannot_be_made_is_said_in_a_sentence(
    parts: Path, painter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "one" / "cherry").mkdir(parents=True)
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "b").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "bad" / "a" / "a.png")
    (tmp_path / "bad" / "b" / "b.png").write_bytes(b"none")
    cases = {
        "no folder of pictures": {"pictures": tmp_path / "none"},
        "at least two": {"pictures": tmp_path / "one"},
        r"b.png cannot be read": {"pictures": tmp_path / "bad"},
        "Give --adapter": {"adapter": tmp_path / "none"},
        "Give --base": {"base": tmp_path / "none"},
        "There is no bundle": {"encoder": tmp_path / "none"},
        "Give the folder of a whole bundle": {"encoder": tmp_path / "bad"},
    }
    for told, other in cases.items():
        code = run(monkeypatch, *made(parts, tmp_path / "out", **other))
        error = capsys.readouterr().err
        assert code not in (0, ExitCode.FAILURE), error
        assert told in error
        assert len(error.strip().splitlines()) == 1
    assert run(monkeypatch, *made(parts, painter)) != 0
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
