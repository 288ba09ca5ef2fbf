"""A session as a viewer sees it: `python -m benchmarks.live --help`.

Needs what the tests need (`make test` installs it): playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from models.bundle_files import check_bundle
from models.errors import BundleError
from models.follower import TAU

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(__file__).with_name("page.js")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

# Frames that follow each other by less are of one movement, in seconds.
MOVING = 0.5
# Seconds in which the conditioning does nineteen twentieths of its way to a new epoch's.
TURNING = 4.74 * TAU
# Seconds before anything counts: filters settle, and the browser warms up.
SETTLING = 8.0
# Of a session: fewer seconds are too few epochs that are locked to onsets.
SHORTEST = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a viewer saw.

    Attributes
    ----------
    first_use_ms : p50, p95 and p99 from the last sample of an epoch to its first frame drawn.
    growth_ms : the p95 of it in the first third of the epochs, and in the last.
    age_ms : p50 and p95 of the age of the newest EEG in a frame, when that is drawn.
    new_per_second : frames of the worker's drawn each second, without those that it held, over
        all the time, and while the picture moves.
    change : p50 and p95 of the mean absolute change in linear luminance between drawn frames
        while the conditioning moves.
    smoothness : the second over the first.
    n_drawn : frames drawn.
    first_frame_s : from the start of the command to the first frame drawn.
    memory_mb : of each process of the session by its name, a minute after its beginning (or before
        its end, if that is sooner) and at the end; what several share counts in parts.
    """

    first_use_ms: tuple[float, float, float]
    growth_ms: tuple[float, float]
    age_ms: tuple[float, float]
    new_per_second: tuple[float, float]
    change: tuple[float, float]
    smoothness: float
    n_drawn: int
    first_frame_s: float = 0.0
    memory_mb: dict[str, tuple[int, int]] = field(default_factory=dict)


def summarise(drawn: Sequence[Sequence[float]], latency: dict[str, float]) -> Seen:
    """From frames (time, picture, time of the EEG, epoch, change of luminance).

    Times of drawing and of the EEG are of one clock.
    """
    t, picture, t_eeg, epoch, change = np.array(drawn, np.float64).T
    _, first, which = np.unique(epoch, return_index=True, return_inverse=True)
    # Of the first epoch the beginning may be missing.
    is_turning = (which > 0) & (t - t[first][which] <= TURNING)
    moved = change[1:][(change[1:] > 0) & is_turning[1:]]
    thirds = np.array_split(1e3 * (t - t_eeg)[first[1:]], 3)
    # A picture that changes nothing is the one before, held: nothing moves there.
    _, of = np.unique(picture, return_inverse=True)
    is_held = (np.bincount(of, change) == 0)[of]
    is_new = np.append(True, np.diff(picture) != 0) & ~is_held
    gaps = np.diff(t[is_new])
    moving = gaps[(gaps < MOVING) & (np.diff(np.cumsum(is_held)[is_new]) == 0)]
    p50, p95 = np.percentile(moved, (50, 95))
    age = 1e3 * np.percentile(t - t_eeg, (50, 95))
    return Seen(
        (latency["p50"], latency["p95"], latency["p99"]),
        _rounded(np.percentile(thirds[0], 95), np.percentile(thirds[-1], 95), 1),
        _rounded(age[0], age[1], 1),
        (
            round(float(is_new.sum() / (t[-1] - t[0])), 2),
            round(float(1 / moving.mean()), 2) if len(moving) else 0.0,
        ),
        _rounded(p50, p95, 5),
        round(float(p95 / p50), 2),
        len(t),
    )


def _rounded(a: float, b: float, places: int) -> tuple[float, float]:
    return round(float(a), places), round(float(b), places)


@contextmanager
def chromium_page() -> Iterator[Any]:
    """A page of Chromium.

    Raises
    ------
    SystemExit
        Playwright or Chromium is missing; in a sentence.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("Playwright is not installed. Run make test once.") from None
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        raise SystemExit("There is no Chromium. Run make test once, or install it.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        yield chromium.new_page(viewport={"width": 1280, "height": 720})
        chromium.close()


def watch(arguments: Sequence[str], seconds: float) -> Seen:
    """Run `phosphene serve` with these arguments, and watch it in Chromium.

    Raises
    ------
    SystemExit
        Playwright or Chromium is missing, or the session did not begin; in a sentence.
    """
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        command = [sys.executable, "-m", "app", "serve", "--no-open-browser", "--port", "0"]
        command += ["--summary", str(summary), "--duration", str(seconds + SETTLING), *arguments]
        t_begun = time.time()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as session:
            assert session.stdout is not None
            address = next(filter(None, map(_address, session.stdout)), None)
            if address is None:
                raise SystemExit("The session did not begin; it said why.")
            with chromium_page() as page:
                page.add_init_script(path=SCRIPT)
                page.goto(address)
                page.get_by_role("dialog").get_by_role("button").click()
                page.wait_for_timeout(1e3 * SETTLING)
                n_settling = page.evaluate("drawn.length")
                left = max(1.0, seconds - 12)
                page.wait_for_timeout(1e3 * min(left, 60 - SETTLING))
                memory = [_memory_mb(session.pid)]
                page.wait_for_timeout(1e3 * max(0.0, left - 60 + SETTLING))
                memory.append(_memory_mb(session.pid))
                every = page.evaluate("drawn")
            session.wait()
        latency = json.loads(summary.read_text(encoding="utf-8"))["latency_ms"]["drawn"]
    # The page's clock is the system's; samples are stamped by the session's.
    offset = time.time() - time.monotonic()
    drawn = [[t, p, t_eeg + offset, *rest] for t, p, t_eeg, *rest in every]
    return replace(
        summarise(drawn[n_settling:], latency),
        first_frame_s=round(drawn[0][0] - t_begun, 1),
        memory_mb={name: (mb, memory[1].get(name, 0)) for name, mb in memory[0].items()},
    )


def _memory_mb(pid: int) -> dict[str, int]:
    """What a process and each of its children hold; a page that several hold counts in parts."""
    found = {}
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        # One may end meanwhile.
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            module = re.search(r"-m app\.(\w+)", command)
            name = module.group(1) if module else "supervisor"
            found[name] = round(process.memory_full_info().pss / 1e6)
    return found


def _address(line: str) -> str:
    found = re.search(r"https?://\S+", line)
    return found.group() if found else ""


def markdown(rows: dict[str, Seen], rate: float) -> str:
    """A table of what was seen."""
    lines = [
        f"Matrix products of float32 run at {rate:g} GFLOP/s on one core.",
        "",
        "| | first use p50/p95/p99, ms | its p95 in the first and last third | "
        "displayed age p50/p95, ms | new frames a second: all the time, moving | "
        "change of luminance p50, p95 | p95/p50 | frames drawn | first frame, s | "
        "memory after a minute, at the end, MB |",
        "| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name, seen in rows.items():
        cells = [
            "/".join(f"{x:.0f}" for x in seen.first_use_ms),
            ", ".join(f"{x:.0f}" for x in seen.growth_ms),
            "/".join(f"{x:.0f}" for x in seen.age_ms),
            ", ".join(f"{x:.1f}" for x in seen.new_per_second),
            ", ".join(f"{x:.4f}" for x in seen.change),
            f"{seen.smoothness:.1f}",
            str(seen.n_drawn),
            f"{seen.first_frame_s:g}",
            ", ".join(f"{name} {a}, {b}" for name, (a, b) in seen.memory_mb.items()),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


@contextmanager
def keyframes_of(bundle: Path) -> Iterator[Path]:
    """The bundle with DDIM for LCM: so it paints a keyframe for each epoch, and no stream."""
    from diffusers import DDIMScheduler

    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / f"{bundle.resolve().name}-keyframes"
        shutil.copytree(bundle, beside)
        DDIMScheduler.from_pretrained(bundle, subfolder="scheduler").save_pretrained(
            beside / "scheduler"
        )
        index = beside / "model_index.json"
        parts = json.loads(index.read_text(encoding="utf-8"))
        parts["scheduler"] = ["diffusers", "DDIMScheduler"]
        index.write_text(json.dumps(parts), encoding="utf-8")
        yield beside


def watch_all(
    bundle: Path, kinds: Sequence[str], seconds: float, out: Path, is_alone: bool
) -> None:
    """Print the table, and write `live.md` and `live.json`.

    Parameters
    ----------
    kinds : of epochs.
    seconds : of each session.
    is_alone : whether nothing is watched beside it, in turns: see `keyframes_of`.

    Raises
    ------
    SystemExit
        There is no such bundle, a session is too short or did not begin, or there is no browser;
        in a sentence.
    """
    import torch

    from benchmarks.measure import gflops, matmul, measure

    if seconds < SHORTEST:
        raise SystemExit(f"{seconds:g} s are too short. Give --seconds of {SHORTEST:g} or more.")
    bundle = bundle.resolve()
    try:
        check_bundle(bundle)
    except BundleError as error:
        raise SystemExit(str(error)) from None
    torch.set_num_threads(1)
    rate = gflops(measure({"matmul": matmul()}, 1.0)["matmul"])
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Seen] = {}
    with nullcontext(None) if is_alone else keyframes_of(bundle) as beside:
        for kind in kinds:
            for each in filter(None, (bundle, beside)):
                arguments = ["--bundle", str(each), "--epochs", kind]
                rows[f"{kind}, {each.name}"] = watch(arguments, seconds)
                # Each time: what was measured outlasts a session that fails.
                found = {name: asdict(seen) for name, seen in rows.items()}
                result: dict[str, Any] = {"matmul_gflops": rate, "rows": found}
                (out / "live.json").write_text(
                    json.dumps(result, indent=2) + "\n", encoding="utf-8"
                )
                (out / "live.md").write_text(markdown(rows, rate), encoding="utf-8")
    print(markdown(rows, rate))


def main() -> None:
    """Watch a bundle, and its keyframes beside it, in turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "weights" / "scale-model")
    parser.add_argument("--alone", action="store_true", help="without its keyframes beside")
    parser.add_argument("--epochs", default="marker-locked,sliding", help="kinds, with a comma")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each session")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder")
    a = parser.parse_args()
    watch_all(a.bundle, a.epochs.split(","), a.seconds, a.out, a.alone)


if __name__ == "__main__":
    main()
