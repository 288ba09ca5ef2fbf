from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

from benchmarks import acquisition, gpu
from benchmarks.__main__ import main
from benchmarks.live import keyframes_of, summarise, watch_all
from benchmarks.live import markdown as live_markdown
from benchmarks.measure import measure
from benchmarks.training import WAYS, Way, markdown, measure_way
from benchmarks.viewers import markdown as viewers_markdown
from benchmarks.viewers import measure as measure_viewers
from models.keyframes import KeyframePainter
from models.painter import open_painter
from models.pipeline import load_bundle
from tests.tiny_bundle import make_distilled_bundle, make_tiny_bundle


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []
    timings = measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0)
    assert order == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 10
    assert timings["a"].n == timings["b"].n == 10
    assert 0 <= timings["a"].p50_ms <= timings["a"].p95_ms <= timings["a"].p99_ms


def test_the_benchmarks_write_a_table_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of diffusers, when it saves
        bundle = make_tiny_bundle(tmp_path / "bundle")
        out = tmp_path / "out"
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "bench",
                "--bundle",
                str(bundle),
                "--out",
                str(out),
                "--seconds",
                "0.01",
                "--parts",
                "stages",
            ],
        )
        main()
    result = json.loads((out / "bench.json").read_text())
    assert result["matmul_gflops"] > 0
    assert len(result["rows"]) == 9
    for row in result["rows"]:
        assert row["ratio"] == pytest.approx(row["timing"]["p50_ms"] / row["beside_ms"])
    table = (out / "bench.md").read_text()
    assert all(f"| {row['stage']} |" in table for row in result["rows"])
    assert table in capsys.readouterr().out


@pytest.mark.parametrize("stage", list(WAYS))
def test_steps_of_training_are_measured(stage: str) -> None:
    found = measure_way(stage, Way(is_bf16=True, is_checkpointed=True), "small", steps=1)
    assert found["rows_per_second"] > 0
    assert found["peak_mb"] > 50


def test_the_table_of_training_says_what_each_means_brings() -> None:
    values = {"seconds": 2.0, "rows_per_second": 4.0, "peak_mb": 2500.0}
    ratios = {"speed_ratio": 1.5, "memory_ratio": 0.5}
    table = markdown([{"stage": "pretrain", "way": "bf16", **values, **ratios}], "full")
    assert "| pretrain | bf16 | 4 | 2 | 1.50x | 2.50 | 0.50x |" in table


def test_what_a_viewer_saw_is_counted() -> None:
    # Ten frames a second, each picture drawn twice, a rest of two seconds in the middle.
    t = [*(0.1 * k for k in range(20)), *(4 + 0.1 * k for k in range(20))]
    # Four epochs; what changes when the conditioning has long arrived does not count.
    change = [0.0] + [0.01] * 7 + [9.0] * 2 + [0.01] * 29 + [0.05]
    epochs = [0] * 10 + [1] * 10 + [2] * 16 + [3] * 4
    late = [0.3, 0.3, 0.3, 0.5]
    drawn = [[t[k], k // 2, t[k] - late[epochs[k]], epochs[k], change[k]] for k in range(40)]
    seen = summarise(drawn, {"p50": 1.0, "p95": 2.0, "p99": 3.0})
    assert seen.first_use_ms == (1.0, 2.0, 3.0)
    assert seen.age_ms == pytest.approx((300, 500))
    assert seen.growth_ms == pytest.approx((300, 500))
    assert seen.new_per_second[0] == pytest.approx(20 / 5.9, abs=0.01)
    assert seen.new_per_second[1] == pytest.approx(5)
    assert (seen.change, seen.smoothness) == (pytest.approx((0.01, 0.028)), pytest.approx(2.8))
    assert seen.n_drawn == 40
    assert "| a | 1/2/3 | 300, 500 | 300/500 |" in live_markdown({"a": seen}, 70.0)


def test_a_picture_that_changes_nothing_is_no_new_one() -> None:
    # Ten new pictures a second; one that is held for 0.4 s, and drawn twice.
    t = [*(0.1 * k for k in range(11)), 1.2, 1.25, *(1.4 + 0.1 * k for k in range(10))]
    picture = [*range(11), 11, 11, *range(12, 22)]
    change = [0.01] * 11 + [0.0] * 2 + [0.01] * 10
    epochs = [0] * 5 + [1] * 6 + [2] * 2 + [3] * 10
    seen = summarise(
        [[t[k], picture[k], t[k] - 0.3, epochs[k], change[k]] for k in range(len(t))],
        {"p50": 1.0, "p95": 2.0, "p99": 3.0},
    )
    assert seen.new_per_second == (pytest.approx(21 / 2.3, abs=0.01), pytest.approx(10))
    assert seen.smoothness == pytest.approx(1)


@pytest.mark.parametrize(
    ("bundle", "seconds", "sentence"),
    [("bundle", 30.0, "is not a bundle: it has no"), ("", 29.0, "29 s are too short. Give --sec")],
)
def test_what_cannot_be_watched_is_told_at_once(
    tmp_path: Path, bundle: str, seconds: float, sentence: str
) -> None:
    with pytest.raises(SystemExit, match=sentence):
        watch_all(tmp_path / bundle, ["sliding"], seconds, tmp_path / "out", is_alone=False)
    assert not (tmp_path / "out").exists()


def test_beside_a_distilled_bundle_are_its_keyframes(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of diffusers, when it saves
        bundle = make_distilled_bundle(tmp_path / "bundle")
    with keyframes_of(bundle) as beside:
        assert isinstance(open_painter(beside, device="cpu"), KeyframePainter)
        sampler = load_bundle(beside).scheduler.config
    assert sampler.prediction_type == load_bundle(bundle).scheduler.config.prediction_type
    assert not beside.exists()


def test_viewers_are_served_and_timed() -> None:
    served = measure_viewers(True, 2.5)
    assert 0 < served.others_p99_ms < 2000
    assert served.slow_lag_ms > 0
    assert 30 < served.kilobytes < 50
    assert served.per_second > 2
    assert "| acknowledged |" in viewers_markdown({"acknowledged": served})


def test_the_gpu_s_table_is_made_in_small_on_a_cpu() -> None:
    result = gpu.measure_all(torch.device("cpu"), gpu.SMALL, (64,), 0.0, 64)
    text = gpu.markdown(result)
    for what in (
        "1 step(s) + TAESD",
        "4 step(s) + TAESD",
        "diffusers' loop, 4 step(s)",
        "stream batch of 4 steps",
        "painter, two steps, 4 session(s)",
        "1 step(s), PyTorch's own kernels",
        "compiling three numbers of sessions",
    ):
        assert f"| 64 | {what} |" in text
    rows = {row["what"]: row["p50_ms"] for row in result["rows"]["64"]}
    # Four calls are not one.
    assert rows["4 step(s) + TAESD"] > 1.5 * rows["1 step(s) + TAESD"]


def test_without_a_gpu_the_table_says_that_nothing_was_measured() -> None:
    assert "not measured" in gpu.markdown(None)


def test_acquisition_stands_beside_mne_lsl_and_a_pull_alone() -> None:
    chunk, latency = acquisition.rows(1.0)
    assert chunk.beside == "mne-lsl's StreamLSL on the same stream"
    assert chunk.beside_ms > 0
    # Some thirty epochs a second arrived, each after its last sample was pushed.
    assert latency.timing.n > 20
    assert 0 < latency.beside_ms < latency.timing.p99_ms < 1000
