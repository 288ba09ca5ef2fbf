"""`make bench`, or `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import acquisition, live, training, viewers
from benchmarks.measure import gflops, matmul, measure
from benchmarks.stages import Row, all_rows

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("numpy", "scipy", "torch", "diffusers", "pillow")


def to_dict(rows: list[Row], rate: float, threads: int) -> dict[str, Any]:
    """What is written as JSON; times in milliseconds."""
    return {
        "cores": os.cpu_count(),
        "threads": threads,
        "matmul_gflops": rate,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }


def markdown(result: dict[str, Any]) -> str:
    """The same as a table."""
    lines = [
        "# Speed of the parts",
        "",
        f"Measured by `make bench` on {result['cores']} cores, painting with {result['threads']} "
        f"thread(s); a float32 matrix product runs at {result['matmul_gflops']:g} GFLOP/s with as "
        "many. What stands beside a stage was measured in turns with it; the ratio travels "
        "between machines better than the milliseconds.",
        "",
        "| stage | p50 ms | p95 ms | beside | its ms | ratio | note |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    lines += [
        f"| {row['stage']} | {row['timing']['p50_ms']:.3g} | {row['timing']['p95_ms']:.3g} "
        f"| {row['beside']} | {row['beside_ms']:.3g} | {row['ratio']:.2f} | {row['note']} |"
        for row in result["rows"]
    ]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join([*lines, "", f"Python {result['python']}, {versions}.", ""])


def main() -> None:
    """Measure, print the table, and write it as Markdown and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "weights" / "scale-model")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder")
    parser.add_argument("--threads", type=int, default=1, help="that paint")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each stage")
    parser.add_argument(
        "--parts",
        choices=("all", "stages", "acquisition", "viewers", "live", "training"),
        default="all",
        help="the stages of a frame, acquisition beside mne-lsl and pylsl, fifty viewers, sessions "
        "watched in Chromium, steps of training at full size (some ten minutes), or all of it",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    every = {"stages", "acquisition", "viewers", "live", "training"}
    wanted = every & {arguments.parts} or every
    if "stages" in wanted:
        write_rows(arguments, "bench", stage_rows)
    if "acquisition" in wanted:
        write_rows(arguments, "acquisition", acquisition_rows)
    if "viewers" in wanted:
        viewers.measure_both(arguments.out, 3 * arguments.seconds)
    if "live" in wanted:
        kinds = ("marker-locked", "sliding")
        seconds = max(live.SHORTEST, 15 * arguments.seconds)
        live.watch_all(arguments.bundle, kinds, seconds, arguments.out, False)
    if "training" in wanted:
        training_steps(arguments.out)


def training_steps(out: Path) -> None:
    """Measure training and write `training.json` and `training.md`."""
    rows = training.measure_all("full", steps=2)
    (out / "training.json").write_text(json.dumps(rows, indent=2) + "\n")
    text = training.markdown(rows, "full")
    (out / "training.md").write_text(text)
    print(text)


def stage_rows(arguments: argparse.Namespace) -> list[Row]:
    """The stages of a frame."""
    return all_rows(arguments.bundle, arguments.threads, arguments.seconds)


def acquisition_rows(arguments: argparse.Namespace) -> list[Row]:
    """What comes from LSL."""
    return acquisition.rows(4 * arguments.seconds)


def write_rows(
    arguments: argparse.Namespace, name: str, measured: Callable[[argparse.Namespace], list[Row]]
) -> None:
    """Measure, print a table, and write it as `name`.json and `name`.md."""
    import torch

    torch.set_num_threads(arguments.threads)
    rate = gflops(measure({"matmul": matmul()}, min(1.0, arguments.seconds))["matmul"])
    rows = measured(arguments)
    result = to_dict(rows, rate, arguments.threads)
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / f"{name}.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
