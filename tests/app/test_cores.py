import os
import subprocess
import sys

import pytest

from app.cores import NICENESS, worker_threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_the_worker_leaves_a_core_to_the_others(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_threads(0) == threads


def test_a_setting_overrides_the_count() -> None:
    assert worker_threads(5) == 5


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system knows no niceness")
def test_a_process_that_gives_way_is_nicer_than_it_was() -> None:
    code = "import os; from app.cores import give_way; n = os.nice(0); give_way(); "
    code += "print(os.nice(0) - n)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before = os.nice(0)
    assert int(done.stdout) == min(NICENESS, 19 - before)
