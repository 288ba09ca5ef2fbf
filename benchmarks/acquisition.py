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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochStream
from acquisition.lsl import LSLSource, open_lsl
from acquisition.lsl_network import (
    SESSION_VARIABLE,
    bundled_library,
    configuration,
    load_pylsl,
)
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


def _opened() -> LSLSource:
    return open_lsl("", {"name": NAME, "timeout": "10"}, SourceOptions())


def _read(ch_names: tuple[str, ...], seconds: float, out: Any) -> None:
    """Our inlet, filters and ring for a while; CPU seconds that it took."""
    spec, source = _spec(ch_names), _opened()
    stream = EpochStream(source.info, spec, Montage.from_channels(ch_names, spec), ("sliding",))
    # On a busy machine the stream is found late; what counts begins when the filters have settled.
    begun = 0.0, 0.0
    while not begun[0] or time.monotonic() < begun[0] + seconds:
        if not begun[0] and stream.is_ready:
            begun = time.monotonic(), time.process_time()
        for chunk in source.read(0.1, stream.n_due).chunks:
            stream.push(chunk)
    out.put((time.process_time() - begun[1]) / (time.monotonic() - begun[0]))
    source.close()


def _acquire_as_mne_lsl(ch_names: tuple[str, ...], seconds: float, out: Any) -> None:
    """mne-lsl's inlet, filters and buffer, which acquires once a chunk by its own thread."""
    os.environ.setdefault("MNE_LSL_LIB", str(bundled_library()))
    # Its library finds the stream where ours does, also if that is this machine alone.
    session = os.environ.get(SESSION_VARIABLE, "")
    with tempfile.NamedTemporaryFile("w", suffix=".cfg", delete=False) as file:
        file.write(configuration((), session, is_local=bool(session)))
    os.environ["LSLAPICFG"] = file.name
    from mne_lsl.stream import StreamLSL

    spec = _spec(ch_names)
    stream = StreamLSL(bufsize=spec.n_times / SFREQ, name=NAME)
    stream.connect(CHUNK / SFREQ, timeout=10)
    stream.filter(spec.l_freq, spec.h_freq)
    for freq in spec.notch_freqs:
        stream.notch_filter(freq)
    time.sleep(SETTLING)
    begun = time.monotonic(), time.process_time()
    while time.monotonic() < begun[0] + seconds:
        # An epoch's samples, as often as we cut one.
        time.sleep(spec.hop / SFREQ)
        stream.get_data()
    out.put((time.process_time() - begun[1]) / (time.monotonic() - begun[0]))
    stream.disconnect()
    Path(file.name).unlink()


def _inlet_alone(_ch_names: tuple[str, ...], seconds: float, out: Any) -> None:
    """An inlet whose samples are pulled 25 times a second, and nothing else."""
    pylsl = load_pylsl()
    inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", NAME, timeout=10)[0], recover=False)
    inlet.open_stream(timeout=10)
    time.sleep(SETTLING)
    begun = time.monotonic(), time.process_time()
    while time.monotonic() < begun[0] + seconds:
        time.sleep(0.04)
        inlet.pull_chunk(timeout=0.0, max_samples=4096, as_numpy=True)
    out.put((time.process_time() - begun[1]) / (time.monotonic() - begun[0]))


def chunk_row(ch_names: tuple[str, ...], seconds: float) -> Row:
    """Filters and ring of a stream, beside mne-lsl's on the same stream, in CPU time.

    Processes of their own that run at the same time; both hand out 1 s of samples four times a
    second. What an inlet takes by itself, liblsl's threads above all, is taken off both.
    """
    context = multiprocessing.get_context("spawn")
    pairs = [(how, context.Queue()) for how in (_read, _acquire_as_mne_lsl, _inlet_alone)]
    started = [context.Process(target=how, args=(ch_names, seconds, out)) for how, out in pairs]
    for process in started:
        process.start()
    mine, other, inlet = (out.get(timeout=SETTLING + seconds + 60) for _, out in pairs)
    for process in started:
        process.join(5)
    here, beside = (round(1e3 * (share - inlet) * CHUNK / SFREQ, 4) for share in (mine, other))
    return Row(
        f"filters and ring behind LSL, CPU per chunk of {CHUNK} samples, {len(ch_names)} channels, "
        f"{SFREQ:g} Hz",
        Timing(round(seconds * SFREQ / CHUNK), here, here, here),
        "mne-lsl's StreamLSL on the same stream",
        beside,
        f"{100 * mine:.1f} % of a core beside {100 * other:.1f} %; the inlet's {100 * inlet:.1f} %",
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
            topic: bus.publisher(topic)
            for topic in ("epoch", "traces", "raw", "marker", "telemetry")
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
