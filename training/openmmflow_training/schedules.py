# SPDX-License-Identifier: MIT
"""Numbers that change over a run: weights of losses and the learning rate. Progress runs from 0 to 1."""
from __future__ import annotations

import math

import numpy as np


class Schedule:
    """A number over the progress of a run: linear between points, constant before the first and after the last.

    Parameters
    ----------
    value : a number; or points, pairs (progress, number) of ascending progress (two of the same progress make a jump); or either as
        text: "0.002", or "0:0, 0.5:0, 0.6:0.002".

    Raises
    ------
    ValueError : anything else.
    """

    def __init__(self, value):
        try:
            if isinstance(value, str):
                value = [point.split(":") for point in value.split(",")] if ":" in value else float(value)
            points = [(0.0, value)] if np.isscalar(value) else value
            self.progress, self.values = (np.array(column, dtype=float) for column in zip(*((p, v) for p, v in points)))
        except (TypeError, ValueError):
            raise ValueError(f"{value!r} is no schedule; give a number, or points such as [[0, 0], [0.5, 0.002]] or "
                             '"0:0, 0.5:0.002": pairs of the part of the run that has passed and the number there') from None
        if np.any(np.diff(self.progress) < 0) or self.progress[0] < 0 or self.progress[-1] > 1:
            raise ValueError(f"the points of a schedule must ascend from 0 to 1, got {self.progress.tolist()}")
        if not np.isfinite(self.values).all() or np.any(self.values < 0):
            raise ValueError(f"weights of losses must not be negative and must be finite, got {self.values.tolist()}")

    def __call__(self, progress: float) -> float:
        # The later point of a jump holds at its place.
        after = int(np.searchsorted(self.progress, progress, side="right"))
        if after in (0, len(self.progress)):
            return float(self.values[min(after, len(self.values) - 1)])
        return float(np.interp(progress, self.progress[after - 1:after + 1], self.values[after - 1:after + 1]))

    @property
    def largest(self) -> float:
        """Its largest number."""
        return float(self.values.max())


DECAYS = ("cosine", "step", "constant")


def learning_rate(progress: float, *, highest: float, final: float, warm_up: float, decay: str) -> float:
    """The learning rate at a progress.

    Parameters
    ----------
    highest : at the end of the warm-up, which is linear over the part ``warm_up`` of the run.
    final : the last rate, as a part of the highest.
    decay : "cosine"; "step", three equal factors after a half, three quarters and nine tenths of the run; or "constant", where ``final``
        has no effect.
    """
    progress = min(progress, 1.0)
    if progress < warm_up:
        return highest * max(progress / warm_up, 0.01)
    if decay == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
        return highest * (final + (1 - final) * cosine)
    if decay == "step":
        return highest * final ** (sum(progress >= place for place in (0.5, 0.75, 0.9)) / 3)
    return highest
