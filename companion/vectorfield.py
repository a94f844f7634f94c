r"""Vector fields for neural ordinary differential equations, with and without symmetry.

$\dot z = F(z, c)$ with $z = (q, p)$ the state of n particles and $c$ vectors that are given, not
evolved: a pivot $q_o$, the gravity $g$. `VectorField` learns F; `companion.hamiltonian` learns the
energy instead and has the same interface. Both are made of a layer of `companion.scalars`, which
decides the symmetry, and a network behind it, which knows nothing of vectors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._activations import Activation
from companion._dense import Dense
from companion.scalars import Layer

State = Shaped[
    Tensor, "..."
]  # (S, B, 2 n D) or (B, 2 n D): `vectors` checks, and says what is wrong
Given = Shaped[Tensor, "..."]  # (m, D), (B, m, D) or (S, B, m, D)


class VectorNetwork(torch.nn.Module):
    r"""An ensemble of S networks on the features of the vectors of a state.

    Args:
        layer: makes features of the vectors $q_1 \dots q_n, p_1 \dots p_n, c_1 \dots c_m$.
        n: number of particles; `layer.n - 2 n` vectors are given.
        hidden: widths of the network's hidden layers, or the network itself: a module with
            `value`, `gradient`, `standardise` and `keep` such as `companion.emlp.EMLP`.
        activation: name or `Activation`.
        seeds: the members' seeds, or their number S (then 0 to S - 1).
        output_scale: spread of the last layer's weights.
        extra: number of further scalar inputs, such as masses.
        dtype, device: of the weights.

    Raises:
        ValueError: fewer vectors in the layer than the particles have, no seeds, or no hidden
            layer.
    """

    def __init__(
        self,
        layer: Layer,
        n: int,
        hidden: Sequence[int] | torch.nn.Module = (64, 64),
        activation: str | Activation = "silu",
        seeds: int | Sequence[int] = 1,
        output_scale: float = 0.1,
        extra: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if n < 1 or layer.n < 2 * n:
            raise ValueError(
                f"n = {n} particles have {2 * n} vectors, the layer takes {layer.n}; its matrix B "
                "needs a column for each position, each momentum and each given vector"
            )
        self.layer, self.n, self.extra = layer.to(device=device), n, extra
        self.core: Any
        if isinstance(hidden, torch.nn.Module):
            self.core = hidden
            return
        members = range(seeds) if isinstance(seeds, int) else seeds
        if not len(members) or not len(hidden):
            raise ValueError(
                f"expected one seed or more and one hidden layer or more, got seeds = {seeds} and "
                f"hidden = {tuple(hidden)}"
            )
        sources = [torch.Generator().manual_seed(seed) for seed in members]
        self.core = Dense(
            layer.M + extra,
            hidden,
            self._outputs(layer),
            activation,
            sources,
            output_scale,
            dtype,
            device,
        )

    def _outputs(self, layer: Layer) -> int:
        raise NotImplementedError

    @property
    def S(self) -> int:
        """Number of members."""
        return len(next(self.core.parameters()))

    @property
    def size(self) -> int:
        """Number of trained parameters of one member."""
        return sum(x[0].numel() for x in self.core.parameters())

    def vectors(self, z: State, given: Given | None = None) -> Float[Tensor, "S B n D"]:
        """Positions, momenta and given vectors, for every member.

        Raises ValueError for a state that is not `(S, B, 2 n D)` or `(B, 2 n D)`, or for another
        number of given vectors than the layer takes.
        """
        D, m = self.layer.D, self.layer.n - 2 * self.n
        if z.dim() not in (2, 3) or z.shape[-1] != 2 * self.n * D:
            raise ValueError(
                f"z has shape {tuple(z.shape)}; expected (S, B, {2 * self.n * D}), or without S "
                f"for the same states in all members: {self.n} positions, then {self.n} momenta"
            )
        if z.dim() == 3 and z.shape[0] != self.S:
            raise ValueError(f"the first axis of z must be the S = {self.S} members, got {z.shape}")
        v = z.expand(self.S, *z.shape[-2:]).unflatten(-1, (-1, D))
        if m == 0 and given is None:
            return v
        if given is None or given.shape[-2:] != (m, D):
            what = "nothing" if given is None else f"shape {tuple(given.shape)}"
            raise ValueError(
                f"given: got {what}, expected (..., {m}, {D}): the layer takes {m} vectors beside "
                "positions and momenta"
            )
        return torch.cat([v, given.to(v).expand(*v.shape[:-2], m, D)], dim=-2)

    def features(self, v: Tensor, extra: Tensor | None = None) -> Tensor:
        """What the network sees, `(S, B, M + extra)`. ValueError for another number of extras."""
        phi = self.layer.value(v)
        given = 0 if extra is None else extra.shape[-1]
        if given != self.extra:
            raise ValueError(f"extra: got {given} scalars, expected {self.extra}")
        if extra is None:
            return phi
        return torch.cat([phi, extra.to(phi).expand(*phi.shape[:-1], given)], dim=-1)

    def field(
        self, given: Given | None = None, extra: Tensor | None = None
    ) -> Callable[..., Tensor]:
        """The function $F(z)$ at these given vectors `(..., m, D)` and extra scalars `(..., e)`.

        For `integrators.solve`: it takes states `(S, B, 2 n D)` and returns their rates of change.
        """
        core = self.core.frozen() if hasattr(self.core, "frozen") else self.core
        return lambda z: self._rate(core, self.vectors(z, given), extra)

    def _rate(self, core: Any, v: Tensor, extra: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(
        self, z: State, given: Given | None = None, extra: Tensor | None = None
    ) -> Float[Tensor, "S B two_nD"]:
        """The rate of change at `z`."""
        return self.field(given, extra)(z)

    @torch.no_grad()
    def standardise(
        self, z: State, given: Given | None = None, extra: Tensor | None = None
    ) -> None:
        """Centres and scales the features by their mean and spread over these states."""
        self.core.standardise(self.features(self.vectors(z, given), extra))

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        self.core.keep(s)


class VectorField(VectorNetwork):
    r"""$\dot z = F(z, c)$: rates of positions and momenta as vectors made by the layer, eq. (9).

    With `Scalars` each is a sum of the vectors with invariant coefficients, equivariant by
    construction; with `Components` each output is a component. Arguments as in `VectorNetwork`.
    """

    def _outputs(self, layer: Layer) -> int:
        return layer.outputs(2 * self.n)

    def _rate(self, core: Any, v: Tensor, extra: Tensor | None) -> Tensor:
        return self.layer.vectors(v, core.value(self.features(v, extra))).flatten(-2)
