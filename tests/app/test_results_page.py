"""`phosphene results`: parts one after the other, gone on with, and never mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from acquisition.epoch_spec import EpochSpec
from acquisition.simulation_parameters import DIFFICULTIES
from acquisition.stimuli import concepts
from app.errors import ExitCode
from app.results import (
    by_class,
    calibration,
    captions,
    electrodes,
    inputs,
    listening,
    live,
    peers,
    pictures,
)
from app.results.controls import Controlled
from app.results.intervals import finite, unpaired_ratio
from app.results.part import Part, Table
from app.results.stream import Sessions
from models.pipeline import load_bundle
from models.training import caption_painter
from models.training.clip import Words, build_clip, save_clip
from models.training.judge import Judge
from models.training.prepared import PreparedSet, Shards
from models.training.trials import CONDITIONS, Options, Trials
from tests.app.test_cli import run
from tests.app.test_results_peers import PERFECT, WRONG, N, made
from tests.tiny_bundle import TinySizes, make_tiny_bundle
from tests.viewed_set import N_LABELS

DEMO = DIFFICULTIES["demo"].to_dict()
NAMES = [c.name for c in concepts()]
SETS = {"train": 0, "held": 1, "test": 100, "others": 101}


def source(session: int, subject: int = 0, **notes: Any) -> dict[str, Any]:
    return {"subject": subject, "session": session, "seconds": 30.0, **DEMO, **notes}


def make_set(folder: Path, *sources: dict[str, Any], **spec: Any) -> Path:
    """A set of simulated sessions with captions, the names of the concepts."""
    made(folder, sources=list(sources), **spec)
    told = [NAMES[number % N_LABELS] for number in range(N)]
    (folder / "pictures.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets, a bundle whose U-Net reads the CLIP's tokens, CLIP and judge; small, untrained."""
    folder = tmp_path_factory.mktemp("files")
    for name, session in SETS.items():
        make_set(folder / name, source(session))
    make_tiny_bundle(folder / "bundle", TinySizes(cross=128))
    torch.manual_seed(0)
    words = Words(sorted(NAMES[:N_LABELS]))
    save_clip(build_clip(words, pixels=32), words, folder / "clip")
    Judge(width=8).save_pretrained(folder / "judge")
    return folder


def command(files: Path, out: Path, **changed: object) -> list[str]:
    """The command line, with other values for some flags."""
    values: dict[str, object] = {
        "training": files / "train",
        "validation": files / "held",
        "test": files / "test",
        "classifier": f"judge:{files / 'judge'}",
        "clip": files / "clip",
        "session": 200,
        "trials": 7,
        "limit": 8,
        "device": "cpu",
        **{name.replace("_", "-"): value for name, value in changed.items() if name != "bundle"},
    }
    flags = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return ["results", str(changed.get("bundle", files / "bundle")), str(out), *flags]


def make_ablation(folder: Path, **changed: object) -> Path:
    """What `phosphene ablate` writes, of two variants."""
    high = {"EEG": [0.5, 0.4, 0.6]} | {name: [0.1, 0.0, 0.2] for name in CONDITIONS[1:]}
    low = {name: [0.1, 0.0, 0.2] for name in CONDITIONS}
    of_all = {"chance": 0.1, "seeds": 3}
    both = {"painted": high, "nearest concept": high}
    less: dict[str, object] = {"painted": [-0.4, -0.5, -0.3]}
    rows: list[dict[str, object]] = [
        {"variant": "full", "scores": both, "less_first": {}, "paper": 45.8},
        {
            "variant": "mask ratio 0.1",
            "scores": {"painted": low},
            "less_first": less,
            "paper": None,
        },
    ]
    told = {
        "heading": "simulated EEG; a table.",
        "parameters": [DEMO["parameters"]],
        "rows": [row | of_all for row in rows],
    }
    folder.mkdir()
    (folder / "ablation.json").write_text(json.dumps(told | changed))
    return folder


def zero_shot(bundle: Path, test: Path) -> dict[str, object]:
    return {"zero_shot_bundle": bundle, "zero_shot_test": test}


def observe(sessions: Sessions, spec: EpochSpec) -> Controlled:
    """Stands for the ideal observer, which takes minutes to build; right in half."""
    assert (sessions.numbers, sessions.n_trials, len(spec.ch_names)) == ([100], 10, 32)
    label = np.arange(20) % N_LABELS
    said = np.where(np.arange(20) < 10, label, -1)
    return Controlled.of((said, label[::-1], label[:1]), label, np.arange(20))


def part_of(title: str) -> Part:
    return Part(title, [Table(title, ["a"], [["1"]])], {"a": 1})


Measured = dict[str, Mock]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Parts that have tests of their own; what they are called with must fit."""
    found = {}
    for name, module in (
        ("live", live),
        ("listening", listening),
        ("peers", peers),
        ("electrodes", electrodes),
        ("calibration", calibration),
    ):
        found[name] = create_autospec(module.measure, return_value=part_of(f"Title of {name}"))
        monkeypatch.setattr(module, "measure", found[name])
    found["training"] = create_autospec(peers.train_peers, return_value={"perfect": PERFECT})
    monkeypatch.setattr(inputs, "train_peers", found["training"])
    monkeypatch.setattr(pictures, "observe", observe)
    # The untrained one names concepts that the small sets do not hold.
    monkeypatch.setattr(by_class, "our_decoder", lambda *_: WRONG)
    return found


def test_all_parts_are_measured_once_and_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: Path,
    measured: Measured,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    words = command(files, out, test_also=f"other subjects={files / 'others'}", eegnet_steps=3)
    measured["live"].side_effect = KeyboardInterrupt
    assert run(monkeypatch, *words) == ExitCode.INTERRUPTED
    assert "The same command goes on" in capsys.readouterr().err
    page = (out / "results.md").read_text()
    assert "## Generated pictures" in page
    assert (
        "These parts: live, listening, peers, by-class, electrodes, calibration, zero-shot, "
        "ablation." in page
    )

    # As if stopped in the middle of another part, too.
    (out / "by-class").mkdir()
    measured["live"].side_effect = None
    with monkeypatch.context() as patched:
        patched.setattr(pictures, "evaluate_painter", Mock(side_effect=AssertionError))
        assert run(monkeypatch, *words) == 0, capsys.readouterr().err
    page = (out / "results.md").read_text()
    assert capsys.readouterr().out.strip() == page.strip()
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert titles == [
        "Generated pictures",
        "In one step and in more",
        "Title of live",
        "Title of listening",
        "Title of peers",
        "Beside a classifier and a painter of classes",
        "Title of electrodes",
        "Title of calibration",
        "Not measured",
        "How it was made",
    ]
    assert "These parts: zero-shot, ablation." in page
    assert "### Steps of the U-Net for a picture" in page
    with Image.open(out / "results-steps-demo.jpg") as drawn:
        assert drawn.width == 64 + 10 * 96
    assert page.startswith("# Results, difficulty `demo`\n\nAll EEG is simulated")
    assert f"phosphene results {files / 'bundle'}" in page
    assert f"| subject parameters | version 3, digest {DEMO['parameters']} |" in page
    assert "| simulated anew | subject 0, sessions 200, 7 pictures each |" in page
    assert [mock.call_count for mock in measured.values()] == [2, 1, 1, 1, 1, 1]
    assert list(measured["peers"].call_args.args[2]) == ["new sessions", "other subjects"]
    assert measured["training"].call_args.args[3].steps == 3
    for path in out.glob("*.json"):
        if path.name != "identity.json":
            part = Part.from_dict(json.loads(path.read_text()))
            assert {len(row) == len(t.header) for t in part.tables for row in t.rows} == {True}

    for mock in measured.values():
        mock.side_effect = AssertionError
    assert run(monkeypatch, *words) == 0
    assert (out / "results.md").read_text() == page
    words[words.index("--limit") + 1] = "9"
    assert run(monkeypatch, *words) == ExitCode.TRAINING
    assert "was begun with painted trials='8' (now '9')" in capsys.readouterr().err


def test_generated_pictures_stand_beside_the_observer_and_captions(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: Path,
    measured: Measured,
    tmp_path: Path,
) -> None:
    shutil.copytree(files / "bundle", tmp_path / "painter")
    out = tmp_path / "out"
    words = command(files, out, parts="evaluation", painter=tmp_path / "painter")
    assert run(monkeypatch, *words) == 0, capsys.readouterr().err
    saved = json.loads((out / "evaluation.json").read_text())
    values = saved["values"]
    scores, report = values["scores"], json.loads((out / "evaluation/scores.json").read_text())
    assert {name: m["scores"] for name, m in report["metrics"].items() if "scores" in m} == scores
    assert set(scores["n_way_label_top_1"]) >= {"EEG", "shuffled EEG", "noise EEG", "zero EEG"}
    ideal = values["ideal observer"]
    assert (ideal["EEG"]["value"], ideal["EEG"]["n"]) == (0.5, 20)
    share = ideal["n_way_label_top_1 of the observer's"]["value"]
    assert share == scores["n_way_label_top_1"]["EEG"]["value"] / 0.5
    assert values["captions"]["captions"]["n"] == 8
    _, beside, of_captions = saved["tables"]
    assert [row[-1].split(":")[0] for row in beside["rows"]] == ["at least 0.8", "–", "–"]
    assert of_captions["rows"][0][0] == "`painter`"
    assert "at least 97%" in of_captions["rows"][0][-1]
    assert not any(mock.called for mock in measured.values())


def keep_labels(folder: Path, kept: list[int]) -> Path:
    """Leave a prepared set the epochs of some labels."""
    path = folder / "epochs-00000.safetensors"
    epochs = load_file(path)
    rows = np.isin(epochs["label"], kept)
    save_file({name: np.ascontiguousarray(x[rows]) for name, x in epochs.items()}, path)
    return folder


def show_all(folder: Path) -> None:
    """Let the epochs of a prepared set be of all concepts."""
    path = folder / "epochs-00000.safetensors"
    epochs = load_file(path)
    save_file({**epochs, "label": np.arange(len(epochs["label"])) % len(NAMES)}, path)


def test_left_out_concepts_are_named_and_painted_by_a_second_bundle(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: Path,
    measured: Measured,
    tmp_path: Path,
) -> None:
    bundle = make_tiny_bundle(tmp_path / "second", TinySizes(cross=128))
    test = keep_labels(make_set(tmp_path / "left-out", source(102)), [1, 3])
    words = command(
        files, tmp_path / "out", zero_shot_bundle=bundle, zero_shot_test=test, parts="zero-shot"
    )
    assert run(monkeypatch, *words) == 0, capsys.readouterr().err
    saved = json.loads((tmp_path / "out" / "zero-shot.json").read_text())
    titles = [
        "learnt concepts: nearest of 40",
        "left out: nearest of 40",
        "left out: nearest of the 2",
        "left out, painted: 2-way top-1",
        "left out, painted: two-way identification, CLIP similarity",
    ]
    rows = saved["tables"][0]["rows"]
    assert [(row[0], row[-1]) for row in rows] == list(
        zip(titles, ["2.5%", "2.5%", "50.0%", "50.0%", "50.0%"], strict=True)
    )
    assert f"one of {NAMES[1]}, {NAMES[3]} is seen" in saved["tables"][0]["notes"][0]
    values = saved["values"]
    assert values[titles[0]]["EEG"]["n"] == N - 2 * N // N_LABELS
    table = load_bundle(bundle).concepts
    painted = Shards(tmp_path / "out/zero-shot/decoded/EEG", "pictures")
    said = table(painted["clip_embeds"].float()).detach().numpy()
    trials = Trials.choose(PreparedSet(test), Options(1, 1.0, limit=8))
    for title, nearest in (
        (titles[1], said.argmax(1)),
        (titles[2], np.where(said[:, 1] > said[:, 3], 1, 3)),
    ):
        assert values[title]["EEG"]["value"] == (nearest == trials.label).mean()
    page = (tmp_path / "out/results.md").read_text()
    assert "| bundle without some concepts | `second`, " in page
    assert "| test set of these | `left-out`, " in page


def test_ablations_stand_on_the_page_as_they_were_found(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: Path,
    measured: Measured,
    tmp_path: Path,
) -> None:
    table = make_ablation(tmp_path / "table")
    words = command(files, tmp_path / "out", ablation=table, parts="ablation")
    assert run(monkeypatch, *words) == 0, capsys.readouterr().err
    page = (tmp_path / "out/results.md").read_text()
    low, high = "10.0% (0.0% to 20.0%)", "50.0% (40.0% to 60.0%)"
    of_full, of_other = f"{high} | {low} | {low} | {low}", " | ".join([low] * 4)
    assert page.count(f"| full | {of_full} | 10.0% | – | 3 | 45.8 % |") == 1
    less = "-40.0% (-50.0% to -30.0%)"
    assert page.count(f"| mask ratio 0.1 | {of_other} | 10.0% | {less} | 3 | – |") == 1
    assert "| chance | less full | seeds | paper |" in page
    # Of the embedding there is no figure of the paper's, and of the other variant none at all.
    assert page.count(f"| full | {of_full} | 10.0% | – | 3 | – |") == 1
    assert "simulated EEG; a table." in page
    assert "| ablations | `table`, " in page
    make_ablation(tmp_path / "another", heading="simulated EEG; another table.")
    words = command(files, tmp_path / "out", ablation=tmp_path / "another", parts="ablation")
    assert run(monkeypatch, *words) == ExitCode.TRAINING
    assert "was begun with ablations=" in capsys.readouterr().err


def test_captions_are_read_beside_shuffled_ones_and_none(
    monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    """With a U-Net that paints what it is told, and a judge that reads it."""
    test, options = PreparedSet(files / "test"), Options(1, 1.0, split="all", batch=7)
    words = sorted(NAMES[:N_LABELS])

    def encode(_: object, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, :1, None].float().expand(-1, 1, 128)

    def paint(_unet: object, _vae: object, context: torch.Tensor, *_: object) -> np.ndarray:
        told = context[:, 0, 0].byte().numpy()
        return np.broadcast_to(told[:, None, None, None], (len(told), 4, 4, 3)).copy()

    def judge(seen: torch.Tensor) -> torch.Tensor:
        # Token 0 is no caption's.
        names = [words[max(0, round(float(x)) - 1)] for x in 255 * seen[:, 0, 0, 0]]
        return torch.eye(40)[[NAMES.index(name) for name in names]]

    monkeypatch.setattr(caption_painter, "encode_captions", encode)
    monkeypatch.setattr(caption_painter, "sample", paint)
    look: Callable[..., Any] = captions.measure_captions
    table, values = look(
        files / "bundle", files / "clip", judge, test, options, torch.device("cpu")
    )  # fmt: skip
    n = len(Trials.choose(test, options).images)
    assert (values["captions"]["value"], values["captions"]["n"]) == (1, n)
    assert values["shuffled"]["value"] < 0.5
    assert values["no caption"]["value"] == 1 / N_LABELS
    assert table.rows[0][-1] == "at least 97%: met"


def test_wrong_input_gets_its_sentence_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: Path, tmp_path: Path
) -> None:
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    other = make_set(tmp_path / "other", source(100, parameters="0"))
    real = make_set(tmp_path / "real")
    every = make_set(tmp_path / "every", source(103))
    show_all(every)
    broken = make_ablation(tmp_path / "broken", rows=[{"variant": "full"}])
    real_eeg = make_ablation(tmp_path / "real-eeg", parameters=[])
    sides = make_set(tmp_path / "sides", source(100), concepts=["left", "right"])
    cases: list[tuple[dict[str, object], ExitCode, str]] = [
        ({"training": nowhere}, ExitCode.TRAINING, "is not a prepared set"),
        ({"bundle": nowhere}, ExitCode.BUNDLE, "There is no bundle at"),
        ({"classifier": "vit:some"}, ExitCode.USAGE, "needs the scale model's judge"),
        ({"classifier": f"judge:{nowhere}"}, ExitCode.TRAINING, "cannot be loaded"),
        ({"clip": nowhere}, ExitCode.USAGE, "There is no CLIP at"),
        ({"parts": "live,lve"}, ExitCode.USAGE, "--parts expects evaluation, steps, live"),
        ({"parts": "by-class"}, ExitCode.USAGE, "Give --parts both of them"),
        ({"difficulty": "easy"}, ExitCode.SOURCE, "There is no difficulty 'easy'"),
        ({"difficulty": "literature"}, ExitCode.TRAINING, "not simulated at difficulty 'liter"),
        ({"test": other}, ExitCode.TRAINING, "was not simulated at difficulty 'demo'"),
        ({"test": real}, ExitCode.TRAINING, "was not simulated at difficulty 'demo'"),
        ({"test": sides}, ExitCode.TRAINING, "others than the labels of"),
        ({"test": files / "train"}, ExitCode.TRAINING, "Session 0 of subject 0 is in"),
        ({"session": 1}, ExitCode.TRAINING, "Session 1 of subject 0 is in"),
        ({"new_subject": 0}, ExitCode.TRAINING, "and so is nobody new"),
        ({"test_also": "other"}, ExitCode.USAGE, "--test-also expects NAME=FOLDER"),
        ({"test_also": f"new sessions={other}"}, ExitCode.USAGE, "is what --test is called"),
        ({"parts": "zero-shot"}, ExitCode.USAGE, "measures a second bundle. Give it with"),
        ({"parts": "ablation"}, ExitCode.USAGE, "shows what `phosphene ablate` found"),
        ({"ablation": nowhere}, ExitCode.TRAINING, "FileNotFoundError). Make it with"),
        ({"ablation": broken}, ExitCode.TRAINING, "cannot be read as a table of ablations"),
        ({"ablation": real_eeg}, ExitCode.TRAINING, "not measured on EEG of difficulty 'demo'"),
        ({"zero_shot_test": other}, ExitCode.USAGE, "go together. Give both, or neither"),
        (zero_shot(nowhere, files / "others"), ExitCode.BUNDLE, "There is no bundle at"),
        (zero_shot(files / "bundle", other), ExitCode.TRAINING, "was not simulated at difficulty"),
        (zero_shot(files / "bundle", every), ExitCode.TRAINING, "shows all 40 concepts, so none"),
    ]
    for changed, code, sentence in cases:
        assert run(monkeypatch, *command(files, out, **changed)) == code, changed
        assert sentence in capsys.readouterr().err
        assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("")
    assert run(monkeypatch, *command(files, out)) == ExitCode.OUTPUT
    assert "holds something already" in capsys.readouterr().err


def test_a_clip_that_the_painter_does_not_read_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: Path,
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    words = command(files, tmp_path / "out", parts="evaluation", painter=tiny_bundle)
    assert run(monkeypatch, *words) == ExitCode.TRAINING
    assert "CLIP's text tokens have 128 values, and the U-Net of" in capsys.readouterr().err
    words = command(files, tmp_path / "new", parts="evaluation", painter=tmp_path)
    assert run(monkeypatch, *words) == ExitCode.TRAINING
    assert "Give a folder with unet, vae and scheduler" in capsys.readouterr().err


def test_pages_are_joined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("demo", "literature"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.md").write_text(f"# {name}\n")
    to = tmp_path / "page.md"
    folders = [str(tmp_path / name) for name in ("demo", "literature")]
    assert run(monkeypatch, "results-page", *folders, "--to", str(to)) == 0
    assert to.read_text() == "# demo\n\n# literature\n"
    assert run(monkeypatch, "results-page", str(tmp_path), "--to", str(to)) == ExitCode.OUTPUT
    assert "holds no results.md" in capsys.readouterr().err


def test_a_ratio_of_other_pictures_draws_them_apart() -> None:
    half = np.tile([0.0, 1.0], 50)
    score = unpaired_ratio(half, np.arange(100), np.ones(30), np.arange(30))
    assert score.value == 0.5
    assert score.low is not None
    assert score.high is not None
    assert 0.38 < score.low < 0.44
    assert 0.56 < score.high < 0.62
    wide = unpaired_ratio(half, np.arange(100), half[:30], np.arange(30))
    assert wide.low is not None
    assert wide.high is not None
    assert wide.high - wide.low > 2 * (score.high - score.low)
    rare = np.eye(40)[0]
    assert finite(unpaired_ratio(rare, np.arange(40), rare, np.arange(40)))["high"] is None
