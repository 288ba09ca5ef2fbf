"""Acquisition beside what others do with the same stream.

One LSL outlet of 64 channels at 1 kHz in chunks of 8 samples, in a process of its own, whose
samples are stamped when they are pushed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochStream
from acquisition.lsl import LSLSource, open_lsl
from acquisition.lsl_network import bundled_library, load_pylsl
from acquisition.montage import Montage
from acquisition.source import SourceOptions
from app.acquire import Acquisition
from app.bus import Bus
from benchmarks.measure import Timing, summarise
from benchmarks.stages import CHUNK, SFREQ, Row, channel_names

NAME = "phosphene-benchmark"
SETTLING = 8.0


def _push(ch_names: tuple[str, ...], stop: Any) -> None:
    pylsl = load_pylsl()
    info = pylsl.StreamInfo(NAME, "EEG", len(ch_names), SFREQ, "float32", NAME)
    channels = info.desc().append_child("channels")
    for name in ch_names:
        node = channels.append_child("channel").append_child_value("label", name)
        node.append_child_value("unit", "microvolts").append_child_value("type", "EEG")
    outlet = pylsl.StreamOutlet(info, CHUNK)
    noise = np.random.default_rng(0).normal(0, 20, (512, CHUNK, len(ch_names))).astype(np.float32)
    begun, n = time.monotonic(), 0
    while not stop.is_set():
        due = begun + n * CHUNK / SFREQ
        time.sleep(max(0.0, due - time.monotonic()))
        outlet.push_chunk(noise[n % len(noise)], pylsl.local_clock())
        n += 1


@contextmanager
def outlet(ch_names: tuple[str, ...]) -> Iterator[None]:
    """The stream, while the block runs."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_push, args=(ch_names, stop), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(5)


def _spec(ch_names: tuple[str, ...], hop: int = 256) -> EpochSpec:
    # Of the stream's own rate: resampling would wait for samples that are still to come.
    return EpochSpec(ch_names=ch_names, sfreq=SFREQ, n_times=1024, hop=hop)


@dataclass
class _Cost:
    """CPU seconds of this thread in a call, per chunk of `CHUNK` samples."""

    name: str
    seconds: float = 0.0
    n_samples: int = 0

    def add(self, call: Callable[[], int]) -> None:
        begun = time.thread_time()
        n_samples = call()
        self.seconds += time.thread_time() - begun
        self.n_samples += n_samples

    @property
    def per_chunk_ms(self) -> float:
        return 1e3 * self.seconds / max(1, self.n_samples / CHUNK)


def _opened() -> LSLSource:
    return open_lsl("", {"name": NAME, "timeout": "10"}, SourceOptions())


def chunk_row(ch_names: tuple[str, ...], seconds: float) -> Row:
    """Inlet, filters and ring of a stream, beside mne-lsl's on the same stream, in CPU time.

    mne-lsl acquires when it is asked, as often as we read; its buffer is as long as our epochs.
    """
    os.environ.setdefault("MNE_LSL_LIB", str(bundled_library()))
    from mne_lsl.stream import StreamLSL

    spec = _spec(ch_names)
    source = _opened()
    stream = EpochStream(source.info, spec, Montage.from_channels(ch_names, spec), ("sliding",))
    theirs = StreamLSL(bufsize=spec.n_times / SFREQ, name=NAME).connect(None, timeout=10)
    theirs.filter(spec.l_freq, spec.h_freq)
    theirs.notch_filter(spec.notch_freqs[0] if spec.notch_freqs else 50.0)
    mine, other = _Cost("ours"), _Cost("mne-lsl")

    def read() -> int:
        n = 0
        for chunk in source.read(0.1).chunks:
            stream.push(chunk)
            n += chunk.n_times
        return n

    def acquire() -> int:
        before = theirs.n_new_samples
        theirs.acquire()
        return int(theirs.n_new_samples - before)

    begun, settled = time.monotonic(), False
    while (t := time.monotonic()) < begun + SETTLING + seconds:
        if not settled and t > begun + SETTLING:
            settled, mine, other = True, _Cost("ours"), _Cost("mne-lsl")
        mine.add(read)
        other.add(acquire)
        if theirs.n_new_samples > 500:
            theirs.get_data()
    source.close()
    theirs.disconnect()
    timing = Timing(mine.n_samples // CHUNK, *(round(mine.per_chunk_ms, 4),) * 3)
    return Row(
        f"LSL inlet, filters and ring, CPU per chunk of {CHUNK} samples, {len(ch_names)} channels, "
        f"{SFREQ:g} Hz",
        timing,
        "mne-lsl's StreamLSL on the same stream",
        round(other.per_chunk_ms, 4),
        f"{100 * mine.per_chunk_ms / (1e3 * CHUNK / SFREQ):.1f} % of a core",
    )


def _pull(seconds: float, out: Any) -> None:
    """Arrival of samples that are pulled and nothing else, seconds after they were pushed."""
    pylsl = load_pylsl()
    found = pylsl.resolve_byprop("name", NAME, timeout=10)
    inlet = pylsl.StreamInlet(found[0], recover=False)
    inlet.open_stream(timeout=10)
    late, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        _, times = inlet.pull_chunk(timeout=0.1, min_samples=1, as_numpy=True)
        if len(times):
            late.append(pylsl.local_clock() - times[-1])
    out.put(late[len(late) // 5 :])


def _acquire(folder: Path, ch_names: tuple[str, ...], stop: Any) -> None:
    """The acquisition process as a session has it."""
    source = _opened()
    with Bus(folder, "acquisition") as bus:
        sinks: dict[str, Any] = {
            topic: bus.publisher(topic) for topic in ("epoch", "traces", "marker", "telemetry")
        }
        Acquisition(source, _spec(ch_names, hop=32), "sliding", sinks).run(stop)


def latency_row(ch_names: tuple[str, ...], seconds: float) -> Row:
    """From a sample's push to the epoch that it completes, in the worker's hands."""
    context = multiprocessing.get_context("spawn")
    stop, out = context.Event(), context.Queue()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Bus.make_folder(folder)
        acquiring = context.Process(target=_acquire, args=(folder, ch_names, stop), daemon=True)
        pulling = context.Process(target=_pull, args=(SETTLING + seconds, out))
        acquiring.start()
        pulling.start()
        late: list[float] = []
        with Bus(folder, "worker") as bus:
            incoming = bus.subscriber("epoch")
            begun = time.monotonic()
            while time.monotonic() < begun + SETTLING + seconds + 5:
                if message := incoming.receive(0.1):
                    late.append(time.monotonic() - message.header["t_last"])
        stop.set()
        raw = summarise(out.get(timeout=20))
        pulling.join(5)
        acquiring.join(5)
    mine = summarise(late[len(late) // 5 :])
    added = mine.p99_ms - raw.p99_ms
    return Row(
        f"LSL sample pushed to epoch at the worker, {len(ch_names)} channels, {SFREQ:g} Hz",
        mine,
        "pylsl pull alone, in a process of its own",
        raw.p50_ms,
        f"p99 {mine.p99_ms:.2f} ms beside {raw.p99_ms:.2f} ms: {added:.2f} added",
    )


def rows(seconds: float) -> list[Row]:
    """Both rows, one after the other, from one outlet."""
    ch_names = channel_names()
    with outlet(ch_names):
        return [chunk_row(ch_names, seconds), latency_row(ch_names, 2 * seconds)]


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acquisition", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    for row in rows(parser.parse_args().seconds):
        print({**asdict(row), "ratio": row.ratio})


if __name__ == "__main__":
    main()
