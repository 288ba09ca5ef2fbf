"""The real-time painter: towards the newest epoch, smoothly, and again the same."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import painter as module
from models.errors import BundleError, EpochShapeError
from models.fusing import Compiler
from models.keyframes import KeyframePainter
from models.ladder import RUNGS, TICK, Ladder, Rung
from models.latents import slerp, statistics
from models.networks import EagerNetworks
from models.painter import PainterGroup, StreamPainter, open_painter
from models.pipeline import EEGToImagePipeline, load_bundle
from tests.tiny_bundle import make_distilled_bundle


class OneRung(Ladder):
    """A ladder of which one rung is used."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.one = rung
        self.told: list[int] = []

    @property
    def rung(self) -> Rung:
        return self.one

    def took(self, calls: int, in_calls: float, in_decoding: float) -> None:
        assert in_calls >= 0
        assert in_decoding > 0
        self.told.append(calls)


class Counted(EagerNetworks):
    """Counts its calls, and keeps the timesteps."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__(pipeline)
        self.timesteps: list[int] = []

    def predict(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.timesteps.append(int(inputs[1]))
        return super().predict(*inputs)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_distilled_bundle(tmp_path_factory.mktemp("distilled") / "bundle")


@pytest.fixture(scope="module")
def pipeline(distilled: Path) -> EEGToImagePipeline:
    return load_bundle(distilled)


Make = Callable[..., tuple[StreamPainter, Counted, OneRung]]


@pytest.fixture
def make(pipeline: EEGToImagePipeline) -> Make:
    def made(rung: Rung = RUNGS[1], seed: int = 0) -> tuple[StreamPainter, Counted, OneRung]:
        networks, ladder = Counted(pipeline), OneRung(rung)
        return StreamPainter(pipeline, networks, seed, ladder), networks, ladder

    return made


def epoch(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(32, 256)).astype(np.float32)


def play(painter: StreamPainter, n: int, dt: float = TICK) -> list[Any]:
    return [painter.step(dt) for _ in range(n)]


def test_before_the_first_epoch_there_is_nothing(make: Make) -> None:
    painter, networks, _ = make()
    assert not painter.is_moving
    assert painter.step(TICK) is None
    assert networks.timesteps == []


def test_it_settles_and_holds_the_last_frame(make: Make) -> None:
    painter, networks, _ = make()
    painter.aim(epoch(0))
    frames = play(painter, 200)
    painted = [frame for frame in frames if frame is not None]
    assert 0 < len(painted) < 200
    assert frames[len(painted) :] == [None] * (200 - len(painted))
    assert not painter.is_moving
    assert {frame.state for frame in painted} == {"painted"}
    n_calls = len(networks.timesteps)
    play(painter, 10)
    assert len(networks.timesteps) == n_calls, "what is held costs nothing"


def test_a_new_epoch_moves_it_and_the_same_again_does_not(make: Make) -> None:
    painter, _, _ = make()
    painter.aim(epoch(0))
    before = [frame for frame in play(painter, 200) if frame][-1].rgb
    painter.aim(epoch(1))
    moved = [frame.rgb for frame in play(painter, 200) if frame]
    assert len(moved) > 3
    assert np.abs(moved[-1].astype(int) - before).max() > 3


def test_an_epoch_that_says_the_same_is_told_by_one_held_frame(make: Make) -> None:
    painter, networks, ladder = make()
    painter.aim(epoch(1))
    last = [frame for frame in play(painter, 200) if frame][-1]
    networks.timesteps.clear()
    ladder.told.clear()
    painter.aim(epoch(1))
    assert painter.is_moving
    held, *rest = play(painter, 200)
    assert held is not None
    assert (held.state, set(rest)) == ("held", {None})
    np.testing.assert_array_equal(held.rgb, last.rgb)
    assert (networks.timesteps, ladder.told) == ([], [0])


def test_an_epoch_that_says_the_same_on_the_way_changes_nothing(make: Make) -> None:
    def frames(ticks: tuple[int, ...]) -> list[np.ndarray]:
        painter, _, _ = make()
        painter.aim(epoch(0))
        play(painter, 100)
        out = []
        for tick in range(20):
            if tick in ticks:
                painter.aim(epoch(1))
            out.append(painter.step(TICK))
        return [frame.rgb for frame in out if frame]

    once, again = frames((0,)), frames((0, 1, 3))
    assert len(once) == len(again)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_epochs_and_times_give_the_same_frames_and_another_seed_others(make: Make) -> None:
    def frames(seed: int) -> list[np.ndarray]:
        painter, _, _ = make(seed=seed)
        out: list[Any] = []
        for k in range(3):
            painter.aim(epoch(k))
            out += play(painter, 4, 0.05)
        return [frame.rgb for frame in out if frame is not None]

    first, second = frames(0), frames(0)
    assert len(first) > 6
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], frames(1)[0])


def test_how_fast_it_turns_chooses_the_noise(make: Make) -> None:
    painter, networks, _ = make()
    painter.aim(epoch(0))
    play(painter, 100)
    networks.timesteps.clear()
    painter.aim(epoch(1))
    play(painter, 100)
    levels = networks.timesteps[:1] + networks.timesteps[2:]
    assert networks.timesteps[1] == 999, "an anchor begins from nothing but noise"
    assert max(levels[:6]) == 749, "a new concept is painted anew"
    assert levels[-1] == 249, "a known one is kept"
    assert set(levels) <= {249, 499, 749}


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_every_rung_ends_at_much_the_same_picture(make: Make, rung: Rung) -> None:
    painter, networks, ladder = make(rung)
    assert painter.period == rung.period
    painter.aim(epoch(0))
    play(painter, 200, rung.period)
    painter.aim(epoch(1))
    networks.timesteps.clear()
    ladder.told.clear()
    frames = [frame for frame in play(painter, 200, rung.period) if frame is not None]
    assert sum(ladder.told) == len(networks.timesteps)
    assert len(ladder.told) == len(frames)
    states = [frame.state for frame in frames]
    assert states[-1] == "painted"
    if rung.is_halved:
        assert set(states[::2]) == {"interpolated"}
        assert set(states[1::2]) == {"painted"}
    elif rung.calls == 0:
        assert set(states[:-1]) == {"interpolated"}
        assert len(networks.timesteps) == 2
    else:
        assert set(states) == {"painted"}
        more = len(networks.timesteps) - 1
        # Where little moves, one call is enough.
        assert more == len(frames) if rung.calls == 1 else len(frames) < more < 2 * len(frames)
    keyframe, _, _ = make(RUNGS[-1])
    keyframe.aim(epoch(1))
    wanted = [frame for frame in play(keyframe, 50) if frame is not None][-1].rgb
    assert np.abs(frames[-1].rgb.astype(int) - wanted).mean() < 12


def test_a_pair_of_frames_takes_the_time_of_both(make: Make) -> None:
    half, whole = make(RUNGS[2])[0], make(RUNGS[1])[0]
    for painter in (half, whole):
        painter.aim(epoch(0))
        play(painter, 100)
        assert not painter.is_moving
        painter.aim(epoch(1))
    # The first of a pair has the time of its own tick and of the one that passed since.
    play(half, 5)
    for dt in (TICK, 2 * TICK, 2 * TICK):
        whole.step(dt)
    for name in ("context", "time_embedding"):
        a, b = (getattr(p._follower.conditioning(), name) for p in (half, whole))  # type: ignore[union-attr]
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_colours_go_to_those_of_the_anchor_and_stay(make: Make) -> None:
    painter, _, _ = make()
    for k in range(3):
        painter.aim(epoch(k))
        play(painter, 100)
        found, wanted = (statistics(z) for z in (painter._latents, painter._anchor))
        assert float((found - wanted).norm()) < 0.1 * float(wanted.norm())


def test_the_loop_goes_on_from_a_keyframe_as_it_is(make: Make) -> None:
    painter, _, ladder = make(RUNGS[-1])
    for k in range(2):
        painter.aim(epoch(k))
        play(painter, 40)
    keyframe = statistics(painter._latents)
    ladder.one = RUNGS[1]
    # Nearly the same: of the same to the bit nothing would be painted.
    painter.aim(1.0001 * epoch(1))
    play(painter, 1)
    torch.testing.assert_close(statistics(painter._latents), keyframe, atol=0.02, rtol=0.02)


def test_latents_between_others_are_as_long_and_on_the_arc() -> None:
    a, b = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    middle = slerp(a, b, 0.5)
    assert float(middle.norm()) == pytest.approx(float(a.norm() + b.norm()) / 2, rel=1e-4)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(0 * a, b, 0.5), b / 2)


# Bundles


def test_a_distilled_bundle_streams_and_another_paints_keyframes(
    tiny_bundle: Path, distilled: Path
) -> None:
    stream, keyframes = open_painter(distilled), open_painter(tiny_bundle)
    assert isinstance(stream, StreamPainter)
    assert isinstance(keyframes, KeyframePainter)
    for painter in (stream, keyframes):
        assert not painter.is_moving, "warming up leaves nothing behind"
        decoded = painter.aim(epoch(0))
        assert len(decoded.concepts) == 40
        frame = painter.step(TICK)
        assert frame is not None
        assert frame.rgb.shape == (32, 32, 3)
    _, wanted = KeyframePainter.from_bundle(tiny_bundle).paint(epoch(0))
    assert np.abs(frame.rgb.astype(int) - wanted.rgb).max() <= 1


def test_a_guided_bundle_is_compiled_for_two_rows(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "guided")
    sampler = {"num_inference_steps": 2, "guidance_scale": 3.0}
    (folder / "painter.json").write_text(json.dumps(sampler))
    painter = open_painter(folder)
    painter.aim(epoch(0))
    frame = painter.step(0.0)
    assert frame is not None
    _, wanted = KeyframePainter.from_bundle(folder).paint(epoch(0))
    assert np.abs(frame.rgb.astype(int) - wanted.rgb).max() <= 1


def test_parts_that_do_not_fit_each_other_are_a_bundle_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(*_args: object) -> None:
        raise RuntimeError("expected input to have 4 channels\nand more")

    monkeypatch.setattr(module, "open_networks", unfit)
    with pytest.raises(BundleError, match=r"loads but cannot paint \(.*channels\)\. Its parts"):
        open_painter(tiny_bundle)


def test_an_epoch_of_another_shape_is_refused(make: Make) -> None:
    painter, _, _ = make()
    with pytest.raises(EpochShapeError, match="not \\(16, 256\\)"):
        painter.aim(np.zeros((16, 256), np.float32))
    assert not painter.is_moving


# Several sessions


class Rows(EagerNetworks):
    """Keeps how many rows each call had, and how many of their timesteps differ."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__(pipeline)
        self.rows: list[tuple[int, int]] = []

    def predict(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.rows.append((len(inputs[0]), len(inputs[1].unique())))
        return super().predict(*inputs)


def test_sessions_that_share_calls_paint_what_each_paints_alone(
    pipeline: EEGToImagePipeline, make: Make
) -> None:
    rungs = (RUNGS[0], RUNGS[1], RUNGS[-1])
    alone = [make(rung)[0] for rung in rungs]
    together = [make(rung)[0] for rung in rungs]
    networks = Rows(pipeline)
    group = PainterGroup(together, networks, 3)
    compared = 0
    for tick in range(24):
        for i in range(3):
            # Each session has its own epochs, at its own times.
            if tick % (5 + i) == i:
                for painter in (alone[i], together[i]):
                    painter.aim(epoch(10 * i + tick))
        # The second one is due every second tick.
        dts = [TICK, 2 * TICK if tick % 2 == 0 else None, TICK]
        frames = group.step(dts)
        for painter, dt, frame in zip(alone, dts, frames, strict=True):
            expected = None if dt is None else painter.step(dt)
            assert (frame is None) == (expected is None)
            if frame and expected:
                compared += 1
                assert frame.state == expected.state
                # A batch of another shape rounds otherwise.
                assert np.abs(frame.rgb.astype(int) - expected.rgb).max() <= 1
    assert compared > 40
    assert {n for n, _ in networks.rows} == {3}, "one shape, whoever asks"
    assert any(n_levels > 1 for _, n_levels in networks.rows)


def test_fused_arithmetic_is_compiled_once_for_all_and_paints_the_same(
    pipeline: EEGToImagePipeline,
) -> None:
    def frames(networks: EagerNetworks) -> list[Any]:
        painters = [StreamPainter(pipeline, networks, seed, OneRung(RUNGS[0])) for seed in (0, 1)]
        group, out = PainterGroup(painters, networks), []
        for tick in range(20):
            if tick % 8 == 0:
                for i, painter in enumerate(painters):
                    painter.aim(epoch(tick + i))
            out += group.step([TICK * (1 + tick % 3), TICK])
        return out

    class Fused(EagerNetworks):
        fused = Compiler("aot_eager")

    torch.compiler.reset()
    # Other times, noise levels, sessions: whatever changes from frame to frame, the code stays.
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = frames(Fused(pipeline))
    assert sum(frame is not None for frame in found) > 20
    for a, b in zip(found, frames(EagerNetworks(pipeline)), strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.abs(a.rgb.astype(int) - b.rgb).max() <= 1


def test_what_a_gpu_still_computes_is_time_of_the_calls(pipeline: EEGToImagePipeline) -> None:
    class Queued(EagerNetworks):
        def wait(self) -> None:
            time.sleep(0.05)

    class Times(OneRung):
        def took(self, calls: int, in_calls: float, in_decoding: float) -> None:
            super().took(calls, in_calls, in_decoding)
            assert in_calls > 0.05

    ladder = Times(RUNGS[1])
    painter = StreamPainter(pipeline, Queued(pipeline), 0, ladder)
    painter.aim(epoch(0))
    play(painter, 3)
    assert ladder.told


def test_who_rests_costs_a_group_nothing(pipeline: EEGToImagePipeline, make: Make) -> None:
    painters = [make()[0] for _ in range(2)]
    networks = Rows(pipeline)
    group = PainterGroup(painters, networks)
    assert group.step([TICK, TICK]) == [None, None]
    assert networks.rows == []
    painters[1].aim(epoch(0))
    first, second = group.step([TICK, TICK])
    assert first is None
    assert second is not None
