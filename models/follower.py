"""What is painted follows what the EEG says: a critically damped spring, token by token.

Each token of the conditioning is a direction and a length. Directions turn on the great circle
to where the newest epoch points (slerp), lengths go straight. Both follow
x'' = w^2 (c - x) - 2 w x', solved exactly: two steps of dt are one of 2 dt, but where a turn is
so fast that it is limited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from models.fusing import Fuse, as_it_is

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


class Vectors(NamedTuple):
    """Directions (n, dim) of unit length, or zero, and lengths (n, 1)."""

    direction: torch.Tensor
    length: torch.Tensor

    @classmethod
    def of(cls, vectors: torch.Tensor) -> Vectors:
        """Vectors (n, dim), taken apart."""
        length = vectors.norm(dim=-1, keepdim=True)
        return cls(vectors / length.clamp(min=EPSILON), length)


class Arcs(NamedTuple):
    """Vectors that follow others, each on its own arc.

    Two filters of the first order, one after the other, are the critically damped spring: the
    state is where each of them is.
    """

    end: Vectors
    pull: Vectors
    place: Vectors

    @classmethod
    def at(cls, vectors: torch.Tensor) -> Arcs:
        """At rest at vectors (n, dim)."""
        # Each its own tensors: what is the same one is compiled otherwise.
        return cls(*(Vectors.of(vectors) for _ in range(3)))

    def aim(self, vectors: torch.Tensor) -> Arcs:
        """On the way to vectors (n, dim) from now on."""
        return self._replace(end=Vectors.of(vectors))

    def move(self, pace: torch.Tensor) -> tuple[Arcs, torch.Tensor]:
        """Move on.

        Parameters
        ----------
        pace : see `paces`.

        Returns
        -------
        where they are then, and by what angle each turned, in radians (n,).
        """
        share, decay, most_turn = pace
        end, pull, place = self
        away, pulled = _log(end.direction, place.direction), _log(end.direction, pull.direction)
        turn = _log(place.direction, _exp(end.direction, decay * (away + share * pulled)))
        angle = turn.norm(dim=-1, keepdim=True)
        most = (most_turn / angle.clamp(min=EPSILON)).clamp(max=1)
        pull_left = pull.length - end.length
        left = place.length - end.length + share * pull_left
        moved = Arcs(
            end,
            Vectors(_exp(end.direction, decay * pulled), end.length + decay * pull_left),
            Vectors(_exp(place.direction, most * turn), end.length + decay * left),
        )
        return moved, (most * angle)[:, 0]

    def vectors(self) -> torch.Tensor:
        """Where they are, (n, dim)."""
        return self.place.direction * self.place.length

    def left(self) -> torch.Tensor:
        """What the one that is farthest from its end has to turn, in radians ()."""
        left: torch.Tensor = _log(self.end.direction, self.place.direction).norm(dim=-1).max()
        return left


def paces(dt: float) -> list[float]:
    """Of `dt` seconds: as a share of the spring's, what is left after, and the most of a turn."""
    return [dt / TAU, math.exp(-dt / TAU), MOST_TURN * dt]


def _move(
    context: Arcs, time: Arcs, pace: torch.Tensor
) -> tuple[Arcs, Arcs, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both moved on, where they are, and (2,) mean turn of the tokens and what is left of all."""
    context, turned = context.move(pace)
    time, _ = time.move(pace)
    told = torch.stack([turned.mean(), torch.maximum(context.left(), time.left())])
    return context, time, context.vectors(), time.vectors(), told


class Follower:
    """Conditioning that moves smoothly to the newest one.

    The first is taken as it is: there is nothing to come from.

    Parameters
    ----------
    first : where it begins.
    fuse : makes its arithmetic faster.
    """

    def __init__(self, first: Conditioning, fuse: Fuse = as_it_is) -> None:
        self._move = fuse(_move)
        self._context = Arcs.at(first.context[0].float())
        self._time = Arcs.at(first.time_embedding.float())
        self._told = first
        self._left = 0.0

    def aim(self, target: Conditioning) -> None:
        """Take the newest conditioning."""
        self._context = self._context.aim(target.context[0].float())
        self._time = self._time.aim(target.time_embedding.float())
        self._left = math.inf

    def step(self, dt: float) -> float:
        """Move on by `dt` seconds; the mean speed of the tokens, in radians a second."""
        pace = torch.tensor(paces(dt), device=self._context.end.length.device)
        self._context, self._time, context, time, told = self._move(self._context, self._time, pace)
        self._told = Conditioning(context[None], time)
        # Both at once: a GPU is waited for.
        turned, self._left = map(float, told.tolist())
        return turned / max(dt, EPSILON)

    def conditioning(self) -> Conditioning:
        """Where it was after the last step, in single precision."""
        return self._told

    @property
    def is_at_rest(self) -> bool:
        """Whether after the last step no token had a hundredth of a radian to go."""
        return self._left < AT_REST


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
