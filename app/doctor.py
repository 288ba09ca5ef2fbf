"""`phosphene doctor`: is everything here, and what to do about what is not."""

from __future__ import annotations

import glob
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from app.cores import n_cores
from app.errors import KNOWN_ERRORS
from app.settings import Settings, has_display

Grade = Literal["ok", "warn", "fail"]

PYTHONS = ((3, 11), (3, 14))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "safari")
LSL_VERSION = 118
MEMORY_GB = 4.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report.

    Attributes
    ----------
    what : was looked at.
    grade : "fail" where something of the two commands cannot work.
    found : what there is.
    remedy : what to do; "" where all is well.
    """

    what: str
    grade: Grade
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def _python() -> Finding:
    is_good = PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]
    return Finding(
        "Python",
        "ok" if is_good else "fail",
        platform.python_version(),
        "" if is_good else "Make the environment with Python 3.11, 3.12 or 3.13: make setup.",
    )


def _torch() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        yield Finding("PyTorch", "fail", f"does not load ({error})", "Install it: make setup.")
        return
    yield Finding("PyTorch", "ok", torch.__version__)
    if torch.cuda.is_available():
        yield Finding("GPU", "ok", torch.cuda.get_device_name(0))
    else:
        remedy = "Pictures come from the CPU; an NVIDIA GPU and PyTorch's CUDA build are faster."
        yield Finding("GPU", "warn", "none that PyTorch can use", remedy)


def _bundle(settings: Settings) -> Finding:
    from app.bundle import find_bundle, read_epoch_spec
    from models.bundle_files import check_bundle

    try:
        bundle = find_bundle(settings.bundle)
        check_bundle(bundle)
        spec = read_epoch_spec(bundle)
    except KNOWN_ERRORS as error:
        return Finding("Bundle", "fail", settings.bundle, str(error))
    wants = f"{len(spec.ch_names)} electrodes, {spec.sfreq:g} Hz, {spec.n_times} samples"
    return Finding("Bundle", "ok", f"{bundle} ({wants})")


def _lsl() -> Finding:
    from acquisition.lsl_network import load_pylsl

    try:
        version = int(load_pylsl().library_version())
    except Exception as error:
        return Finding(
            "LSL", "warn", f"does not load ({error})", "For LSL streams: pip install pylsl mne-lsl."
        )
    found = f"liblsl {version // 100}.{version % 100}"
    if version < LSL_VERSION:
        remedy = "1.18 finds several streams of one machine more surely: pip install -U pylsl."
        return Finding("LSL", "warn", found, remedy)
    return Finding("LSL", "ok", found)


def _brainflow() -> Finding:
    from acquisition.brainflow_boards import load_brainflow

    try:
        return Finding("BrainFlow", "ok", str(load_brainflow().BoardShim.get_version()))
    except Exception as error:
        remedy = "Headsets by BrainFlow need it: pip install brainflow. LSL works without."
        return Finding("BrainFlow", "warn", f"does not load ({error})", remedy)


def _serial_ports() -> Iterator[Finding]:
    """Ports at which a headset's dongle may be."""
    ports = sorted(glob.glob("/dev/ttyUSB*") + glob.glob("/dev/ttyACM*"))
    for port in ports:
        if not os.access(port, os.R_OK | os.W_OK):
            remedy = (
                "Join the group that owns it (sudo usermod -aG dialout $USER) and log in again."
            )
            yield Finding("Serial port", "fail", f"{port} may not be opened", remedy)
            continue
        yield Finding("Serial port", "ok", port)
        latency = Path("/sys/bus/usb-serial/devices", Path(port).name, "latency_timer")
        if latency.is_file() and (milliseconds := latency.read_text().strip()) != "1":
            remedy = f"Samples come in bursts. As root: echo 1 > {latency}"
            yield Finding("Serial latency", "warn", f"{port}: {milliseconds} ms", remedy)


def _bus() -> Finding:
    import zmq

    from app.bus import LONGEST_NAME

    if not zmq.has("ipc"):
        return Finding("Local bus", "ok", "loopback TCP with keys (the system has no ipc)")
    with tempfile.TemporaryDirectory(prefix="phosphene-") as name:
        path = Path(name) / LONGEST_NAME
        with zmq.Context() as context, context.socket(zmq.PUB) as socket:
            try:
                socket.bind(f"ipc://{path}")
            except zmq.ZMQError as error:
                remedy = "Set TMPDIR to a short path that can be written, such as /tmp."
                return Finding("Local bus", "fail", f"{path}: {error}", remedy)
    return Finding("Local bus", "ok", f"ipc in {tempfile.gettempdir()}")


def _address(settings: Settings) -> Finding:
    from app.serve import listen_once

    where = f"{settings.host}:{settings.port}"
    try:
        listen_once(settings.host, settings.port)
    except KNOWN_ERRORS as error:
        return Finding("Address", "warn", where, str(error))
    return Finding("Address", "ok", f"{where} is free")


def _browser() -> Finding:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and sys.platform == "linux":
        remedy = "Open the printed address in a browser elsewhere, or: apt install chromium."
        return Finding("Browser", "warn", "none found", remedy)
    if not has_display():
        remedy = "The address is printed instead of opened."
        return Finding("Browser", "warn", f"{found}, but no display", remedy)
    return Finding("Browser", "ok", found or "the system's")


def _machine() -> Iterator[Finding]:
    cores = n_cores()
    remedy = "Two or more are needed for pictures that keep up with the EEG." if cores < 2 else ""
    yield Finding("Cores", "warn" if cores < 2 else "ok", str(cores), remedy)
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    is_enough = gigabytes >= MEMORY_GB
    remedy = "" if is_enough else f"{MEMORY_GB:g} GB or more are needed."
    yield Finding("Memory", "ok" if is_enough else "warn", f"{gigabytes:.1f} GB", remedy)


def _font() -> Finding:
    from app import pictures

    for folder in pictures.FONT_FOLDERS:
        for path in Path(folder).expanduser().rglob("NotoColorEmoji.ttf"):
            return Finding("Emoji font", "ok", str(path))
    remedy = "Only drawing training pictures needs it: apt install fonts-noto-color-emoji."
    return Finding("Emoji font", "warn", "Noto Color Emoji is not installed", remedy)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; what cannot be looked at is a finding too."""
    checks: Sequence[Callable[[], Finding | Iterator[Finding]]] = (
        _python,
        _torch,
        lambda: _bundle(settings),
        _lsl,
        _brainflow,
        _serial_ports,
        _bus,
        lambda: _address(settings),
        _browser,
        _machine,
        _font,
    )
    findings: list[Finding] = []
    for check in checks:
        result: Any = check()
        findings += [result] if isinstance(result, Finding) else result
    return findings


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing must be mended."""
    return all(f.grade != "fail" for f in findings)


def findings_text(findings: Sequence[Finding]) -> str:
    """One line each, the remedy below."""
    width = max(len(f.what) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.grade:4}  {f.what:{width}}  {f.found}")
        if f.remedy:
            lines.append(f"{'':{width + 8}}{f.remedy}")
    return "\n".join(lines)
