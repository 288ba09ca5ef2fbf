import json
import os
import socket
import sys
from pathlib import Path

import pytest

import app.doctor
from acquisition.simulated_subject import CH_NAMES
from app.doctor import Finding, examine, findings_text, is_well
from app.settings import Settings


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "epoch_spec.json").write_text(json.dumps({"ch_names": list(CH_NAMES)}))
    (folder / "model_index.json").write_text("{}")
    return folder


def line(findings: list[Finding], what: str) -> Finding:
    return next(f for f in findings if f.what == what)


def test_every_part_gets_a_line(bundle: Path) -> None:
    findings = examine(Settings(bundle=str(bundle), port=0))

    whats = {f.what for f in findings}
    assert {"Python", "PyTorch", "GPU", "Bundle", "LSL", "BrainFlow", "Local bus", "Address",
            "Browser", "Cores", "Emoji font"} <= whats  # fmt: skip
    assert line(findings, "Bundle").grade == "ok"
    assert "32 electrodes, 250 Hz, 256 samples" in line(findings, "Bundle").found
    assert line(findings, "PyTorch").grade == "ok"
    for finding in findings:
        assert (finding.grade == "ok") == (finding.remedy == ""), finding


def test_a_missing_bundle_must_be_mended(tmp_path: Path) -> None:
    findings = [app.doctor._bundle(Settings(bundle=str(tmp_path / "none")))]

    assert not is_well(findings)
    assert "--bundle" in findings[0].remedy


def test_a_bundle_without_a_model_must_be_mended(bundle: Path) -> None:
    (bundle / "model_index.json").unlink()
    finding = app.doctor._bundle(Settings(bundle=str(bundle)))
    assert (finding.grade, "no model_index.json" in finding.remedy) == ("fail", True)


def test_a_taken_address_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finding = app.doctor._address(Settings(port=taken.getsockname()[1]))
    assert (finding.grade, "is taken" in finding.remedy) == ("warn", True)


def test_an_old_python_must_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    assert app.doctor._python().grade == "fail"


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    [finding] = app.doctor._torch()
    assert (finding.grade, finding.remedy) == ("fail", "Install it: make setup.")


def test_a_port_that_may_not_be_opened_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = {"/dev/ttyUSB*": ["/dev/ttyUSB0"]}
    monkeypatch.setattr("glob.glob", lambda pattern: ports.get(pattern, []))
    monkeypatch.setattr(os, "access", lambda *_: False)
    [finding] = app.doctor._serial_ports()
    assert (finding.what, finding.grade) == ("Serial port", "fail")
    assert "dialout" in finding.remedy


def test_the_remedy_stands_below_its_line() -> None:
    text = findings_text(
        [Finding("Cores", "ok", "8"), Finding("LSL", "warn", "old", "Upgrade it.")]
    )
    assert text.splitlines() == [
        "ok    Cores  8",
        "warn  LSL    old",
        "             Upgrade it.",
    ]
