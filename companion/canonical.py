r"""Symmetry control networks: coordinates in which something is cyclic, found by a loss.

A transformation $T_\psi : (q, p) \to (Q, P)$ and a Hamiltonian $K(P, Q_{n+1} \dots Q_d)$ that does
not see the first n of the Q (Syväri et al. 2021, section 2 and figure 2). If T is canonical,
$P_1 \dots P_n$ are conserved. Here T is a dense network, which nothing makes canonical but the
loss; `companion.symplectic` has maps that are so by construction, with the same interface.

A transformation has `d`, `S`, `value(z)`, `jacobian(z)`, `pull(z)`, `standardise(z)` and `keep(s)`.
All derivatives are written out, so that training differentiates once and not twice.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._activations import Activation
from companion._dense import Dense
from companion.phase_space import Coordinates, brackets, omega, symplectic_gradient

State = Shaped[Tensor, "..."]  # (S, B, 2 d) or (B, 2 d): `_members` checks, and says what is wrong
Pull = Callable[[Tensor], Tensor]


class Transformation(torch.nn.Module):
    r"""The transformation network: $Z = A\,x + N_\psi(x)$ with x the features of `Coordinates`.

    N is dense; the matrix A starts as a random rotation of the positions, the same for the momenta:
    a canonical map, so that the brackets are nearly right before the training.

    Args:
        d: degrees of freedom.
        hidden: widths of the hidden layers.
        activation: name or `Activation`.
        seeds: the members' seeds, or their number S (then 0 to S - 1).
        angles: which q are angles, see `Coordinates`.
        output_scale: spread of the last layer's weights.
        dtype, device: of the weights.

    Raises:
        ValueError: no seeds, no hidden layer, or an angle that does not exist.
    """

    def __init__(
        self,
        d: int,
        hidden: Sequence[int] = (64, 64),
        activation: str | Activation = "tanh",
        seeds: int | Sequence[int] = 1,
        angles: Sequence[int] = (),
        output_scale: float = 0.1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        members = range(seeds) if isinstance(seeds, int) else seeds
        if not len(members) or not len(hidden):
            raise ValueError(
                f"expected one seed or more and one hidden layer or more, got seeds = {seeds} and "
                f"hidden = {tuple(hidden)}"
            )
        self.d, self.seeds = d, tuple(members)
        self.coordinates = Coordinates(d, angles)
        sources = [torch.Generator().manual_seed(seed) for seed in members]
        M = self.coordinates.M
        self.core = Dense(M, hidden, 2 * d, activation, sources, output_scale, dtype, device)
        starts = [_linear_start(M, d, g) for g in sources]
        self.A = torch.nn.Parameter(torch.stack(starts).to(dtype=dtype, device=device))

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.A)

    @property
    def size(self) -> int:
        """Number of trained parameters of one member."""
        return sum(x[0].numel() for x in self.parameters())

    def value(self, z: State) -> Float[Tensor, "S B two_d"]:
        """The new coordinates Z = (Q, P)."""
        x = self._features(_of_members(z, self.S, self.d))
        return self.core.value(x) + x @ self.A.mT

    def jacobian(
        self, z: State
    ) -> tuple[Float[Tensor, "S B two_d"], Float[Tensor, "S B two_d two_d"]]:
        """Z, and J with the gradient of $Z_a$ in row a."""
        z = _of_members(z, self.S, self.d)
        x = self._features(z)
        Z, J = self.core.jacobian(x)
        return Z + x @ self.A.mT, self._chain(z, J + self.A[:, None])

    def pull(self, z: State) -> tuple[Float[Tensor, "S B two_d"], Pull]:
        r"""Z, and the function that takes slopes in Z to slopes in z: $g \to J^T g$."""
        z = _of_members(z, self.S, self.d)
        x = self._features(z)
        Z, back = self.core.pull(x)

        def pull(g: Tensor) -> Tensor:
            return self._chain(z, (back(g) + g @ self.A)[..., None, :]).squeeze(-2)

        return Z + x @ self.A.mT, pull

    @torch.no_grad()
    def standardise(self, z: State) -> None:
        """Centres and scales the dense network's features by mean and spread over these states."""
        self.core.standardise(self._features(_of_members(z, self.S, self.d)))

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        self.core.keep(s)
        self.A.data = self.A.data[s : s + 1].clone()
        self.seeds = self.seeds[s : s + 1]

    def _features(self, z: Tensor) -> Tensor:
        return self.coordinates.value(z[..., None])

    def _chain(self, z: Tensor, slopes: Tensor) -> Tensor:
        """Slopes in the features, `(S, B, k, M)`, as slopes in z."""
        if not self.coordinates.angles:
            return slopes
        k = slopes.shape[-2]
        each = z[:, :, None, :, None].expand(-1, -1, k, -1, -1)
        return self.coordinates.gradient(each, slopes).squeeze(-1)


class Losses(NamedTuple):
    """The three losses of a batch, one value a member: eqs. (6), (7) and (8)."""

    hnn: Tensor
    poisson: Tensor
    cyclic: Tensor


class SymmetryControlNetwork(torch.nn.Module):
    r"""$\mathcal H(z) = K(P, Q_{n+1} \dots Q_d)$ with $(Q, P) = T(z)$: eqs. (6) to (9).

    The flow keeps $\mathcal H$ at any weights. It keeps $P_1 \dots P_n$ as far as T is canonical:
    along it $\dot P_i = \{P_i, \mathcal H\}$, and that is zero where the brackets are right,
    because K does not depend on $Q_i$.

    Where the cyclic coordinate is an angle, no continuous $Q_i$ exists all the way round. Then the
    pair of T stays Cartesian and K sees only its action $I_i = (Q_i^2 + P_i^2)/2$: the angle
    $\operatorname{atan2}(Q_i, P_i)$ is cyclic and conjugate to $I_i$, and nothing jumps.

    Args:
        transformation: T, a `Transformation` or a map of `companion.symplectic`.
        n: number of cyclic coordinates, from 0 to d: the first n. With 0 it is a Hamiltonian
            network in other coordinates.
        circular: which of these are angles, counted from 0.
        hidden, activation, output_scale: of the network K.

    Raises:
        ValueError: n out of range, no hidden layer, or an angle that is not cyclic.
    """

    def __init__(
        self,
        transformation: Any,
        n: int,
        circular: Sequence[int] = (),
        hidden: Sequence[int] = (64, 64),
        activation: str | Activation = "tanh",
        output_scale: float = 0.1,
    ) -> None:
        super().__init__()
        d = transformation.d
        if not 0 <= n <= d or not len(hidden):
            raise ValueError(
                f"expected 0 <= n <= d = {d} cyclic coordinates and one hidden layer or more, got "
                f"n = {n} and hidden = {tuple(hidden)}"
            )
        if not set(circular) <= set(range(n)) or len(set(circular)) < len(circular):
            raise ValueError(
                f"circular = {tuple(circular)}, n = {n}: expected distinct cyclic coordinates, "
                "from 0 to n - 1"
            )
        self.transformation, self.d, self.n = transformation, d, n
        self.circular = tuple(circular)
        weights = next(transformation.parameters())
        sources = [torch.Generator().manual_seed(s ^ 0x5EED) for s in transformation.seeds]
        self.K = Dense(
            2 * d - n, hidden, 1, activation, sources, output_scale, weights.dtype, weights.device
        )

    @property
    def S(self) -> int:
        """Number of members."""
        return self.transformation.S

    @property
    def size(self) -> int:
        """Number of trained parameters of one member."""
        return sum(x[0].numel() for x in self.parameters())

    def energy(self, z: State) -> Float[Tensor, "S B"]:
        r"""The learned $\mathcal H$, up to a constant that no motion shows."""
        return self.K.value(self._seen(self.transformation.value(z))).squeeze(-1)

    def charges(self, z: State) -> Float[Tensor, "S B n"]:
        r"""The momenta $P_1 \dots P_n$ that are to be conserved, actions where Q is an angle."""
        return self._seen(self.transformation.value(z))[..., self.d - self.n : self.d]

    def field(self) -> Callable[..., Tensor]:
        """The function $F(z) = \\Omega \\nabla \\mathcal H$, for `integrators.solve`."""
        return self.forward

    def forward(self, z: State) -> Float[Tensor, "S B two_d"]:
        """The rate of change at z."""
        Z, pull = self.transformation.pull(z)
        return symplectic_gradient(pull(self._slopes(Z)))

    def hnn(self, z: State, zdot: State) -> Float[Tensor, " S"]:
        """Eq. (6) alone, the squared error of the rates, summed over coordinates: all that an
        exactly canonical map needs."""
        return (self.forward(z) - zdot).square().sum(-1).mean(-1)

    def losses(self, z: State, zdot: State, beta: float = 1.0, pairs: str = "cyclic") -> Losses:
        r"""Eqs. (6), (7) and (8), averaged over the batch.

        `beta` is that of eq. (8); `pairs` says on which pairs the brackets of eq. (7) are asked
        for: the n `cyclic` ones, or `all`. Raises ValueError for another word.
        """
        if pairs not in ("cyclic", "all"):
            raise ValueError(f"pairs = {pairs!r}; expected 'cyclic' or 'all'")
        d, n = self.d, self.n
        Z, J = self.transformation.jacobian(z)
        slopes = self._slopes(Z)
        rate = symplectic_gradient(_times(J.mT, slopes))
        hnn = (rate - zdot).square().sum(-1)

        m = d if pairs == "all" else n
        rows = torch.cat([J[..., :m, :], J[..., d : d + m, :]], dim=-2)
        wrong = brackets(rows) - omega(m, Z.dtype, Z.device) if m else J[..., :0, :0]
        poisson = wrong.square().sum((-2, -1)) / 2  # each bracket stands there twice

        wrong = _times(J, zdot.expand_as(Z)) - symplectic_gradient(slopes)
        by_pair = wrong.square().unflatten(-1, (2, d)).sum(-2)
        cyclic = by_pair[..., :n].sum(-1) + beta * by_pair[..., n:].sum(-1)
        return Losses(hnn.mean(-1), poisson.mean(-1), cyclic.mean(-1))

    @torch.no_grad()
    def standardise(self, z: State) -> None:
        """Fits the scales of both networks' inputs to these states, K's through T as it is."""
        self.transformation.standardise(z)
        self.K.standardise(self._seen(self.transformation.value(z)))

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        self.transformation.keep(s)
        self.K.keep(s)

    def _seen(self, Z: Tensor) -> Tensor:
        """What K sees: the Q that are not cyclic, then all P, actions where Q is an angle."""
        seen = Z[..., self.n :]
        if not self.circular:
            return seen
        actions = (Z[..., self.circular].square() + Z[..., self._partners()].square()) / 2
        return seen.index_copy(-1, self._places(Z), actions)

    def _slopes(self, Z: Tensor) -> Tensor:
        """dK/dZ; zero for the cyclic Q that are no angles."""
        slopes = torch.nn.functional.pad(self.K.gradient(self._seen(Z)), (self.n, 0))
        if not self.circular:
            return slopes
        both = [*self.circular, *self._partners()]
        by_action = slopes[..., self._partners()].repeat(1, 1, 2)
        index = torch.tensor(both, device=Z.device)
        return slopes.index_copy(-1, index, by_action * Z[..., both])

    def _partners(self) -> list[int]:
        """Where the P of the angles stand in Z."""
        return [self.d + i for i in self.circular]

    def _places(self, Z: Tensor) -> Tensor:
        """Where their actions stand in what K sees."""
        return torch.tensor([self.d - self.n + i for i in self.circular], device=Z.device)


def _of_members(z: State, S: int, d: int) -> Float[Tensor, "S B two_d"]:
    """States for S members from those, or from `(B, 2 d)`: the same for all.

    Raises ValueError for other shapes.
    """
    if z.dim() not in (2, 3) or z.shape[-1] != 2 * d or (z.dim() == 3 and z.shape[0] != S):
        raise ValueError(
            f"z has shape {tuple(z.shape)}; expected ({S}, B, {2 * d}), or (B, {2 * d}) for the "
            f"same states in all {S} members: {d} positions, then {d} momenta"
        )
    return z.expand(S, *z.shape[-2:])


def _times(A: Tensor, x: Tensor) -> Tensor:
    return (A @ x[..., None]).squeeze(-1)


def _linear_start(M: int, d: int, source: torch.Generator) -> Tensor:
    """A random rotation of the positions and the same of the momenta, which is canonical.

    Angles come in as cosine and sine, which no rotation of phase space mixes with the momenta:
    there the start is normal.
    """
    if 2 * d < M:
        return torch.randn(2 * d, M, generator=source, dtype=torch.float64) / M**0.5
    R = torch.linalg.qr(torch.randn(d, d, generator=source, dtype=torch.float64))[0]
    return torch.block_diag(R, R)
