"""Silence is noticed, at the stream's own pace."""

from acquisition.stall import StallTimer


def test_silence_becomes_a_stall_then_a_loss() -> None:
    timer = StallTimer(0.0)
    assert [timer.state(t) for t in (0.4, 0.6, 2.9, 3.1)] == [
        "running", "stalled", "stalled", "lost",
    ]  # fmt: skip


def test_samples_end_the_stall() -> None:
    timer = StallTimer(0.0)
    timer.feed(2.0)
    assert timer.state(2.1) == "running"
    assert timer.silence(2.1) == 2.1 - 2.0


def test_a_stream_of_long_chunks_is_given_five_of_them() -> None:
    timer = StallTimer(0.0)
    for i in range(100):
        timer.feed(i * 0.4)
    assert timer.state(99 * 0.4 + 1.5) == "running"
    assert timer.state(99 * 0.4 + 2.5) == "stalled"
