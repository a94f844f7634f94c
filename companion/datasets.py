"""Training data: noisy measurements of a system, a pure function of seed and step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion.systems.base import System

Measurements = tuple[Float[Tensor, "S B d"], Float[Tensor, "S B d"], Float[Tensor, "S B d"]]


class NoisyMeasurements:
    r"""Noisy measurements $(q, \dot q, \ddot q)$ of a system's motion (Müller 2023, section 3.1.1).

    Called with a step it returns fresh data for that step: states drawn by `system.sample`, their
    true accelerations, and independent normal noise of standard deviation `sigma` on all three.
    Member s gets the data of its own seed. The same seed and step always give the same numbers,
    so training can stop and go on anywhere.

    Args:
        system: what is measured; must be able to `sample`.
        seeds: one for each member: S of them.
        batch: measurements per member and step, B.
        sigma: standard deviation of the noise, in the units of each quantity.
        dtype, device: of the tensors returned.

    Raises:
        ValueError: `batch` below 1, no seeds, or `sigma` negative or not finite.
    """

    def __init__(
        self,
        system: System,
        seeds: Sequence[int],
        batch: int = 128,
        sigma: float = 1e-3,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch < 1 or not seeds or not 0 <= sigma < float("inf"):
            raise ValueError(
                f"expected batch >= 1, one seed or more, finite sigma >= 0, got batch={batch}, "
                f"seeds={list(seeds)}, sigma={sigma}"
            )
        self.system = system
        self.seeds = tuple(seeds)
        self.batch = batch
        self.sigma = sigma
        self.dtype = dtype
        self.device = torch.device(device)

    def __call__(self, step: int) -> Measurements:
        """The data `(q, qdot, qddot)` of a step, each `(S, B, d)`; ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        draws = []
        noise = []
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(_mix(seed, step))
            draws.append(torch.stack(self.system.sample(self.batch, generator, self.dtype)))
            shape = (3, *draws[-1].shape[1:])
            noise.append(torch.randn(shape, generator=generator, dtype=self.dtype))
        q, qdot = torch.stack(draws, dim=1)
        exact = torch.stack([q, qdot, self.system.acceleration(q, qdot)])
        measured = exact + self.sigma * torch.stack(noise, dim=1)
        measured_q, measured_qdot, measured_qddot = measured.to(self.device)
        return measured_q, measured_qdot, measured_qddot


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
