from __future__ import annotations

from pathlib import Path

import pytest

import app.serve
from app.errors import SettingsError
from app.settings import Settings


def test_a_container_listens_everywhere_and_keeps_the_rights_of_loopback() -> None:
    assert Settings().listen_host == "127.0.0.1"
    settings = Settings(in_container=True)
    assert settings.listen_host == "0.0.0.0"
    assert settings.host == "127.0.0.1"
    assert settings.is_loopback


def test_a_container_is_called_by_this_machines_name() -> None:
    with pytest.raises(SettingsError, match="Leave --host out"):
        Settings(in_container=True, host="10.0.0.1", allow_remote=True, tls_cert="c", tls_key="k")


def test_outside_a_container_the_flag_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(app.serve, "CONTAINER_MARKS", (tmp_path / "none",))
    with pytest.raises(SettingsError, match="this is none"):
        app.serve.serve(Settings(in_container=True), print)


def test_of_a_container_one_source_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.serve, "CONTAINER_MARKS", (Path(__file__),))
    with pytest.raises(SettingsError, match="Run a container for each"):
        app.serve.serve(Settings(in_container=True, also=("simulated:",)), print)
