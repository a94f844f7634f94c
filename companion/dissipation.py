r"""Friction beside the Hamiltonian: a network whose energy can only fall.

$$ M\,\dot q = \frac{\partial\mathcal H}{\partial v}, \qquad
   M\,\dot v = -\frac{\partial\mathcal H}{\partial q} - \Gamma\,\dot q, \qquad
   \Gamma = L L^T, $$

in the measured coordinates $z = (q, v)$. With the momenta $p = M v$ these are Hamilton's equations
and a friction. $\Gamma$ is positive semidefinite at any weights, and along every motion
$d\mathcal H/dt = -\dot q^T \Gamma\,\dot q \leq 0$. The learned masses M matter as soon as there
are two: a velocity is a momentum only up to its mass.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._activations import Activation
from companion._dense import Dense
from companion.hamiltonian import HamiltonianNetwork
from companion.phase_space import Coordinates

DAMPINGS = ("none", "constant", "network")
State = Shaped[Tensor, "..."]  # (S, B, 2 d) or (B, 2 d), checked by the Hamiltonian network


class DissipativeNetwork(torch.nn.Module):
    r"""An ensemble of learned Hamiltonians with learned friction and learned masses.

    Args:
        d: degrees of freedom; states are $z = (q, v)$, `(S, B, 2 d)`.
        hidden, activation, seeds, output_scale, dtype, device: of the network $\mathcal H$, as in
            `companion.vectorfield.VectorNetwork`.
        angles: which q are angles, see `companion.phase_space.Coordinates`.
        damping: "none", "constant" (a matrix L), or "network" ($L(z)$: a matrix and a small dense
            network).
        masses: whether the ratios $m_i/m_1$ are learned; otherwise all masses are 1.
        friction_hidden: widths of the network L.

    Raises:
        ValueError: an unknown damping, or what `Coordinates` and `VectorNetwork` refuse.
    """

    def __init__(
        self,
        d: int,
        hidden: Sequence[int] = (64, 64),
        activation: str | Activation = "softplus",
        seeds: int | Sequence[int] = 1,
        angles: Sequence[int] = (),
        damping: str = "constant",
        masses: bool = False,
        friction_hidden: Sequence[int] = (16,),
        output_scale: float = 0.1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if damping not in DAMPINGS:
            raise ValueError(f"damping = {damping!r}; expected one of {', '.join(DAMPINGS)}")
        layer, options = Coordinates(d, angles), {"dtype": dtype, "device": device}
        self.d, self.damped = d, damping != "none"
        self.hamiltonian = HamiltonianNetwork(
            layer, d, hidden, activation, seeds, output_scale, **options
        )
        S, entries = self.hamiltonian.S, d * (d + 1) // 2
        rows, columns = torch.tril_indices(d, d)
        self.register_buffer("places", (rows * d + columns).to(device), persistent=False)
        self.factor = self.core = self.logarithms = None
        if self.damped:
            # Not zero, where the gradient of L L^T vanishes and no training would ever begin.
            start = 0.1 * torch.eye(d, **options).flatten()[self.places]
            self.factor = torch.nn.Parameter(start.expand(S, entries).clone())
        if damping == "network":
            members = range(seeds) if isinstance(seeds, int) else seeds
            sources = [torch.Generator().manual_seed(seed ^ 0xF00D) for seed in members]
            self.core = Dense(
                layer.M, friction_hidden, entries, activation, sources, 0.01, dtype, device
            )
        if masses:
            self.logarithms = torch.nn.Parameter(torch.zeros(S, d - 1, **options))

    places: Tensor  # of the lower triangle in a flattened matrix

    @property
    def S(self) -> int:
        """Number of members."""
        return self.hamiltonian.S

    @property
    def size(self) -> int:
        """Number of trained parameters of one member."""
        return sum(x[0].numel() for x in self.parameters())

    @property
    def masses(self) -> Float[Tensor, "S d"]:
        """The masses, in units of the first."""
        if self.logarithms is None:
            return torch.ones_like(self.hamiltonian.core.weights[0][:, 0, :1]).expand(-1, self.d)
        return torch.nn.functional.pad(self.logarithms, (1, 0)).exp()

    def energy(self, z: State) -> Float[Tensor, "S B"]:
        r"""The learned $\mathcal H$, up to a constant."""
        return self.hamiltonian.energy(z)

    def friction(self, z: Float[Tensor, "S B two_d"]) -> Float[Tensor, "S B d d"]:
        r"""The matrix $\Gamma = L L^T$; zero where there is no damping."""
        square = z.new_zeros(*z.shape[:2], self.d**2)
        if self.factor is None:
            return square.unflatten(-1, (self.d, self.d))
        entries = self.factor[:, None].expand(-1, z.shape[1], -1)
        if self.core is not None:
            entries = entries + self.core.value(self._features(z))
        L = square.index_copy(-1, self.places, entries).unflatten(-1, (self.d, self.d))
        return L @ L.mT

    def power(self, z: Float[Tensor, "S B two_d"]) -> Float[Tensor, "S B"]:
        r"""The rate $d\mathcal H/dt = -\dot q^T\,\Gamma\,\dot q$ at which energy is lost, <= 0."""
        velocity = self(z)[..., : self.d]
        return -torch.einsum("sbi,sbij,sbj->sb", velocity, self.friction(z), velocity)

    def field(self) -> Callable[[Tensor], Tensor]:
        """The rate of change as a function of states `(S, B, 2 d)`, for `integrators.solve`."""
        return self.forward

    def forward(self, z: State) -> Float[Tensor, "S B two_d"]:
        r"""$(\dot q, \dot v)$ at `z`."""
        slope_v, force = self.hamiltonian(z).chunk(2, dim=-1)
        inverse = 1 / self.masses[:, None]
        velocity = inverse * slope_v
        if self.damped:
            every = z.expand(self.S, *z.shape[-2:])
            force = force - (self.friction(every) @ velocity[..., None]).squeeze(-1)
        return torch.cat([velocity, inverse * force], dim=-1)

    @torch.no_grad()
    def standardise(self, z: State) -> None:
        """Centres and scales the features by their mean and spread over these states."""
        self.hamiltonian.standardise(z)
        if self.core is not None:
            self.core.standardise(self._features(z.expand(self.S, *z.shape[-2:])))

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        self.hamiltonian.keep(s)
        if self.core is not None:
            self.core.keep(s)
        for p in (self.factor, self.logarithms):
            if p is not None:
                p.data = p.data[s : s + 1].clone()

    def _features(self, z: Tensor) -> Tensor:
        return self.hamiltonian.layer.value(z[..., None])
