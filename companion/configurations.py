"""Configurations of atoms and their forces: a finite set, and the minibatches drawn from it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion.datasets import _mix
from companion.systems.argon import Argon

Batch = tuple[Float[Tensor, "S B N 3"], Float[Tensor, "S B N 3"], Float[Tensor, "S B"]]
FLOOR = 0.2  # of the chance to be drawn, in units of the typical force


class Configurations:
    r"""`n` configurations a member, drawn from `system.sample`, with their exact forces.

    Called with a step it returns that step's minibatch (r, F, w), positions in angstrom and forces
    in eV/angstrom, drawn with replacement: a pure function of seed and step. A few close pairs rule
    the mean square error, and a uniform draw would rarely see them. Configuration i is therefore
    drawn with a chance $p_i \propto |F_i| + c$ and counts with the weight $w_i = 1 / (n\,p_i)$: the
    weighted loss has the mean of the uniform one, and less noise.

    With `permute` the atoms of every configuration of a minibatch are renamed by a random
    permutation (section 3.5 of Ma & Chan 2022, as augmentation and not as construction).

    Args:
        system: gives `sample` and `forces`.
        seeds: one for each member, which owns its own configurations.
        n: configurations of a member; the paper trains on 60,000.
        batch: configurations in a minibatch, B.
        permute: whether minibatches are renamed.
        dtype, device: of the data.

    Raises:
        ValueError: no seeds, `n` or `batch` below 1.
    """

    def __init__(
        self,
        system: Argon,
        seeds: Sequence[int],
        n: int = 60_000,
        batch: int = 128,
        permute: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not seeds or min(n, batch) < 1:
            raise ValueError(
                f"seeds = {list(seeds)}, n = {n}, batch = {batch}; expected a seed or more, and 1 "
                "or more of the others"
            )
        self.seeds, self.batch, self.permute = tuple(seeds), batch, permute
        sources = [torch.Generator().manual_seed(_mix(seed, 0)) for seed in seeds]
        r = torch.stack([system.sample(n, g) for g in sources])
        F = torch.stack([system.forces(part) for part in r])
        size = F.square().mean((2, 3)).sqrt()
        p = size / F.square().mean((1, 2, 3)).sqrt()[:, None] + FLOOR
        p /= p.sum(1, keepdim=True)
        self._below = p.cumsum(1)
        self.r, self.F, self.w = (x.to(dtype=dtype, device=device) for x in (r, F, 1 / (n * p)))

    def __call__(self, step: int) -> Batch:
        """The minibatch of a step; ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        S, n, N, _ = self.r.shape
        sources = [torch.Generator().manual_seed(_mix(seed, step + 1)) for seed in self.seeds]
        # one draw from each of B equal parts of the distribution: less noise than B free draws
        part = torch.arange(self.batch)
        u = [part + torch.rand(self.batch, generator=g, dtype=torch.float64) for g in sources]
        rows = torch.searchsorted(self._below, torch.stack(u) / self.batch).clamp(max=n - 1)
        atoms = torch.arange(N).expand(S, self.batch, N)
        if self.permute:
            keys = [torch.rand(self.batch, N, generator=g) for g in sources]
            atoms = torch.stack(keys).argsort(-1)
        index = tuple(
            x.to(self.r.device) for x in (torch.arange(S)[:, None, None], rows[..., None], atoms)
        )
        return self.r[index], self.F[index], self.w[index[0][..., 0], index[1][..., 0]]
