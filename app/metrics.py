"""What `/metrics` tells Prometheus.

phosphene_frames_painted_total      pictures that the worker painted
phosphene_frames_sent_total         frames sent to viewers
phosphene_frames_drawn_total        frames that viewers acknowledged after drawing
phosphene_frames_replaced_total     frames and pictures that a newer one replaced in time
phosphene_flash_breaches_total      sequences that the flash guard's second line stopped
phosphene_epochs_replaced_total     sliding epochs that a newer one replaced before painting
phosphene_epochs_dropped_total      marker-locked epochs that found their queue full
phosphene_samples_in_total          samples per channel that arrived
phosphene_samples_lost_total        samples per channel that were lost on the way
phosphene_restarts_total{child}     child processes started again
phosphene_viewers                   open pages
phosphene_montage_fidelity          0 to 1, how well the headset covers the bundle's electrodes
phosphene_painted_seconds           last sample of an epoch to its picture painted
phosphene_drawn_seconds             last sample of an epoch to its picture drawn (first use)
phosphene_stage_seconds{stage}      what first use is made of (`app.summary.STAGES`)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# When each was made is of no use here and doubles their number.
disable_created_metrics()

COUNTERS = {
    "frames_painted": "Pictures that the worker painted.",
    "frames_sent": "Frames sent to viewers.",
    "frames_drawn": "Frames that viewers acknowledged after drawing.",
    "frames_replaced": "Frames and pictures that a newer one replaced before they were sent.",
    "flash_breaches": "Sequences that the flash guard's second line stopped.",
    "epochs_replaced": "Sliding epochs that a newer one replaced before painting.",
    "epochs_dropped": "Marker-locked epochs that found their queue full.",
    "samples_in": "Samples per channel that arrived.",
    "samples_lost": "Samples per channel that were lost on the way.",
}

# Closest together where first use should lie, 0.1 to 1.5 s.
FINE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """The session's metrics, in a registry of their own.

    Children count from their own start; here the counts go on when one is started again.
    """

    MEDIA_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"phosphene_{name}", text, registry=self._registry)
            for name, text in COUNTERS.items()
        }
        self._told = dict.fromkeys(COUNTERS, 0)
        self._restarts = Counter(
            "phosphene_restarts",
            "Child processes started again.",
            ["child"],
            registry=self._registry,
        )
        self._restarts_told: dict[str, int] = {}
        self._viewers = Gauge("phosphene_viewers", "Open pages.", registry=self._registry)
        self._fidelity = Gauge(
            "phosphene_montage_fidelity",
            "How well the headset covers the bundle's electrodes, 0 to 1.",
            registry=self._registry,
        )
        self._latency = {
            f"{name}_ms": Histogram(
                f"phosphene_{name}_seconds",
                f"Last sample of an epoch to its picture {name}.",
                buckets=BUCKETS,
                registry=self._registry,
            )
            for name in ("painted", "drawn")
        }

        self._stages = Histogram(
            "phosphene_stage_seconds",
            "What the time to a picture drawn is made of.",
            ["stage"],
            buckets=FINE_BUCKETS,
            registry=self._registry,
        )

    def add(self, header: Mapping[str, Any]) -> None:
        """Take in the header of any process's telemetry."""
        for name in COUNTERS.keys() & header.keys():
            now, before = int(header[name]), self._told[name]
            # Less than before: the child began again.
            self._counters[name].inc(now - before if now >= before else now)
            self._told[name] = now
        for name in self._latency.keys() & header.keys():
            for sample in header[name]:
                self._latency[name].observe(sample / 1000)
        for stage, samples in header.get("stages_ms", {}).items():
            for sample in samples:
                self._stages.labels(stage).observe(sample / 1000)
        for child, report in header.get("children", {}).items():
            before = self._restarts_told.get(child, 0)
            self._restarts.labels(child).inc(max(0, report["restarts"] - before))
            self._restarts_told[child] = report["restarts"]
        if "viewers" in header:
            self._viewers.set(header["viewers"])
        if header.get("fidelity") is not None:
            self._fidelity.set(header["fidelity"])

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
