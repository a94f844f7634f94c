"""Training data: noisy measurements of a system, a pure function of seed and step."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion.systems.base import System

Measurements = tuple[Float[Tensor, "S B d"], Float[Tensor, "S B d"], Float[Tensor, "S B d"]]


class Trajectory:
    r"""States along one true trajectory, for `NoisyMeasurements(states=...)`.

    A call draws states at random moments of the trajectory that starts at `(q, qdot)`: RK4 with
    step `dt`, every `every`-th state kept (section 3.1.2 of Müller 2023 samples so, every 0.1).

    Args:
        system: whose true motion it is.
        q, qdot: the start, each `(d,)`.
        dt, steps, every: as in `System.rollout`.
    """

    def __init__(
        self,
        system: System,
        q: Float[Tensor, " d"],
        qdot: Float[Tensor, " d"],
        dt: float,
        steps: int,
        every: int = 1,
    ) -> None:
        self.path = system.rollout(q, qdot, dt, steps, every)

    def __call__(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """n states at moments drawn uniformly, with replacement."""
        rows = torch.randint(len(self.path), (n,), generator=generator)
        q, qdot = self.path[rows].to(dtype).chunk(2, dim=-1)
        return q, qdot


class NoisyMeasurements:
    r"""Noisy measurements $(q, \dot q, \ddot q)$ of a system's motion (Müller 2023, section 3.1.1).

    Called with a step it returns fresh data for that step: states drawn by `system.sample`, their
    true accelerations, and independent normal noise of standard deviation `sigma` on all three.
    Member s gets the data of its own seed. The same seed and step always give the same numbers,
    so training can stop and go on anywhere.

    Args:
        system: what is measured; must be able to `sample`, unless `states` are given.
        seeds: one for each member: S of them.
        batch: measurements per member and step, B.
        sigma: standard deviation of the noise, in the units of each quantity; one number, or one
            for each member.
        dtype, device: of the tensors returned.
        states: draws the states instead of `system.sample`; called in the same way, such as a
            `Trajectory`.

    Raises:
        ValueError: `batch` below 1, no seeds, or `sigma` negative, not finite or of another length.
    """

    def __init__(
        self,
        system: System,
        seeds: Sequence[int],
        batch: int = 128,
        sigma: float | Sequence[float] = 1e-3,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        states: Callable[..., tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * len(seeds)
        finite = all(0 <= each < float("inf") for each in (*sigmas, 0.0))
        if batch < 1 or not seeds or not finite or len(sigmas) != len(seeds):
            raise ValueError(
                f"expected batch >= 1, one seed or more, finite sigma >= 0 (one, or one a seed), "
                f"got batch={batch}, seeds={list(seeds)}, sigma={sigma}"
            )
        self.system = system
        self.seeds = tuple(seeds)
        self.batch = batch
        self.sigma = sigma
        self._sigmas = sigmas
        self.dtype = dtype
        self.device = torch.device(device)
        self.states = system.sample if states is None else states

    def __call__(self, step: int) -> Measurements:
        """The data `(q, qdot, qddot)` of a step, each `(S, B, d)`; ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        draws = []
        noise = []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(_mix(seed, step))
            draws.append(torch.stack(self.states(self.batch, generator, self.dtype)))
            shape = (3, *draws[-1].shape[1:])
            noise.append(torch.randn(shape, generator=generator, dtype=self.dtype))
        q, qdot = torch.stack(draws, dim=1)
        exact = torch.stack([q, qdot, self.system.acceleration(q, qdot)])
        size = torch.tensor(self._sigmas, dtype=self.dtype)[:, None, None]
        measured = exact + size * torch.stack(noise, dim=1)
        measured_q, measured_qdot, measured_qddot = measured.to(self.device)
        return measured_q, measured_qdot, measured_qddot


class FiniteMeasurements:
    r"""A finite set of n noisy measurements a member, and the minibatches drawn from it.

    Member s owns the first `sizes[s]` measurements of one stream, the same for every member of its
    seed: a larger set contains the smaller ones. The last `held_out` part of the set is kept for
    validation and never drawn. Called with a step it returns that step's minibatch, drawn with
    replacement from the rest: a pure function of seed and step.

    Args:
        system, sigma, dtype, device, states: as in `NoisyMeasurements`.
        seeds: one for each member.
        sizes: number of measurements n of each member.
        batch: measurements in a minibatch, B.
        held_out: part of every set that is kept for validation, at least one measurement.

    Raises:
        ValueError: not one size a seed, a size below 2, `held_out` not between 0 and 1, or what
            `NoisyMeasurements` refuses.
    """

    def __init__(
        self,
        system: System,
        seeds: Sequence[int],
        sizes: Sequence[int],
        batch: int = 64,
        sigma: float | Sequence[float] = 1e-3,
        held_out: float = 0.25,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        states: Callable[..., tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        if len(sizes) != len(seeds) or min(sizes, default=0) < 2 or not 0 < held_out < 1:
            raise ValueError(
                "expected one size of 2 or more for each seed and 0 < held_out < 1, got "
                f"{len(seeds)} seeds, sizes={list(sizes)}, held_out={held_out}"
            )
        measure = NoisyMeasurements(system, seeds, max(sizes), sigma, dtype, device, states)
        self.seeds = tuple(seeds)
        self.sizes = tuple(sizes)
        self.batch = batch
        self.data = torch.stack(measure(0))  # (3, S, max n, d)
        kept = [max(1, round(held_out * n)) for n in sizes]
        self._train = torch.tensor([n - k for n, k in zip(sizes, kept, strict=True)])
        self._kept = torch.tensor(kept)

    def __call__(self, step: int) -> Measurements:
        """The minibatch `(q, qdot, qddot)` of a step, each `(S, B, d)`; ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        draws = [
            torch.rand(self.batch, generator=torch.Generator().manual_seed(_mix(seed, step + 1)))
            for seed in self.seeds
        ]
        rows = (torch.stack(draws) * self._train[:, None]).long()
        return self._rows(torch.minimum(rows, self._train[:, None] - 1))

    def validation(self) -> tuple[Measurements, Float[Tensor, "S V"]]:
        """The held-out measurements, and their weights.

        Members with fewer than V repeat them, with weight 0 for the repetitions; the weights of a
        member sum to 1, so that `(errors * weights).sum(1)` is its mean validation error.
        """
        column = torch.arange(int(self._kept.max()))
        kept = self._kept[:, None]
        weights = (column < kept).to(self.data.dtype) / kept
        rows = self._rows(self._train[:, None] + column % kept)
        return rows, weights.to(self.data.device)

    def _rows(self, rows: Tensor) -> Measurements:
        index = rows.to(self.data.device)[..., None].expand(-1, -1, self.data.shape[-1])
        q, qdot, qddot = (x.gather(1, index) for x in self.data)
        return q, qdot, qddot


class Segments:
    r"""Short pieces of true trajectories in phase space: the training data of Yao et al. (2021).

    Of each of `n` trajectories of `points` states, `dt` apart, a member owns `chunk` successive
    states $z = (q, p)$ from a random moment on. Noise-free. Called with a step it returns that
    step's minibatch, drawn without replacement: a pure function of seed and step.

    Args:
        system: whose motion it is; must be able to `sample`.
        seeds: one for each member; the trajectories of different seeds are different ones.
        n: trajectories a member.
        batch: segments in a minibatch, at most n.
        chunk, points, dt: the sampling, 5 of 150 states 0.2 apart in the paper.
        substeps: RK4 steps between two states.
        dtype, device: of the tensors returned.

    Attribute `data` holds everything, `(S, n, chunk, 2 d)`.

    Raises:
        ValueError: no seeds, or a size that is out of range.
    """

    def __init__(
        self,
        system: System,
        seeds: Sequence[int],
        n: int = 500,
        batch: int = 128,
        chunk: int = 5,
        points: int = 150,
        dt: float = 0.2,
        substeps: int = 40,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not seeds or not 1 <= batch <= n or not 2 <= chunk <= points or substeps < 1:
            raise ValueError(
                "expected one seed or more, 1 <= batch <= n, 2 <= chunk <= points and substeps >= "
                f"1, got {len(seeds)} seeds, batch = {batch}, n = {n}, chunk = {chunk}, points = "
                f"{points}, substeps = {substeps}"
            )
        self.seeds, self.n, self.batch, self.dt = tuple(seeds), n, batch, dt
        pieces = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(_mix(seed, 0))
            q, qdot = system.sample(n, generator)
            path = trajectories(system, q, qdot, points, dt, substeps)
            first = torch.randint(points - chunk + 1, (n,), generator=generator)
            rows = first[:, None] + torch.arange(chunk)
            pieces.append(path[rows, torch.arange(n)[:, None]])
        self.data = torch.stack(pieces).to(dtype=dtype, device=device)

    def __call__(self, step: int) -> tuple[Float[Tensor, "S B chunk two_d"]]:
        """The segments of a step, `(S, B, chunk, 2 d)`; ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        rows = torch.stack(
            [
                torch.randperm(
                    self.n, generator=torch.Generator().manual_seed(_mix(seed, step + 1))
                )
                for seed in self.seeds
            ]
        )[:, : self.batch]
        members = torch.arange(len(rows))[:, None]
        return (self.data[members, rows.to(self.data.device)],)


class Rates:
    r"""States of true trajectories and their rates: the data of Greydanus et al. (2019).

    A member owns `n` trajectories of `points` states $z = (q, p)$, equally spaced from 0 to `T`,
    noise-free, with the true $\dot z$. Called with a step it returns that step's minibatch, drawn
    with replacement from all of them: a pure function of seed and step.

    Args:
        system: whose motion it is; must be able to `sample_phase`.
        seeds: one for each member; the trajectories of different seeds are different ones.
        n: trajectories a member.
        points, T: the sampling.
        batch: states in a minibatch.
        substeps: RK4 steps between two states.
        dtype, device: of the tensors returned.

    Attributes: `data`, all states `(S, points, n, 2 d)`, and `rates`, theirs.

    Raises:
        ValueError: no seeds, a size that is out of range, or a trajectory that RK4 cannot follow
            with so few substeps.
    """

    def __init__(
        self,
        system: System,
        seeds: Sequence[int],
        n: int,
        points: int,
        T: float,
        batch: int = 128,
        substeps: int = 40,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not seeds or min(n, batch, substeps) < 1 or points < 2 or not 0 < T < float("inf"):
            raise ValueError(
                "expected one seed or more, n, batch and substeps >= 1, points >= 2 and a finite "
                f"T > 0, got {len(seeds)} seeds, n = {n}, batch = {batch}, substeps = {substeps}, "
                f"points = {points}, T = {T}"
            )
        self.seeds, self.batch = tuple(seeds), batch
        paths = []
        for seed in seeds:
            z = system.sample_phase(n, torch.Generator().manual_seed(_mix(seed, 0)))
            paths.append(phase_trajectories(system, z, points, T, substeps))
        path = torch.stack(paths)
        if not path.isfinite().all():
            raise ValueError(
                f"a trajectory of {system.name} is not finite with substeps = {substeps} between "
                f"states {T / (points - 1):.3g} apart; take more of them"
            )
        self.data = path.to(dtype=dtype, device=device)
        self.rates = system.flow(path).to(dtype=dtype, device=device)
        self._z, self._zdot = self.data.flatten(1, 2), self.rates.flatten(1, 2)

    def __call__(self, step: int) -> tuple[Float[Tensor, "S B two_d"], Float[Tensor, "S B two_d"]]:
        """States and rates of a step, each `(S, B, 2 d)`; ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        rows = [
            torch.randint(
                self._z.shape[1],
                (self.batch,),
                generator=torch.Generator().manual_seed(_mix(seed, step + 1)),
            )
            for seed in self.seeds
        ]
        index = torch.stack(rows).to(self._z.device)
        members = torch.arange(len(rows), device=index.device)[:, None]
        return self._z[members, index], self._zdot[members, index]


def phase_trajectories(
    system: System,
    z: Float[Tensor, "*batch two_d"],
    points: int,
    T: float,
    substeps: int = 40,
) -> Float[Tensor, "points *batch two_d"]:
    """True trajectories from states z, `points` states from 0 to T, RK4 with `substeps` between."""
    return system.phase_rollout(
        z, T / (points - 1) / substeps, (points - 1) * substeps, every=substeps
    )


def trajectories(
    system: System,
    q: Float[Tensor, "*batch d"],
    qdot: Float[Tensor, "*batch d"],
    points: int,
    dt: float,
    substeps: int = 40,
) -> Float[Tensor, "points *batch two_d"]:
    """True trajectories $z = (q, p)$, `points` states `dt` apart, RK4 with `substeps` between."""
    path = system.rollout(q, qdot, dt / substeps, (points - 1) * substeps, every=substeps)
    q, qdot = path.chunk(2, dim=-1)
    return torch.cat([q, system.momentum(q, qdot)], dim=-1)


def _mix(seed: int, step: int) -> int:
    """A generator seed in 32 bits, all that torch's generator on the CPU looks at.

    Multiples of the golden ratio lie far apart, so none of a thousand consecutive seeds meets
    another within a million steps; the scrambling after that is one to one.
    """
    x = (0x9E3779B9 * seed + step) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of MurmurHash3
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x ^ (x >> 16)


def check_finite(**arrays: Tensor) -> None:
    """Refuses data with nan or inf: ValueError with the name, the index and the value."""
    for name, values in arrays.items():
        bad = (~torch.as_tensor(values).isfinite()).nonzero()
        if len(bad):
            index = tuple(bad[0].tolist())
            raise ValueError(
                f"{name}{list(index)} is {torch.as_tensor(values)[index].item()}; expected finite "
                f"numbers ({len(bad)} are not): drop these samples, or mend them"
            )
