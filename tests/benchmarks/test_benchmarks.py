from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import measure
from tests.tiny_bundle import make_tiny_bundle


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
            sys, "argv", ["bench", "--bundle", str(bundle), "--out", str(out), "--seconds", "0.01"]
        )
        main()
    result = json.loads((out / "bench.json").read_text())
    assert result["matmul_gflops"] > 0
    assert len(result["rows"]) == 6
    for row in result["rows"]:
        assert row["ratio"] == pytest.approx(row["timing"]["p50_ms"] / row["beside_ms"])
    table = (out / "bench.md").read_text()
    assert all(f"| {row['stage']} |" in table for row in result["rows"])
    assert table in capsys.readouterr().out
