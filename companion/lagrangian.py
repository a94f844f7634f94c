r"""Lagrangian networks, and their acceleration by an explicit second-order forward pass.

The network is $\mathcal L = D_L \circ \dots \circ D_1 \circ S$ (Müller 2023, section 2.2): a
symmetry-enforcing layer $S$ (`companion.invariants`), then dense layers. Its acceleration solves
the Euler-Lagrange equations (Müller 2023, eq. 9, where the printed $\partial\mathcal
L/\partial\dot q$ must read $\partial\mathcal L/\partial q$; Cranmer 2020, eq. 6):

$$ \frac{\partial^2\mathcal L}{\partial\dot q\,\partial\dot q}\,\ddot q =
   \frac{\partial\mathcal L}{\partial q}
   - \frac{\partial^2\mathcal L}{\partial\dot q\,\partial q}\,\dot q . $$

No automatic differentiation is needed to get there. Write $u_l$ for the pre-activations of layer
$l$, $T_l$ for their derivatives along some directions, and $\beta_l$ for the derivative of the
output with respect to the activations of layer $l$. Dense layers are affine, so the second
derivatives come from the activations $\sigma$ alone, one layer at a time, and from the layer $S$:

$$ H = \sum_l T_l^T\,\mathrm{diag}\bigl(\beta_l\,\sigma''(u_l)\bigr)\,T_l
     + \sum_m g_m\,\partial^2 S_m . $$

One pass forward gives $u_l$ and $T_l$, one pass back gives $\beta_l$ and the gradient $g$ of the
dense layers with respect to the features. It holds for any number of layers and any
twice-differentiable activation. The directions are the $d$ velocities and the motion itself,
$\dot q$; or the features, where these are fewer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion import integrators
from companion._activations import Activation, activation_named
from companion.invariants import Layer

States = Shaped[Tensor, "..."]  # (S, B, d) or (B, d): `_state` checks, and says what is wrong
Vectors = Float[Tensor, "S B d"]
Values = Float[Tensor, "S B"]


class SingularHessianError(ValueError):
    """The velocity Hessian of a Lagrangian cannot be inverted: the acceleration is undefined."""


class LagrangianNetwork(torch.nn.Module):
    r"""An ensemble of S Lagrangian networks that share a symmetry-enforcing layer.

    $$ \mathcal L_s(q, \dot q) = \tfrac12 \sum_i m_i \dot q_i^2 + w_s \cdot \sigma\bigl(W_s^{(L)}
    \cdots
       \sigma(W_s^{(1)} \phi(q, \dot q) + b_s^{(1)}) \cdots + b_s^{(L)}\bigr) $$

    Every parameter has a leading axis of length S = `seeds`; the members never mix, so a member
    trained in an ensemble is the member trained alone. States are `(S, B, d)`, or `(B, d)` for the
    same states in every member.

    Args:
        layer: the symmetry-enforcing layer S of `companion.invariants`.
        hidden: widths of the dense layers; any number of them.
        activation: "softplus" (the paper's), "tanh", "silu", "sin", or an `Activation`.
        seeds: the members: S of them with seeds 0..S-1, or the seeds themselves. A member's first
            weights depend on its own seed alone, and are the same numbers in every dtype.
        mass: `d` masses of the fixed kinetic term (None: no such term, as in the paper). A
            Lagrangian
            is fixed by its motions only up to a factor; this term fixes the factor and keeps the
            Hessian away from zero. It must respect the symmetry: equal masses within a particle.
        output_scale: standard deviation of the last layer; None: `sqrt(hidden[-1])`, the paper's.
        dtype, device: of the parameters.

    Weights start as in section 3.1 of Müller (2023): kernels normal with standard deviation
    2/sqrt(n) in the first layer and 1/sqrt(n) in the others, n the layer's width; biases zero.

    Raises:
        ValueError: no hidden layer, a width or `seeds` below 1, an unknown activation, or a `mass`
            that is not d finite numbers.
    """

    mass: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        layer: Layer,
        hidden: Sequence[int] = (128, 128),
        *,
        activation: str | Activation = "softplus",
        seeds: int | Sequence[int] = 1,
        mass: Sequence[float] | None = None,
        output_scale: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        if not seeds or not hidden or min(hidden) < 1:
            raise ValueError(
                f"hidden and seeds must not be empty, got hidden={tuple(hidden)}, seeds={seeds}; "
                "give at least one width and one member, such as hidden=(128, 128), seeds=5"
            )
        self.layer = layer
        self.hidden = tuple(hidden)
        self.seeds = seeds
        self.activation = activation_named(activation)
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]

        def normal(sd: float, *shape: int) -> torch.nn.Parameter:
            draws = [torch.randn(shape, generator=g, dtype=torch.float64) for g in sources]
            return torch.nn.Parameter((sd * torch.stack(draws)).to(dtype=dtype, device=device))

        widths = [layer.M, *hidden]
        spreads = [2 / hidden[0] ** 0.5, *(n**-0.5 for n in hidden[1:])]
        self.weights = torch.nn.ParameterList(
            normal(sd, n, m) for sd, m, n in zip(spreads, widths, hidden, strict=False)
        )
        self.biases = torch.nn.ParameterList(
            torch.nn.Parameter(torch.zeros(len(seeds), n, dtype=dtype, device=device))
            for n in hidden
        )
        self.output = normal(
            hidden[-1] ** 0.5 if output_scale is None else output_scale, hidden[-1]
        )
        constants = {"dtype": dtype, "device": device}
        self.register_buffer("mass", _masses(mass, layer.d).to(**constants))
        self.register_buffer("centre", torch.zeros(layer.M, **constants))
        self.register_buffer("scale", torch.ones(layer.M, **constants))
        self.layer.to(device)

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.seeds)

    # What the network says about a state -------------------------------------------------------

    def lagrangian(self, q: States, qdot: States) -> Values:
        """The Lagrangian of every member, shape `(S, B)`. ValueError for states of wrong shape."""
        z = self._state(q, qdot)
        x = (self.layer.value(z) - self.centre) / self.scale
        for W, b in zip(self.weights, self.biases, strict=True):
            x = self.activation(torch.baddbmm(b[:, None], x, W.mT))
        kinetic = 0.5 * (self.mass * z[..., self.layer.d :].square()).sum(-1)
        return kinetic + torch.bmm(x, self.output[..., None]).squeeze(-1)

    def gradient(self, q: States, qdot: States) -> tuple[Vectors, Vectors]:
        r"""The pair $\partial\mathcal L/\partial q$, $\partial\mathcal L/\partial\dot q$, each
        `(S, B, d)`.
        """
        z = self._state(q, qdot)
        d = self.layer.d
        J = self.layer.first(z)
        slope = (self._slope(z)[..., None, :] @ J).squeeze(-2)
        return slope[..., :d], slope[..., d:] + self.mass * z[..., d:]

    def momentum(self, q: States, qdot: States) -> Vectors:
        r"""The canonical momentum $p = \partial\mathcal L/\partial\dot q$, shape `(S, B, d)`."""
        return self.gradient(q, qdot)[1]

    def energy(self, q: States, qdot: States) -> Values:
        r"""The energy $\dot q \cdot p - \mathcal L$, the charge of time translations, shape `(S,
        B)`.
        """
        p = self.momentum(q, qdot)
        return (p * self._state(q, qdot)[..., self.layer.d :]).sum(-1) - self.lagrangian(q, qdot)

    def charges(
        self, q: States, qdot: States, generators: Float[Tensor, "k D *D"]
    ) -> Float[Tensor, "S B k"]:
        r"""The network's own Noether charges $p \cdot \xi(q)$ (eq. 2), shape `(S, B, k)`.

        `generators` act on each particle alike: matrices `(k, D, D)` give $\xi = \Gamma x$ (eqs. 6,
        14, 32), vectors `(k, D)` give $\xi = \Delta$ (eq. 30). They are conserved exactly by the
        motion if, and only if, the layer is invariant under them.
        """
        D = generators.shape[1]
        if self.layer.d % D:
            raise ValueError(
                f"generators act on {D} dimensions, which do not divide the d = {self.layer.d} "
                "coordinates; give generators of the space each particle moves in"
            )
        x = self._state(q, qdot)[..., : self.layer.d].unflatten(-1, (-1, D))
        p = self.momentum(q, qdot).unflatten(-1, (-1, D))
        generators = generators.to(p)
        if generators.dim() == 2:
            return torch.einsum("sbni,ki->sbk", p, generators)
        return torch.einsum("sbni,kij,sbnj->sbk", p, generators, x)

    # What the network says about motion --------------------------------------------------------

    def acceleration(self, q: States, qdot: States, check: bool = True) -> Vectors:
        r"""The acceleration $\ddot q$ of every member, shape `(S, B, d)` (eq. 9).

        With `check`, a velocity Hessian that cannot be inverted raises `SingularHessianError`,
        which names the member and the state; without, such a state gets inf or nan (no wait for
        the GPU).
        """
        A, b = self.equations_of_motion(q, qdot)
        solution, info = torch.linalg.solve_ex(A, b)
        if check and not bool(((info == 0) & solution.isfinite().all(-1)).all()):
            self._refuse_singular(
                A, self._state(q, qdot), (info != 0) | ~solution.isfinite().all(-1)
            )
        return solution

    def rhs(self, y: Float[Tensor, "S B two_d"]) -> Float[Tensor, "S B two_d"]:
        """The first-order form y' = f(y), y = (q, qdot), for `companion.integrators`; unchecked.

        A trajectory that runs away ends in inf or nan instead of an exception.
        """
        q, qdot = y.split(self.layer.d, dim=-1)
        return torch.cat([qdot, self.acceleration(q, qdot, check=False)], dim=-1)

    def equations_of_motion(
        self, q: States, qdot: States
    ) -> tuple[Float[Tensor, "S B d d"], Vectors]:
        r"""The linear system $A\,\ddot q = b$: the Hessian `(S, B, d, d)` and the right side `(S,
        B, d)`.
        """
        z = self._state(q, qdot)
        d = self.layer.d
        qdot = z[..., d:]
        J = self.layer.first(z)  # (S, B, M, 2 d)
        motion = J[..., :d] @ qdot[..., None]  # the features' rate of change as q moves along qdot
        directions = torch.cat([J[..., d:], motion], dim=-1).mT  # (S, B, d + 1, M)
        M = self.layer.M
        if d >= M:  # fewer features than directions: along the features, and then along those
            g, H = self._second_order(z, torch.diag(1 / self.scale).expand(*z.shape[:-1], M, M))
            H = directions @ H @ directions.mT
        else:
            g, H = self._second_order(z, directions / self.scale)
        C = self.layer.second(z, g)
        A = H[..., :d, :d] + C[..., d:, d:] + torch.diag(self.mass)
        force = (g[..., None, :] @ J[..., :d]).squeeze(-2)
        transport = H[..., :d, d] + (C[..., d:, :d] @ qdot[..., None]).squeeze(-1)
        return A, force - transport

    @torch.no_grad()
    def rollout(
        self,
        q: States,
        qdot: States,
        dt: float | int,
        steps: int,
        every: int = 1,
        *,
        compensated: bool = False,
        progress: bool = False,
    ) -> Float[Tensor, "time S B two_d"]:
        """RK4 trajectories from these states, `(1 + steps // every, S, B, 2 d)`, no gradients.

        The numbers are those of `integrators.solve(net.rhs, y0, dt, steps, every=every,
        compensated=compensated)`, to rounding, and so are the ValueErrors. Where `compiled` holds
        the steps run as machine code on torch's number of threads, some sixty times faster for a
        single trajectory (benchmarks/README.md); elsewhere `integrators.solve` runs. The first call
        on a machine compiles for about ten seconds, once for float64 and once for float32.
        """
        y0 = self._state(q, qdot)
        integrators.check(y0, dt, steps, "rk4", every, compensated)
        from companion import _flight  # at its first use: numba takes a second to import

        network = _flight.packed(self)
        if network is None:
            return integrators.solve(
                self.rhs, y0, dt, steps, "rk4", every, progress, compensated=compensated
            )
        return _flight.rollout(network, y0, float(dt), steps, every, compensated, progress)

    @property
    def compiled(self) -> bool:
        """Whether `rollout` runs as compiled code.

        It does where the weights are on the CPU in float32 or float64, the activation is one of the
        named ones, and no feature of the layer is of higher degree than two.
        """
        from companion import _flight

        return _flight.packed(self) is not None

    # The dense layers --------------------------------------------------------------------------

    def _second_order(self, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient `(S, B, M)` of the dense layers in the features, and their second derivatives
        `(S, B, k, k)` along `directions` `(S, B, k, M)` in the scaled features."""
        S, B, k, _ = directions.shape
        x = (self.layer.value(z) - self.centre) / self.scale
        rows = torch.cat([x[..., None, :], directions], dim=-2)  # value and k tangents: one matmul
        passed = []
        for W, b in zip(self.weights, self.biases, strict=True):
            rows = torch.bmm(rows.flatten(1, 2), W.mT).view(S, B, 1 + k, -1)
            T = rows[..., 1:, :]
            y, slope, bend = self.activation.jet(rows[..., 0, :] + b[:, None])
            passed.append((W, T, slope, bend))
            rows = torch.cat([y[..., None, :], slope[..., None, :] * T], dim=-2)
        beta = self.output[:, None].expand(S, B, -1)
        H = directions.new_zeros(S, B, k, k)
        for W, T, slope, bend in reversed(passed):
            H = H + (T * (beta * bend)[..., None, :]) @ T.mT
            beta = torch.bmm(beta * slope, W)
        return beta / self.scale, H

    def _slope(self, z: Tensor) -> Tensor:
        """Gradient `(S, B, M)` of the dense layers in the features."""
        x = (self.layer.value(z) - self.centre) / self.scale
        slopes = []
        for W, b in zip(self.weights, self.biases, strict=True):
            x, slope, _ = self.activation.jet(torch.baddbmm(b[:, None], x, W.mT))
            slopes.append(slope)
        beta = self.output[:, None].expand(*z.shape[:-1], -1)
        for W, slope in zip(reversed(self.weights), reversed(slopes), strict=True):
            beta = torch.bmm(beta * slope, W)
        return beta / self.scale

    # Housekeeping ------------------------------------------------------------------------------

    @torch.no_grad()
    def standardise(self, q: States, qdot: States) -> None:
        """Centre and scale the features by their mean and standard deviation over these states.

        A feature that does not vary (spread below 1 % of the largest) keeps its natural scale.
        """
        phi = self.layer(q, qdot).reshape(-1, self.layer.M)
        spread = phi.std(0)
        spread = torch.where(spread < 0.01 * spread.max(), torch.ones_like(spread), spread)
        self.centre.copy_(phi.mean(0))
        self.scale.copy_(spread)

    def member(self, s: int) -> "LagrangianNetwork":
        """Member `s` as an ensemble of one, parameters copied. IndexError if there is none."""
        if not 0 <= s < self.S:
            raise IndexError(f"member {s} of an ensemble of {self.S}: expected 0..{self.S - 1}")
        one = LagrangianNetwork(
            self.layer,
            self.hidden,
            activation=self.activation,
            seeds=[self.seeds[s]],
            dtype=self.output.dtype,
            device=self.output.device,
        )
        state = self.state_dict()
        learned = {name for name, _ in self.named_parameters()}
        one.load_state_dict({k: v[s : s + 1] if k in learned else v for k, v in state.items()})
        return one

    def _state(self, q: Tensor, qdot: Tensor) -> Tensor:
        """The checked state z = (q, qdot), `(S, B, 2 d)`, in the weights' dtype and device."""
        z = self.layer.state(q, qdot)
        if z.dtype != self.output.dtype or z.device != self.output.device:
            raise ValueError(
                f"q and qdot are {z.dtype} on {z.device}, the weights {self.output.dtype} on "
                f"{self.output.device}; convert the states, or the network with net.to(...)"
            )
        if z.dim() == 2:
            return z.expand(self.S, *z.shape)
        if z.dim() != 3 or z.shape[0] != self.S:
            raise ValueError(
                f"q must be (B, d) or (S, B, d) with S = {self.S} members, got "
                f"{(*z.shape[:-1], self.layer.d)}; add a batch axis to a single state with q[None]"
            )
        return z

    def _refuse_singular(self, A: Tensor, z: Tensor, bad: Tensor) -> None:
        s, i = bad.nonzero()[0].tolist()
        d = self.layer.d
        raise SingularHessianError(
            f"member {s}, state {i}: the Hessian d2L/dqdot2 cannot be inverted (determinant "
            f"{torch.linalg.det(A[s, i]).item():.3g}) at q = {z[s, i, :d].tolist()}, "
            f"qdot = {z[s, i, d:].tolist()}; give the network a kinetic term (mass=...), lower the "
            "learning rate, or keep away from this state"
        )


def _masses(mass: Sequence[float] | None, d: int) -> Tensor:
    masses = torch.as_tensor([0.0] * d if mass is None else mass, dtype=torch.float64)
    if masses.shape != (d,) or not bool(masses.isfinite().all()):
        raise ValueError(
            f"mass must be {d} finite numbers, one for each coordinate, got {mass}; "
            f"for unit masses give [1.0] * {d}"
        )
    return masses
