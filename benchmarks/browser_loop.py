"""The closed loop through the page: `python -m benchmarks.browser_loop`, an hour and a half.

A simulated subject whom nothing was trained with looks at what the page shows in Chromium. Three
presentations are recorded, of 2, 3 and 10 minutes; the page's button trains on all of them, the
command line on the first, and on the first two. Each bundle is then served, pictures are presented
anew, and the frames that a viewer gets over the WebSocket are judged. Nobody waits for the subject:
breaks are ended at once.

Stopped and started again it goes on; delete the folder to begin anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from acquisition.epoch_spec import EpochSpec
from acquisition.ideal_observer import ELECTRODES
from acquisition.recording import load_recording
from acquisition.simulated_subject import LIVE_SESSION
from acquisition.stimuli import concepts
from app.bundle import read_epoch_spec
from app.messages import pack, unpack
from app.rehearse_session import Sitting
from app.results.part import Table, written
from app.session_epochs import read_sessions
from benchmarks.closed_loop import TEST, TEST_MINUTES, Watched, learn_lda, observe, watch
from benchmarks.live import chromium_page
from benchmarks.measured import write_section
from models.training.metrics import Score
from models.training.scorers import JudgeClassifier

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "calibration.md"
TITLE = "Measured: the closed loop in Chromium"
# Minutes of the presentations that are recorded, one after the other.
PARTS = (2.0, 3.0, 10.0)
# An epoch is found by its last sample; it may be that far off (seconds).
NEAR = 0.03
HEADER = (
    "electrodes", "minutes", "pictures, by the judge", "concept named", "shuffled", "LDA",
    "pictures less LDA", "ideal observer", "pictures, of the observer's", "answer",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """A bundle that was watched.

    Attributes
    ----------
    electrodes, minutes : of the calibration.
    verdict : of its report.
    took_s : calibration took.
    label, painted, named, lda : (n,) of the pictures that were presented anew: class, what the
        judge sees in the last frame of its epoch, what the page named, and what LDA names; -1
        where there is no answer.
    observed : what the ideal observer gets right of pictures without artefacts, (m,) bool.
    """

    electrodes: int
    minutes: float
    verdict: str
    took_s: float
    label: list[int]
    painted: list[int]
    named: list[int]
    lda: list[int]
    observed: list[bool]


@dataclass(slots=True)
class Session:
    """`phosphene serve` with a subject who sees what the page shows.

    Attributes
    ----------
    process : of the session.
    address, token : of its page.
    """

    process: subprocess.Popen[str]
    address: str
    token: str


@contextmanager
def serve(subject: int, seed: int, ch_names: Sequence[str], *more: str) -> Iterator[Session]:
    """Run it.

    Raises
    ------
    SystemExit
        It did not begin; it said why.
    """
    source = f"simulated:?subject={subject}&seed={seed}&shown=page"
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--no-open-browser",
               "--source", source, "--ch-names", ",".join(ch_names), *more]  # fmt: skip
    alone = {**os.environ, "PHOSPHENE_LSL_SESSION": f"loop-{uuid.uuid4().hex}"}
    with subprocess.Popen(command, env=alone, stdout=subprocess.PIPE, text=True, cwd=ROOT) as p:
        assert p.stdout is not None
        found = re.search(r"(http://127\.0\.0\.1:\d+/)#operator=(\S+)", p.stdout.readline())
        if found is None:
            raise SystemExit("The session did not begin; it said why.")
        try:
            yield Session(p, *found.groups())
        finally:
            p.terminate()


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    """Ask until it is so.

    Raises
    ------
    SystemExit
        It took too long.
    """
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"Something that takes moments was not done in {seconds:g} s.")
        time.sleep(0.2)


def open_calibrate(page: Any, session: Session, n_electrodes: int) -> Viewer:
    """Open the page, and wait until the EEG comes and is painted; somebody who watches."""
    page.goto(f"{session.address}calibrate#operator={session.token}")
    page.wait_for_selector("#begin:enabled", timeout=120_000)
    wait_until(lambda: f"{n_electrodes} electrodes" in page.locator("#source").inner_text(), 60)
    viewer = Viewer(session)
    # Filters have settled then, and the bundle is loaded.
    wait_until(lambda: bool(viewer.frames), 120)
    return viewer


def present(page: Any, minutes: float, pseudonym: str) -> None:
    """Record a presentation."""
    page.get_by_label("Minutes of pictures").fill(f"{minutes:g}")
    page.get_by_label("Pseudonym", exact=True).fill(pseudonym)
    page.get_by_label("The person agreed").check()
    page.get_by_role("button", name="Record and begin").click()
    end = time.monotonic() + 120 * minutes + 60
    while not page.locator("#after").is_visible():
        if time.monotonic() > end:
            said = page.locator("#sentence").inner_text()
            raise SystemExit(f"The presentation did not end: {said}")
        if page.locator("#pause").is_visible():
            page.keyboard.press("Space")
        time.sleep(0.5)
    wait_until(lambda: page.locator("#file").inner_text() != "", 60)


class Viewer:
    """Keeps the last frame of each epoch that a session sends to who watches."""

    def __init__(self, session: Session) -> None:
        self.frames: dict[int, tuple[float, str, bytes]] = {}
        self._address = session.address.replace("http", "ws") + "ws"
        self._origin = session.address.rstrip("/")
        self._thread = threading.Thread(target=self._view, daemon=True)
        self._thread.start()

    def _view(self) -> None:
        origin: Any = self._origin
        with connect(self._address, origin=origin, compression=None, max_size=None) as socket:
            try:
                for data in socket:
                    message = unpack(cast(bytes, data))
                    if message.type != "frame":
                        continue
                    header = message.header
                    if len(message.payload):
                        name = header["concepts"][0]["name"] if header["concepts"] else ""
                        told = header["t_eeg"], name, bytes(message.payload)
                        self.frames[header["epoch"]] = told
                    socket.send(pack("ack", {"number": header["number"], "shown_ms": 0}))
            except ConnectionClosed:
                pass

    def at(self, t_last: float) -> tuple[str, bytes] | None:
        """Name and JPEG of the epoch that ends there."""
        found = min(self.frames.values(), key=lambda f: abs(f[0] - t_last), default=None)
        return found[1:] if found and abs(found[0] - t_last) < NEAR else None


class Loop:
    """One headset: recorded, trained on, watched.

    Parameters
    ----------
    folder : of recordings and bundles, which is gone on with.
    bundle : that is calibrated from.
    judge : names the pictures.
    parts : minutes of each presentation that is recorded.
    opens : a page of Chromium.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        judge: JudgeClassifier,
        subject: int,
        n_electrodes: int,
        parts: Sequence[float] = PARTS,
        opens: Callable[[], AbstractContextManager[Any]] = chromium_page,
    ) -> None:
        self._parts, self._opens = parts, opens
        self._folder = folder / str(n_electrodes)
        self._bundle, self._judge, self._subject = bundle, judge, subject
        self._ch_names, self._n = ELECTRODES[n_electrodes], n_electrodes
        self._spec = read_epoch_spec(bundle)

    @property
    def _own(self) -> Path:
        return self._folder / "recordings" / "stranger"

    def record_and_train(self) -> None:
        """Three presentations, and a bundle of all that the page trains."""
        if (self._own / "report.json").is_file():
            return
        recordings = ["--recordings", str(self._own.parent), "--bundle", str(self._bundle)]
        headset = self._subject, 0, self._ch_names
        with serve(*headset, *recordings) as session, self._opens() as page:
            open_calibrate(page, session, self._n)
            # Those of a run that was stopped are kept.
            for minutes in self._parts[len(self._files) :]:
                present(page, minutes, "stranger")
                page.get_by_role("button", name="Again").click()
            page.get_by_label("Their pseudonym").fill("stranger")
            page.get_by_role("button", name="Train", exact=True).click()
            page.wait_for_selector("#report:visible, #train-again:visible", timeout=1_200_000)
            if not page.locator("#report").is_visible():
                raise SystemExit(f"It was not trained: {page.locator('#what').inner_text()}")
            page.screenshot(path=self._folder / "report.png", full_page=True)

    def bundle_of(self, k: int) -> tuple[Path, dict[str, Any]]:
        """Bundle and report of the first `k` presentations."""
        if k == len(self._parts):
            out = self._own
        else:
            out = self._folder / f"first-{k}"
            if not (out / "report.json").is_file():
                files = [str(file) for file in self._files[:k]]
                command = [sys.executable, "-m", "app", "calibrate", *files, "--out", str(out)]
                command += ["--bundle", str(self._bundle)]
                subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        if not report["bundle"]:
            raise SystemExit(f"Of {k} presentations came no bundle: {report['no_bundle']}")
        return out / "bundle", report

    @property
    def _files(self) -> list[Path]:
        return sorted(self._own.glob("*.xdf"))

    def measure(self, k: int, minutes: float) -> Cell:
        """Minutes of pictures presented anew, with the bundle of the first `k` presentations."""
        _, report = self.bundle_of(k)
        file, label, painted, named = self.watch(k, minutes)
        return Cell(
            self._n, sum(self._parts[:k]), report["verdict"], report["took_s"], label, painted,
            named, self._lda(k, file, len(label)), self._observed(),
        )  # fmt: skip

    def watch(self, k: int, minutes: float) -> tuple[Path, list[int], list[int], list[int]]:
        """The recording, and `label`, `painted` and `named` as in a `Cell`."""
        bundle, _ = self.bundle_of(k)
        folder = self._folder / f"watched-{k}"
        recordings = ["--recordings", str(folder), "--bundle", str(bundle)]
        headset = self._subject, TEST, self._ch_names
        with serve(*headset, *recordings) as session, self._opens() as page:
            viewer = open_calibrate(page, session, self._n)
            present(page, minutes, "stranger")
        [file] = (folder / "stranger").glob("*.xdf")
        names = [concept.name for concept in concepts()]
        onsets = [
            marker
            for marker in load_recording(file).markers
            if marker.label.startswith("onset/") and not marker.details["is_catch"]
        ]
        label = [names.index(marker.label.removeprefix("onset/")) for marker in onsets]
        spec = self._spec
        duration = spec.tmin + (spec.n_times - 1) / spec.sfreq
        painted, named = [], []
        for marker in onsets:
            found = viewer.at(marker.timestamp + duration)
            name, jpeg = found or ("", b"")
            named.append(names.index(name) if name in names else -1)
            painted.append(self._judged(jpeg) if jpeg else -1)
        return file, label, painted, named

    def _judged(self, jpeg: bytes) -> int:
        with Image.open(BytesIO(jpeg)) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
        with torch.inference_mode():
            found = self._judge(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        return int(found.argmax())

    def _lda(self, k: int, file: Path, n: int) -> list[int]:
        spec = replace(self._spec, ch_names=self._ch_names)
        trained, test = (_watched(files, spec) for files in (self._files[:k], [file]))
        said = np.full(n, -1)
        said[test.picture] = learn_lda(trained, test, spec, len(concepts()))
        return said.tolist()

    def _observed(self) -> list[bool]:
        said = observe(self._subject, self._n, self._bundle, self._spec)
        sitting = Sitting(self._subject, LIVE_SESSION, TEST, self._ch_names)
        label = watch(sitting, TEST_MINUTES, self._bundle, self._spec).label
        return [bool(right) for right in said == label]


def _watched(files: Sequence[Path], spec: EpochSpec) -> Watched:
    """Epochs of recordings; their number of the trial stands for the picture."""
    found = read_sessions(files, spec, [concept.name for concept in concepts()])
    return Watched(found.locked, found.label, found.run, found.trial)


def table(cells: Sequence[Cell], subject: int) -> Table:
    """All that was watched."""
    rows = []
    for cell in cells:
        label = np.array(cell.label)
        right = {
            name: (np.array(getattr(cell, name)) == label).astype(float)
            for name in ("painted", "named", "lda")
        }
        each = np.arange(len(label))
        shuffled = np.random.default_rng(0).permutation(label)
        of_shuffled = (np.array(cell.painted) == shuffled).astype(float)
        # Trials of movement have no answer of LDA's.
        has_lda = np.array(cell.lda) >= 0
        observed = np.array(cell.observed, float)
        less = Score.of((right["painted"] - right["lda"])[has_lda], each[has_lda])
        rows.append(
            [
                str(cell.electrodes),
                f"{cell.minutes:g}",
                written(Score.of(right["painted"], each)),
                written(Score.of(right["named"], each)),
                written(Score.of(of_shuffled, each)),
                written(Score.of(right["lda"][has_lda], each[has_lda])),
                written(less, "+.1%"),
                written(Score.of(observed, np.arange(len(observed)))),
                f"{right['painted'].mean() / observed.mean():.2f}",
                cell.verdict,
            ]
        )
    n = " or ".join(map(str, sorted({len(cell.label) for cell in cells})))
    missed = sum(said < 0 for cell in cells for said in cell.painted)
    took = max(cell.took_s for cell in cells)
    notes = [
        f"Simulated subject {subject}, whom nothing was trained with, looked at what Chromium "
        f"showed; chance {1 / 40:.1%}. Of each bundle {n} pictures that were "
        "presented anew, in the same sitting; intervals of 95 % over pictures. Judged is the last "
        "frame that a viewer got of each picture's epoch; of "
        f"{missed} pictures of {sum(len(c.label) for c in cells)} no frame came, which counts as "
        "wrong. LDA learnt from the same trials, of the electrodes alone. The ideal observer knows "
        "the simulator, subject and session, and sees other epochs of the same sitting, without "
        "artefacts.",
        f"The longest calibration took {took:.0f} s; those of {sum(PARTS):g} minutes were made by "
        "the page's button, beside the live stream.",
    ]
    return Table("Closed loop in Chromium", HEADER, rows, notes)


def main() -> None:
    """Measure, print the table, and write it into the page and as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.browser_loop", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "weights" / "scale-model")
    parser.add_argument("--judge", type=Path, default=ROOT / "weights" / "training" / "judge")
    parser.add_argument("--subject", type=int, default=20)
    parser.add_argument("--electrodes", default="32,8", help="numbers, of 32, 16, 8 and 4")
    parser.add_argument("--minutes", type=float, default=4.0, help="of pictures presented anew")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "browser-loop")
    parser.add_argument("--page", type=Path, default=PAGE, help="that takes the table")
    a = parser.parse_args()
    judge = JudgeClassifier(str(a.judge), torch.device("cpu"))
    file = a.out / "cells.json"
    cells: list[Cell] = []
    if file.is_file():
        cells = [Cell(**cell) for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]]
    for n_electrodes in map(int, a.electrodes.split(",")):
        loop = Loop(a.out, a.bundle, judge, a.subject, n_electrodes)
        loop.record_and_train()
        for k in range(1, len(PARTS) + 1):
            if (n_electrodes, sum(PARTS[:k])) in {(c.electrodes, c.minutes) for c in cells}:
                continue
            cells.append(loop.measure(k, a.minutes))
            values = {"honesty": "simulated", "cells": [asdict(cell) for cell in cells]}
            file.write_text(json.dumps(values) + "\n", encoding="utf-8")
            print(table(cells[-1:], a.subject).markdown(), flush=True)
    found = table(cells, a.subject)
    print(found.markdown())
    write_section(a.page, TITLE, found.markdown())


if __name__ == "__main__":
    main()
