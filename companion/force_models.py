r"""Forces on atoms from their positions: what every model of Part V is asked for.

A `ForceModel` takes positions r, `(S, B, N, 3)` in angstrom, and returns forces in eV/angstrom;
S is the number of members of the ensemble. `RelativeForces` is the model of Ma & Chan (2022):
a unitary network on the relative positions. The models that know that atoms have no names are in
`companion.permutations`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion.systems.argon import relative
from companion.unitary import EPSILON, UnitaryNetwork

Positions = Shaped[Tensor, "..."]  # (S, B, N, 3) or (B, N, 3): `checked` says what is wrong


class ForceModel(torch.nn.Module):
    """What a model of forces has beside its parameters: members, a size, a check of positions."""

    seeds: list[int]

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.seeds)

    @property
    def size(self) -> int:
        """Parameters of one member."""
        return sum(p[0].numel() for p in self.parameters())

    def forces(self, r: Positions) -> Float[Tensor, "S B N 3"]:
        """Forces in eV/angstrom at positions `(S, B, N, 3)` or `(B, N, 3)` in angstrom."""
        raise NotImplementedError

    def forward(self, r: Positions) -> Float[Tensor, "S B N 3"]:
        """The same as `forces`."""
        return self.forces(r)

    def checked(self, r: Positions, N: int | None = None) -> Float[Tensor, "S B N 3"]:
        """Positions for every member. ValueError for another shape or another number of atoms."""
        atoms = "N" if N is None else str(N)
        good = r.dim() in (3, 4) and r.shape[-1] == 3 and (N is None or r.shape[-2] == N)
        if not good or (r.dim() == 4 and r.shape[0] not in (1, self.S)):
            raise ValueError(
                f"r: got shape {tuple(r.shape)}, expected ({self.S}, B, {atoms}, 3) or "
                f"(B, {atoms}, 3): positions of {atoms} atoms in angstrom"
            )
        return r.expand(self.S, *r.shape[-3:])


class RelativeForces(ForceModel):
    r"""The model of Ma & Chan (2022): a unitary network from relative positions to forces.

    Eqs. (40) and (41): $\{\mathbf r_{12}, \mathbf r_{13}, \dots\}$ to $\{\mathbf F_1, \dots\}$.

    Relative positions make it invariant under translations, the network equivariant under O(3).
    Nothing makes it indifferent to the atoms' names.

    Args:
        N: number of atoms.
        hidden: numbers of vectors of the hidden layers.
        momentum: whether the mean force is taken off, so that the forces add up to zero.
        epsilon: of the modulus, as in `companion.unitary.UnitaryNetwork`.
        seeds: the members' seeds, or their number.
        dtype, device: of the weights.
    """

    def __init__(
        self,
        N: int = 4,
        hidden: Sequence[int] = (50, 90, 100, 80, 50),
        momentum: bool = False,
        epsilon: float = EPSILON,
        seeds: int | Sequence[int] = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if N < 2:
            raise ValueError(f"N = {N}; expected two atoms or more")
        self.N, self.momentum = N, momentum
        sizes = (N * (N - 1) // 2, *hidden, N)
        self.network = UnitaryNetwork(
            sizes, epsilon=epsilon, seeds=seeds, dtype=dtype, device=device
        )

    @property
    def seeds(self) -> list[int]:
        """The members' seeds."""
        return self.network.seeds

    def forces(self, r: Positions) -> Float[Tensor, "S B N 3"]:
        """Forces in eV/angstrom at positions `(S, B, N, 3)` or `(B, N, 3)` in angstrom.

        Raises ValueError for another shape or another number of atoms.
        """
        F = self.network(relative(self.checked(r, self.N))).mT
        return F - F.mean(-2, keepdim=True) if self.momentum else F

    def standardise(self, r: Positions, F: Positions) -> None:
        """One spread each for relative positions and forces, from samples `(S, B, N, 3)`."""
        self.network.standardise(relative(self.checked(r, self.N)), self.checked(F, self.N).mT)

    def keep(self, s: int) -> None:
        """Keeps member s alone, as an ensemble of one."""
        self.network.keep(s)
