import os

import pytest

from app.cores import worker_threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_the_worker_leaves_a_core_to_the_others(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_threads(0) == threads


def test_a_setting_overrides_the_count() -> None:
    assert worker_threads(5) == 5
