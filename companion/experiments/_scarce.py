"""What the studies of scarce and noisy data share: ensembles over levels, and fair early stopping.

A study trains one ensemble: `levels` of difficulty times `seeds`, level after level. All members of
one seed see the same random numbers, so that levels and variants are compared like with like.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from companion import training
from companion.datasets import FiniteMeasurements, Measurements
from companion.lagrangian import LagrangianNetwork

Numbers = Sequence[float | int]
Errors = Callable[..., Tensor]  # (net, q, qdot, qddot) -> (S, B)


def grid(levels: Sequence, seeds: Sequence[int]) -> tuple[list, list[int]]:
    """The level and the seed of every member, level after level."""
    return [level for level in levels for _ in seeds], [s for _ in levels for s in seeds]


def log_square(
    net: LagrangianNetwork,
    q: Float[Tensor, "S B d"],
    qdot: Float[Tensor, "S B d"],
    qddot: Float[Tensor, "S B d"],
) -> Float[Tensor, "S B"]:
    r"""The error $\log(1 + |\Delta|^2)$: the square, where it is small."""
    return torch.log1p((net.acceleration(q, qdot, check=False) - qddot).square().sum(-1))


class BestSoFar:
    """Early stopping: keeps every member as it was when its validation error was smallest.

    Member after member, never later than it is best: the same rule for every network.

    Args:
        net: the ensemble in training.
        error: its validation error now, `(S,)`; nan counts as worst.
    """

    def __init__(self, net: torch.nn.Module, error: Callable[[], Float[Tensor, " S"]]) -> None:
        self.net = net
        self.error = error
        self.best: Tensor | None = None
        self.step: Tensor = torch.zeros(0)
        self.kept = {name: p.detach().clone() for name, p in net.named_parameters()}

    @torch.no_grad()
    def look(self, step: int) -> None:
        """Measures the validation error and keeps the members that have improved."""
        now = self.error().nan_to_num(nan=math.inf)
        if self.best is None:
            self.best, self.step = torch.full_like(now, math.inf), torch.zeros_like(now)
        better: Bool[Tensor, " S"] = now < self.best
        self.best, self.step = now.minimum(self.best), self.step.where(~better, step)
        for name, p in self.net.named_parameters():
            self.kept[name][better] = p[better]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts every member back to its best step."""
        for name, p in self.net.named_parameters():
            p.copy_(self.kept[name])


def fit(
    net: LagrangianNetwork,
    errors: Errors,
    data: Callable[[int], Measurements],
    *,
    held_out: tuple[Measurements, Float[Tensor, "S V"]] | None = None,
    looks: int = 60,
    steps: int,
    progress: bool = False,
    **schedule,
) -> tuple[training.History, list[int]]:
    """Trains the ensemble; with `held_out` measurements, each member ends at its best of `looks`.

    Returns the history and the step at which each member was best (empty without `held_out`).
    """
    watch = None
    if held_out is not None:
        (q, qdot, qddot), weights = held_out
        watch = BestSoFar(net, lambda: (errors(net, q, qdot, qddot) * weights).sum(1))
    pause = max(1, steps // looks)

    def batch(step: int) -> Measurements:
        if watch is not None and step % pause == 0:
            watch.look(step)
        return data(step)

    history = training.fit(
        net,
        lambda model, *measured: errors(model, *measured).mean(-1),
        batch,
        steps=steps,
        progress=progress,
        **schedule,
    )
    if watch is None:
        return history, []
    watch.look(steps)
    watch.restore()
    return history, [int(step) for step in watch.step]


def rotated(data: FiniteMeasurements | Callable, rotations: Callable) -> Callable:
    """The same data, the measurements of every step turned by `rotations(step, B)`, `(B, d, d)`."""

    def batch(step: int) -> Measurements:
        measured = data(step)
        q, qdot, qddot = turn(measured, rotations(step, measured[0].shape[1]))
        return q, qdot, qddot

    return batch


def turn(
    vectors: Sequence[Float[Tensor, "S B d"]], R: Float[Tensor, "B d d"]
) -> list[Float[Tensor, "S B d"]]:
    """Every vector turned by its own rotation, the same for all members."""
    return [torch.einsum("bij,sbj->sbi", R.to(x), x) for x in vectors]


def smooth(values: Float[Tensor, "levels seeds"]) -> list[float]:
    """The geometric mean over seeds, level by level."""
    return values.log().mean(1).exp().tolist()


def worth(levels: Numbers, better: Numbers, worse: Numbers, at: int) -> tuple[float, bool]:
    """The factor in the level at which `better` reaches the error that `worse` has at level `at`.

    Errors fall with the level (numbers of measurements); between levels both curves are straight
    on logarithmic axes. Returns levels[at] / that level, and whether it is only a lower bound,
    because `better` is there at the first level already. A factor below 1 says that `better` is
    worse; nan, that it never gets there.
    """
    target = math.log(worse[at])
    x, y = [math.log(v) for v in levels], [math.log(v) for v in better]
    if y[0] <= target:
        return levels[at] / levels[0], True
    for k in range(1, len(x)):
        if y[k] <= target:
            part = (y[k - 1] - target) / (y[k - 1] - y[k])
            return levels[at] / math.exp(x[k - 1] + part * (x[k] - x[k - 1])), False
    return math.nan, False


def crossing(levels: Numbers, a: Numbers, b: Numbers) -> float:
    """The last level at which curve `b` falls below curve `a`, on logarithmic axes; nan: never."""
    gap = [math.log(u / v) for u, v in zip(a, b, strict=True)]
    found = math.nan
    for k in range(1, len(levels)):
        if gap[k - 1] < 0 <= gap[k]:
            part = gap[k - 1] / (gap[k - 1] - gap[k])
            found = levels[k - 1] * (levels[k] / levels[k - 1]) ** part
    return found
