"""Timing two things fairly: in turns, in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.openvino_networks import openvino_core

MATMUL_SIDE = 768


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one call takes.

    Attributes
    ----------
    n : calls that were timed.
    p50_ms, p95_ms, p99_ms : percentiles over them.
    """

    n: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


def summarise(durations: list[float]) -> Timing:
    """Percentiles of durations in seconds.

    >>> summarise([0.001, 0.002, 0.003]).p50_ms
    2.0
    """
    p50, p95, p99 = (round(1e3 * float(q), 5) for q in np.percentile(durations, (50, 95, 99)))
    return Timing(len(durations), p50, p95, p99)


def measure(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
    """Time calls in turns, so that whatever else the machine does falls on all alike.

    Parameters
    ----------
    calls : by name; each is called three times before it counts.
    seconds : for all together. Each gets ten calls at least.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or min(map(len, durations.values())) < 10:
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            durations[name].append(time.perf_counter() - begun)
    return {name: summarise(values) for name, values in durations.items()}


def matmul() -> Callable[[], object]:
    """A product of two float32 matrices, with as many threads as torch may use.

    OpenVINO's, which paints: torch's own library takes half of what some cores can.
    """
    import openvino
    import torch
    from openvino import opset13

    a = np.random.default_rng(0).standard_normal((MATMUL_SIDE, MATMUL_SIDE), np.float32)
    x = opset13.parameter(a.shape, np.float32)
    model = openvino.Model([opset13.matmul(x, opset13.constant(a), False, False)], [x])
    config = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino_core().compile_model(model, "CPU", config).create_infer_request()
    return lambda: request.infer([a], share_inputs=True, share_outputs=True)


def gflops(timing: Timing) -> float:
    """The rate of `matmul`.

    >>> gflops(Timing(10, p50_ms=9.0, p95_ms=9.0, p99_ms=9.0))
    100.7
    """
    return round(2 * MATMUL_SIDE**3 / timing.p50_ms / 1e6, 1)
