"""What is painted follows what the EEG says: a critically damped spring, token by token.

Each token of the conditioning is a direction and a length. Directions turn on the great circle
to where the newest epoch points (slerp), lengths go straight. Both follow
x'' = w^2 (c - x) - 2 w x', solved exactly: two steps of dt are one of 2 dt, but where a turn is
so fast that it is limited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# Seconds of the spring: half of a step of the conditioning is covered after 1.68 of these.
TAU = 0.08
# The fastest turn, in radians a second: one epoch that is far off must not cut the picture. A
# right angle peaks at 7.2 by itself.
MOST_TURN = 8.0
# Radians, in which no picture changes visibly.
AT_REST = 0.01
# Of sines of angles, below which a direction is at its end.
EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the U-Net is told.

    Attributes
    ----------
    context : (1, n_context, dim), tokens for the cross-attention.
    time_embedding : (1, dim), added to that of the timestep.
    """

    context: torch.Tensor
    time_embedding: torch.Tensor

    def is_same(self, other: Conditioning) -> bool:
        """Whether both tell the same, to the bit."""
        return torch.equal(self.context, other.context) and torch.equal(
            self.time_embedding, other.time_embedding
        )


class _Turning:
    """Vectors (n, dim) that follow others, each on its own arc.

    Two filters of the first order, one after the other, are the critically damped spring: the
    state is where each of them is.

    Parameters
    ----------
    start : where both begin.
    """

    def __init__(self, start: torch.Tensor) -> None:
        self._target = self._pull = self._place = _polar(start)

    def aim(self, target: torch.Tensor) -> None:
        """Turn to vectors (n, dim)."""
        self._target = _polar(target)

    def step(self, dt: float) -> torch.Tensor:
        """Move on by `dt` seconds; how fast each turns, in radians a second (n,)."""
        decay, share = math.exp(-dt / TAU), dt / TAU
        end, end_length = self._target
        pull, pull_length = self._pull
        place, length = self._place
        away, pulled = _log(end, place), _log(end, pull)
        turn = _log(place, _exp(end, decay * (away + share * pulled)))
        angle = turn.norm(dim=-1, keepdim=True)
        most = (MOST_TURN * dt / angle.clamp(min=EPSILON)).clamp(max=1)
        left = length - end_length + share * (pull_length - end_length)
        self._place = _exp(place, most * turn), end_length + decay * left
        self._pull = _exp(end, decay * pulled), end_length + decay * (pull_length - end_length)
        speed: torch.Tensor = (most * angle)[:, 0] / max(dt, EPSILON)
        return speed

    def vectors(self) -> torch.Tensor:
        """Where they are, (n, dim)."""
        direction, length = self._place
        return direction * length

    def rest(self) -> float:
        """What the one that is farthest from its end has to turn, in radians."""
        return float(_log(self._target[0], self._place[0]).norm(dim=-1).max())


class Follower:
    """Conditioning that moves smoothly to the newest one.

    The first is taken as it is: there is nothing to come from.
    """

    def __init__(self, first: Conditioning) -> None:
        self._context = _Turning(first.context[0].float())
        self._time = _Turning(first.time_embedding.float())
        self._dtype = first.context.dtype

    def aim(self, target: Conditioning) -> None:
        """Take the newest conditioning."""
        self._context.aim(target.context[0].float())
        self._time.aim(target.time_embedding.float())

    def step(self, dt: float) -> float:
        """Move on by `dt` seconds; the mean speed of the tokens, in radians a second."""
        speed = self._context.step(dt)
        self._time.step(dt)
        return float(speed.mean())

    def conditioning(self) -> Conditioning:
        """Where it is now."""
        return Conditioning(
            self._context.vectors()[None].to(self._dtype), self._time.vectors().to(self._dtype)
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether no token has a hundredth of a radian to go."""
        return max(self._context.rest(), self._time.rest()) < AT_REST


def _polar(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (n, dim) of unit length, or zero, and lengths (n, 1)."""
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors / length.clamp(min=EPSILON), length


def _log(base: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """The tangent at `base` that leads to `point`, both unit vectors (n, dim)."""
    along = (base * point).sum(-1, keepdim=True)
    across = point - along * base
    sine = across.norm(dim=-1, keepdim=True)
    out: torch.Tensor = across * (torch.atan2(sine, along) / sine.clamp(min=EPSILON))
    return out


def _exp(base: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    """Where `tangent` leads to from `base`: unit vectors (n, dim)."""
    angle = tangent.norm(dim=-1, keepdim=True)
    out = base * torch.cos(angle) + tangent * torch.sinc(angle / math.pi)
    unit: torch.Tensor = out / out.norm(dim=-1, keepdim=True).clamp(min=EPSILON)
    return unit
