import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.drawn_model import choose_guidance
from app.errors import SettingsError
from app.muse import CASES, PAINTER_SPECS, SPEC, SPECS, windows
from app.real_fold import without_brain, write_fold
from app.real_lda import Peer, keep_lda, lda_of
from app.real_report import Painted, answer, is_shown, measure, questions, write_report
from app.real_trials import Recorded, folds_of, load_trials, permute_labels
from models.training.gaussian_epochs import GaussianEpochs
from models.training.prepared import PreparedSet

ROOT = Path(__file__).parents[2]
MUSE = ROOT.parent / "shared" / "data" / "muse-lsl"
needs_data = pytest.mark.skipif(not MUSE.is_dir(), reason="shared/data/muse-lsl is missing")
NAME = "64 Hz, channel"


@pytest.fixture(scope="module")
def gratings(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return load_trials(CASES["gratings"], MUSE, tmp_path_factory.mktemp("gratings"))


@needs_data
def test_gratings_are_read_with_pictures_and_positions(gratings: Recorded) -> None:
    # Of 3 x 80 trials the filters' settling costs the first two positions of each run.
    for name, spec in SPECS.items():
        assert gratings.eeg[name].shape == (3 * 78, len(spec.ch_names), spec.n_times)
    for run in range(3):
        assert gratings.position[gratings.run == run].tolist() == list(range(2, 80))
    first, second, third = (gratings.label[gratings.run == run] for run in range(3))
    assert first.tolist() == second.tolist() == third.tolist(), "why positions are held out"


@needs_data
def test_only_trials_that_every_specification_has_are_taken(tmp_path: Path) -> None:
    case = CASES["faces"]
    faces = load_trials(case, MUSE, tmp_path)
    every = PreparedSet(case.prepare(MUSE, tmp_path, SPECS["128 Hz, none"])).epochs()
    assert len(every) == len(faces.label) + 1
    assert {len(eeg) for eeg in faces.eeg.values()} == {len(faces.label)}
    coarse, fine = faces.eeg["64 Hz, none"], faces.eeg["128 Hz, none"]
    correlation = [np.corrcoef(a[4], b[4, ::2])[0, 1] for a, b in zip(coarse, fine, strict=True)]
    assert np.median(correlation) > 0.8, "rows of the same trials"


@needs_data
def test_no_position_is_in_two_folds_and_folds_are_alike(gratings: Recorded) -> None:
    for position in np.unique(gratings.position):
        assert len(set(gratings.fold[gratings.position == position])) == 1
    for fold in range(5):
        counts = np.bincount(gratings.label[gratings.fold == fold], minlength=8)
        assert set(counts) <= {3, 6}


@needs_data
def test_a_fold_trains_on_nothing_that_it_tests(gratings: Recorded, tmp_path: Path) -> None:
    case = CASES["gratings"]
    _, model = write_fold(tmp_path / "a", case, gratings, NAME, gratings.label, 1, 500)
    epochs = PreparedSet(tmp_path / "a").epochs()
    split, position = epochs["split"].numpy(), epochs["position"].numpy()
    held_out = set(gratings.position[gratings.fold == 1].tolist())
    assert set(position[split == 2].tolist()) == held_out
    assert not held_out & set(position[split == 0].tolist())
    # Neither drawn epochs nor their model change when the test trials do, or their labels.
    test = gratings.fold == 1
    other = gratings.eeg[NAME].copy()
    other[test] = 100.0
    changed = replace(gratings, eeg={NAME: other})
    told = np.where(test, 0, gratings.label)
    _, again = write_fold(tmp_path / "b", case, changed, NAME, told, 1, 500)
    np.testing.assert_array_equal(model.mean, again.mean)
    drawn = position == -1
    of_changed = PreparedSet(tmp_path / "b").epochs()["eeg"].numpy()
    np.testing.assert_array_equal(epochs["eeg"].numpy()[drawn], of_changed[drawn])
    spec = json.loads((tmp_path / "a" / "spec.json").read_text())
    assert spec["honesty"] == "replay"
    assert spec["epoch_spec"] == SPECS[NAME].to_dict()


@needs_data
def test_another_seed_draws_other_epochs(gratings: Recorded, tmp_path: Path) -> None:
    sets = [
        write_fold(
            tmp_path / f"{seed}", CASES["gratings"], gratings, NAME, gratings.label, 0, 50, seed
        )[0]
        for seed in (0, 1)
    ]
    one, other = (PreparedSet(folder).epochs()["eeg"][-50:] for folder in sets)
    assert not np.allclose(one, other)


@needs_data
def test_permuted_labels_keep_what_is_held_out_together(gratings: Recorded) -> None:
    label = permute_labels(gratings, np.random.default_rng(0))
    for position in np.unique(gratings.position):
        assert len(set(label[gratings.position == position])) == 1
    assert (label != gratings.label).mean() > 0.7


@needs_data
def test_the_epochs_of_a_fold_are_chosen_on_the_others(gratings: Recorded) -> None:
    names = list(PAINTER_SPECS)[:2]
    case = CASES["gratings"]
    test = gratings.fold == 0
    assert set(lda_of(case, gratings, gratings.label, names, 1).kinds) == {"picture", "family"}
    # In its own test trials the worse specification gives labels away, and is not taken for it.
    eeg = {name: gratings.eeg[name].copy() for name in names}
    eeg[names[0]] = np.random.default_rng(0).standard_normal(eeg[names[0]].shape)
    eeg[names[0]][test] += 1000 * gratings.label[test][:, None, None]
    peer = lda_of(case, replace(gratings, eeg=eeg), gratings.label, names, 1)
    assert peer.painter_specs()[0] == names[1]


@needs_data
def test_lda_is_computed_once(
    gratings: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.real_lda.windows", lambda spec: windows(spec)[:1])
    case, out = CASES["faces"], tmp_path / "permuted-0" / "lda.safetensors"
    two = replace(gratings, label=gratings.label // 4)
    first = keep_lda(out, case, two, two.label, [NAME])
    again = keep_lda(out, case, replace(two, eeg={}), two.label, [NAME])
    np.testing.assert_array_equal(
        first.answers("picture", [NAME] * 5), again.answers("picture", [NAME] * 5)
    )
    assert again.painter_specs() == [NAME] * 5


def test_each_fold_is_answered_by_its_own_specification() -> None:
    fold = np.array([0, 1, 0, 1])
    first, second = list(PAINTER_SPECS)[:2]
    said = {("picture", first): np.zeros((4, 2)), ("picture", second): np.ones((4, 2))}
    inner = {("picture", first): np.array([0.9, 0.1]), ("picture", second): np.array([0.5, 0.5])}
    peer = Peer(said, inner, fold)
    assert peer.painter_specs() == peer.strongest_specs("picture") == [first, second]
    assert peer.answers("picture", peer.painter_specs())[:, 0].tolist() == [0, 1, 0, 1]


def test_guidance_is_what_captions_are_read_best_with() -> None:
    right = {"1": {"a": 0.5, "b": 0.9}, "2": {"a": 0.8, "b": 0.9}, "4": {"a": 0.8, "b": 0.9}}
    assert choose_guidance(right) == 2.0


def test_noise_has_the_channels_sizes_and_zeros_have_none() -> None:
    eeg = np.random.default_rng(0).standard_normal((50, 2, 32)) * np.array([[1.0], [9.0]])
    noise, zeros = without_brain(eeg, seed=0)
    np.testing.assert_allclose(noise.std(axis=(0, 2)), [1, 9], rtol=0.2)
    assert zeros.shape == (1, 2, 32)
    assert not zeros.any()


def test_alignment_draws_the_epochs_of_the_model() -> None:
    import torch

    from models.training.align import build_conditioner
    from models.training.drawn_align import DrawnAlignTask
    from models.training.presets import build_encoder

    rng = np.random.default_rng(0)
    eeg, label = rng.standard_normal((200, 2, 8)), np.arange(200) % 2
    eeg[label == 1, 0] += 5
    model = GaussianEpochs.fit(eeg, label, np.arange(2), 1.0)

    class Pictures:
        image_embeds, context = torch.eye(2, 128), torch.zeros(2, 16, 128)

        def prototypes(self, n: int) -> torch.Tensor:
            return torch.eye(n, 128)

        def context_prototypes(self, n: int) -> torch.Tensor:
            return torch.zeros(n, 16, 128)

    encoder = build_encoder("headset", 2, 8)
    task = DrawnAlignTask(encoder, build_conditioner(encoder), Pictures(), model)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    rows = task.load(task.draw(generator, 4000))
    for c in range(2):
        drawn = rows["eeg"][rows["label"] == c].numpy()
        np.testing.assert_allclose(drawn.mean(0), eeg[label == c].mean(0), atol=0.15)
    assert not torch.equal(rows["eeg"], task.load(task.draw(generator, 4000))["eeg"])
    # What is decided teaches nothing to what reads.
    losses = task({name: values[:64] for name, values in rows.items()})
    decided = losses["clip"] + losses["contrast"] + losses["distance"]
    reads = [*encoder.blocks[0].parameters(), *task.concept_head.parameters()]
    for gradient in torch.autograd.grad(decided, reads, retain_graph=True, allow_unused=True):
        assert gradient is None
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(losses["concept"], reads))


def test_what_was_painted_is_put_together_by_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    case, fold = CASES["gratings"], np.array([0, 1, 0, 1])
    label = np.array([0, 5, 3, 6])
    parts = [
        {
            "trials": np.stack([case.draw(int(i), None) for i in label[fold == number]]),
            "noise": np.stack([case.draw(2, None)] * 2),
            "zeros": case.draw(4, None)[None],
        }
        for number in range(2)
    ]
    painted = Painted.of(case, label, fold, parts)
    assert painted.read["trials"].argmax(axis=1).tolist() == label.tolist()
    assert painted.meant["noise"].tolist() == [0, 3, 5, 6]
    assert painted.read["noise"].argmax(axis=1).tolist() == [2] * 4
    assert painted.read["zeros"].argmax(axis=1).tolist() == [4] * 4


def test_a_trace_of_a_face_is_read_but_not_shown() -> None:
    case, rng = CASES["faces"], np.random.default_rng(0)
    face, texture = case.draw(1, None), rng.integers(0, 255, (64, 64, 3))
    trace = (0.2 * face + 0.8 * texture).astype(np.uint8)
    parts = [{"trials": np.stack([face, trace]), "noise": trace[None], "zeros": trace[None]}]
    painted = Painted.of(case, np.array([1, 1]), np.array([0, 0]), parts)
    assert painted.read["trials"].argmax(axis=1).tolist() == [1, 1]
    assert is_shown(case, painted).tolist() == [True, False]


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"holds no recordings\. Give the folder of muse-lsl"):
        CASES["faces"].prepare(tmp_path, tmp_path / "out", SPEC)


def test_groups_stay_whole_in_folds() -> None:
    group = np.repeat(np.arange(20), 3)
    label = group % 2
    fold = folds_of(label, group, 5)
    assert all(len(set(fold[group == g])) == 1 for g in range(20))
    assert [int((fold == f).sum()) for f in range(5)] == [12] * 5


def test_every_case_reads_its_own_pictures() -> None:
    for case in CASES.values():
        said = [int(case.read(case.draw(i, None)).argmax()) for i in range(len(case.names))]
        assert said == list(range(len(case.names)))


def test_an_interval_counts_groups_and_not_trials() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(30) < 0.5, 10)
    group = np.repeat(np.arange(30), 10)
    _, (low, high) = measure(lambda rows, _: float(right[rows].mean()), group)
    assert 0.25 < high - low < 0.45, "30 groups, not 300 trials"


def test_an_interval_counts_what_seeds_differ_by() -> None:
    group = np.arange(40)
    of_seed = (0.2, 0.5, 0.8)
    mean, (low, high) = measure(lambda _, seed: of_seed[seed], group, n_seeds=3)
    assert mean == pytest.approx(0.5)
    assert low < 0.31
    assert high > 0.69


def test_an_answer_says_whether_the_bar_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.real_report.N_BOOTSTRAP", 50)
    (question, *_) = questions(CASES["faces"])
    label = np.arange(200) % 2
    good = np.eye(2)[label]
    bad = np.random.default_rng(0).random((200, 2))
    group = np.arange(200) // 4
    better = answer(question, [good, good], {"LDA": bad}, label, group)
    worse = answer(question, [bad, bad], {"LDA": good}, label, group)
    assert better["bar LDA"]
    assert not worse["bar LDA"]
    assert better["less LDA"][0] == pytest.approx(-worse["less LDA"][0])


def test_a_report_shows_every_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, n in (("N_BOOTSTRAP", 20), ("N_PERMUTATIONS", 5), ("N_LDA_PERMUTATIONS", 2)):
        monkeypatch.setattr(f"app.real_report.{name}", n)
    case, rng = CASES["gratings"], np.random.default_rng(0)
    position = np.tile(np.arange(40), 2)
    label, run = position % 8, np.repeat([0, 1], 40)
    eeg = {
        name: rng.standard_normal((80, 5, spec.n_times)).astype(np.float32)
        for name, spec in SPECS.items()
    }
    fold = folds_of(label, position, 5)
    trials = Recorded(eeg, label, position, run, position, fold)
    peer = lda_of(case, trials, label, list(SPECS)[:2], 1)
    drawn = np.stack([case.draw(i, None) for i in range(8)])

    def painted(told: np.ndarray) -> Painted:
        """Always the right frequency, always upright."""
        parts = [
            {"trials": drawn[told[fold == f] // 4 * 4], "noise": drawn[:4], "zeros": drawn[:1]}
            for f in range(5)
        ]
        return Painted.of(case, told, fold, parts)

    other = permute_labels(trials, rng)
    whole = write_report(
        tmp_path,
        case,
        trials,
        peer,
        [painted(label)] * 2,
        [painted(other)],
        {"2": {"gratings": 0.9, "faces": 1.0}},
        2.0,
    )
    frequency, picture = whole["scores"].values()
    assert whole["shown"] == 1.0
    assert frequency["painted"] == (1.0, (1.0, 1.0))
    assert frequency["zeros"] == (0.5, 0.0)
    assert picture["painted"][0] == pytest.approx(0.25)
    assert picture["permuted"][0][0] == pytest.approx(0.25), "scored by what it was told"
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for row in ("chance", "strongest LDA", "permuted labels", "from noise", "from zeros"):
        assert row in text
    assert json.loads((tmp_path / "scores.json").read_text())["n_seeds"] == 2
    assert (tmp_path / "grid.png").is_file()
