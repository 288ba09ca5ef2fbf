import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochStream
from acquisition.errors import SourceError
from acquisition.montage import Montage
from acquisition.recording import Recording
from acquisition.simulated_subject import BLOCK, CH_NAMES, SFREQ, SimulatedSubject
from acquisition.source import Marker, Reading
from acquisition.stimuli import Composition, concepts
from acquisition.stream_info import StreamInfo
from app.continuous import Labels, prepare_epochs, recording_steps, simulated_steps
from app.epoch_shards import EpochShards, PreparedEpoch
from app.errors import SettingsError, SummaryError
from app.prepare import (
    Wanted,
    prepare_pictures,
    prepare_sources,
    to_concepts,
    to_kinds,
    to_labels,
)
from tests.app.test_acquire import Listed, Sent

SPEC = EpochSpec(ch_names=CH_NAMES)
INFO = StreamInfo("test", CH_NAMES, SFREQ, "replay")
KINDS = ("sliding", "marker-locked")
# Linux: a file that takes nothing.
FULL_DISK = Path("/dev/full")


@pytest.fixture(scope="module")
def recording() -> Recording:
    """A minute of the simulated subject, with jitter and a gap, as a file would hold it."""
    rng = np.random.default_rng(0)
    steps = list(simulated_steps(SimulatedSubject(seed=3), 60, []))
    data = np.concatenate([chunk.data for chunk, _ in steps], axis=1)
    timestamps = np.concatenate([chunk.timestamps for chunk, _ in steps])
    timestamps = timestamps + rng.normal(0, 2e-4, timestamps.shape)
    n_missing = np.zeros(data.shape[1], np.int64)
    n_missing[25 * BLOCK] = 700
    timestamps[25 * BLOCK :] += 700 / SFREQ
    markers = [
        Marker(m.timestamp + (700 / SFREQ if m.timestamp >= 25 else 0) + 1e-3, m.label, m.details)
        for _, markers in steps
        for m in markers
    ]
    return Recording(INFO, data, timestamps, n_missing, tuple(markers))


def live_readings(recording: Recording, seed: int) -> list[Reading]:
    """The recording in chunks of random sizes, markers a little before or after."""
    rng = np.random.default_rng(seed)
    chunks = list(recording.chunks(1))
    readings, at, next_marker = [], 0, 0
    while at < len(chunks):
        n = int(rng.integers(1, 40))
        part = tuple(chunks[at : at + n])
        at += n
        reach = part[-1].timestamps[-1] + rng.uniform(-0.3, 0.3)
        markers = []
        while (
            next_marker < len(recording.markers)
            and recording.markers[next_marker].timestamp <= reach
        ):
            markers.append(recording.markers[next_marker])
            next_marker += 1
        readings.append(Reading(part, tuple(markers)))
    return readings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_live_and_prepared_epochs_of_a_recording_are_the_same(
    recording: Recording, kind: str, seed: int
) -> None:
    from app.acquire import Acquisition

    sent = Sent()
    readings = live_readings(recording, seed)
    acquisition = Acquisition(Listed(readings, INFO), SPEC, kind, sent.sinks)  # type: ignore[arg-type]
    for reading in readings:
        acquisition.take_in(reading)
    live = {
        m.header["first_sample"]: np.frombuffer(m.payload, np.float32).reshape(32, 256)
        for m in sent.messages["epoch"]
    }

    montage = Montage.from_channels(CH_NAMES, SPEC)
    stream = EpochStream(INFO, SPEC, montage, (kind,))  # type: ignore[arg-type]
    firsts: list[int] = []
    push = stream.push

    def noting(*arguments):  # type: ignore[no-untyped-def]
        epochs = push(*arguments)
        firsts.extend(e.first_sample for e in epochs)
        return epochs

    stream.push = noting  # type: ignore[method-assign]
    prepared = list(prepare_epochs(recording_steps(recording), stream, lambda _: (0, 0)))

    assert firsts == sorted(live)
    assert len(prepared) == len(firsts) > 10
    for first, epoch in zip(firsts, prepared, strict=True):
        np.testing.assert_allclose(epoch.eeg, live[first], atol=1e-5)


def prepare(out: Path, *sources: str, **wanted: object) -> dict[str, np.ndarray]:
    n_epochs = prepare_sources(out, sources, Wanted(SPEC, **wanted))  # type: ignore[arg-type]
    columns = load_file(out / "epochs-00000.safetensors")
    assert all(len(column) == n_epochs for column in columns.values())
    return columns


def test_a_simulated_session_becomes_a_prepared_set(tmp_path: Path) -> None:
    columns = prepare(tmp_path, "simulated:?subject=2&session=5", seconds=40)

    n = len(columns["label"])
    assert columns["eeg"].shape == (n, 32, 256)
    assert columns["eeg"].dtype == np.float32
    numbers = set(EpochShards.NUMBERS)
    assert set(columns) == {"eeg", *numbers}
    assert columns["is_locked"].all(), "marker-locked is the default"
    assert (columns["subject"] == 2).all()
    assert (columns["session"] == 5).all()
    compositions = json.loads((tmp_path / "compositions.json").read_text())
    seen = [compositions[i]["label"] for i in columns["image_id"]]
    assert seen == columns["label"].tolist()
    assert (np.diff(columns["t_onset"]) >= 2.5).all()

    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec["honesty"] == "simulated"
    assert EpochSpec.from_dict(spec["epoch_spec"]) == SPEC
    assert spec["concepts"] == [c.name for c in concepts()]
    [row] = spec["sources"]
    assert row["n_epochs"] == n
    assert row["parameters"] == SimulatedSubject().parameters.digest()
    assert row["difficulty"] == "demo"
    assert row["seed"] == 5


def test_of_chosen_concepts_epochs_and_pictures_are_kept_and_no_others(tmp_path: Path) -> None:
    source = ["simulated:?subject=0&session=2"]
    kept = frozenset(range(0, 40, 2))
    for name, chosen in (("all", frozenset()), ("some", kept)):
        wanted = Wanted(SPEC, seconds=90, with_images=True, pixels=16, concepts=chosen)
        prepare_sources(tmp_path / name, source, wanted)
    every, some = (load_file(tmp_path / n / "epochs-00000.safetensors") for n in ("all", "some"))
    is_kept = np.isin(every["label"], sorted(kept))
    assert 5 < is_kept.sum() < len(is_kept) - 5
    np.testing.assert_array_equal(some["label"], every["label"][is_kept])
    np.testing.assert_array_equal(some["eeg"], every["eeg"][is_kept])
    pictures, wanted_pictures = (
        load_file(tmp_path / n / "pictures-00000.safetensors") for n in ("some", "all")
    )
    for of, rows, shown in ((some, slice(None), pictures), (every, is_kept, wanted_pictures)):
        assert (shown["label"][of["image_id"][rows]] == of["label"][rows]).all()
    assert set(pictures["label"].tolist()) <= kept


def test_concepts_are_chosen_by_name_of_marker_locked_epochs(tmp_path: Path) -> None:
    assert to_concepts("") == frozenset()
    with pytest.raises(SettingsError, match=r"sees no 'unicorn'\. It sees: dog, cat"):
        to_concepts("dog,unicorn")
    wanted = Wanted(SPEC, kinds=("sliding",), concepts=to_concepts("dog"))
    with pytest.raises(SettingsError, match="--concepts chooses among marker-locked"):
        prepare_sources(tmp_path / "set", ["simulated:"], wanted)


def test_the_trainer_reads_what_was_prepared(tmp_path: Path) -> None:
    prepared = pytest.importorskip("models.training.prepared")
    prepare(tmp_path, "simulated:", seconds=20)

    epochs = prepared.PreparedSet(tmp_path).epochs()

    assert epochs["eeg"].shape[1:] == (32, 256)
    assert len(epochs["label"]) == len(epochs)


def test_the_same_seed_gives_the_same_set(tmp_path: Path) -> None:
    first = prepare(tmp_path / "a", "simulated:?seed=4", seconds=15)
    again = prepare(tmp_path / "b", "simulated:?seed=4", seconds=15)
    other = prepare(tmp_path / "c", "simulated:?seed=5", seconds=15)

    np.testing.assert_array_equal(first["eeg"], again["eeg"])
    assert first["eeg"].shape != other["eeg"].shape or not np.allclose(first["eeg"], other["eeg"])


def test_sources_are_told_apart_and_pictures_counted_on(tmp_path: Path) -> None:
    columns = prepare(tmp_path, "simulated:?session=1", "simulated:?session=2", seconds=20)

    compositions = json.loads((tmp_path / "compositions.json").read_text())
    assert set(columns["session"]) == {1, 2}
    first = columns["image_id"][columns["session"] == 1]
    second = columns["image_id"][columns["session"] == 2]
    assert first.max() < second.min()
    assert [compositions[i]["label"] for i in columns["image_id"]] == columns["label"].tolist()


def test_sliding_epochs_say_what_was_there_for_half_of_them(tmp_path: Path) -> None:
    columns = prepare(tmp_path, "simulated:?seed=1", seconds=40, kinds=("sliding",))

    seen: list[Composition] = []
    markers = [m for _, ms in simulated_steps(SimulatedSubject(seed=1), 40, seen) for m in ms]
    onsets = [m.timestamp for m in markers if m.label != "offset"]
    assert -1 in columns["label"]
    for label, image_id, start in zip(
        columns["label"], columns["image_id"], columns["t_onset"], strict=True
    ):
        overlap = [min(t + 2, start + 1.02) - max(t, start) for t in onsets]
        best = int(np.argmax(overlap))
        if overlap[best] > 0.52:
            assert (image_id, label) == (best, seen[best].label)
        elif overlap[best] < 0.5:
            assert (image_id, label) == (-1, -1)


def write_muse_csv(path: Path) -> None:
    """muse-lsl's columns; a marker 1 or 2 stands on its onset's sample."""
    rng = np.random.default_rng(0)
    rows = ["timestamps,TP9,AF7,AF8,TP10,Right AUX,Marker0"]
    for i in range(256 * 20):
        marker = 0 if i % 512 or i < 1024 else 1 + (i // 512) % 2
        values = ",".join(f"{v:.2f}" for v in rng.normal(0, 10, 5))
        rows.append(f"{100 + i / 256:.6f},{values},{marker}")
    path.write_text("\n".join(rows) + "\n")


def test_recordings_count_the_markers_that_were_named(tmp_path: Path) -> None:
    file = tmp_path / "run.csv"
    write_muse_csv(file)
    out = tmp_path / "set"
    loaded = prepare_sources(
        out,
        [f"file:{file}?subject=3", f"file:{file}?subject=4"],
        Wanted(SPEC, labels={"1": 0}),
    )

    columns = load_file(out / "epochs-00000.safetensors")
    assert loaded == len(columns["label"]) > 4
    assert set(columns["label"]) == {0}
    assert set(columns["subject"]) == {3, 4}
    assert set(columns["run"]) == {0, 1}
    spec = json.loads((out / "spec.json").read_text())
    assert (spec["honesty"], spec["labels"]) == ("replay", {"1": 0})
    assert 0 < spec["sources"][0]["fidelity"] < 0.6


def test_labels_are_numbered_as_they_appear_behind_the_concepts() -> None:
    labels = Labels({})
    name = concepts()[7].name

    assert labels(Marker(0, f"onset/{name}")) == (7, -1)
    assert labels(Marker(0, "face")) == (40, -1)
    assert labels(Marker(0, "house")) == (41, -1)
    assert labels(Marker(0, "face")) == (40, -1)
    assert labels(Marker(0, "offset")) is None


def test_a_set_is_never_written_over_another(tmp_path: Path) -> None:
    prepare(tmp_path, "simulated:", seconds=10)
    with pytest.raises(SummaryError, match="holds prepared epochs already"):
        prepare(tmp_path, "simulated:", seconds=10)


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["pictures.json", "spec.json"])
def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(FULL_DISK)
    with pytest.raises(SummaryError, match=r"cannot be written to .*No space left on device"):
        prepare_pictures(tmp_path, 2, seed=0)


def test_a_shard_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    shards = EpochShards(tmp_path)
    shards.append(PreparedEpoch(np.zeros((2, 4), np.float32), 0, -1, 0.0, True), 0, 0, 0)
    (tmp_path / "epochs-00000.safetensors").mkdir()
    with pytest.raises(SummaryError, match=r"cannot be written to .* on a disk with room"):
        shards.flush()


@pytest.mark.parametrize(
    "sources", [[], ["lsl:name=x"], ["simulated:", "file:x.csv"], ["brainflow:synthetic"]]
)
def test_what_cannot_be_prepared_is_refused(tmp_path: Path, sources: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"made from recordings .*, or from simulated: sources"):
        prepare_sources(tmp_path / "set", sources, Wanted(SPEC))
    assert not (tmp_path / "set").exists()


def test_a_parameter_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="sede"):
        prepare_sources(tmp_path, ["simulated:?sede=1"], Wanted(SPEC))
    with pytest.raises(SourceError, match="seed=x: expected whole numbers"):
        prepare_sources(tmp_path, ["simulated:?seed=x"], Wanted(SPEC))


def test_shards_are_written_as_they_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.epoch_shards.SHARD", 3)
    shards = EpochShards(tmp_path)
    for i in range(7):
        shards.append(PreparedEpoch(np.full((2, 4), i, np.float32), i, -1, float(i), True), 0, 0, 0)
        assert len(list(tmp_path.iterdir())) == (i + 1) // 3
    shards.flush()

    paths = sorted(tmp_path.iterdir())
    labels = [label for path in paths for label in load_file(path)["label"].tolist()]
    assert labels == list(range(7))


def test_large_epochs_fill_a_shard_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.epoch_shards.SHARD_BYTES", 5 * 2 * 4 * 4)
    shards = EpochShards(tmp_path)
    for i in range(5):
        shards.append(PreparedEpoch(np.zeros((2, 4), np.float32), i, -1, 0.0, True), 0, 0, 0)
    assert len(load_file(tmp_path / "epochs-00000.safetensors")["label"]) == 5


def test_epochs_are_written_right_however_they_lie_in_memory(tmp_path: Path) -> None:
    eeg = np.arange(12, dtype=np.float32).reshape(3, 4)
    shards = EpochShards(tmp_path)
    for lying in (np.asfortranarray(eeg), np.concatenate([eeg, eeg], axis=1)[:, 4:]):
        shards.append(PreparedEpoch(lying, 0, -1, 0.0, True), 0, 0, 0)
    shards.flush()
    columns = load_file(tmp_path / "epochs-00000.safetensors")
    np.testing.assert_array_equal(columns["eeg"], [eeg, eeg])


def test_positions_count_the_markers_that_count_also_where_one_got_no_epoch(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.csv"
    write_muse_csv(file)
    columns = prepare(tmp_path / "set", f"file:{file}", labels={"1": 0, "2": 1})
    # Markers every two seconds from the fourth on; the filter settles after the first.
    n = len(columns["position"])
    n_missed = json.loads((tmp_path / "set/spec.json").read_text())["sources"][0][
        "n_markers_missed"
    ]
    assert n_missed > 0
    assert columns["position"].tolist() == list(range(n_missed, n_missed + n))


def test_kinds_and_labels_are_read_from_text() -> None:
    assert to_kinds("marker-locked") == ("marker-locked",)
    assert to_labels("") == {}
    with pytest.raises(SettingsError, match="--epochs expects"):
        to_kinds("all")
    with pytest.raises(SettingsError, match="--labels expects"):
        to_labels("1,2")
