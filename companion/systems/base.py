"""What every physical system of the book has: one Lagrangian, and all that follows from it."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, cast

import sympy
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion import _algebra, _march, integrators, symbolic

Real = float | int


class Parameter(NamedTuple):
    """The value of a symbol, its unit ("1" where the book is dimensionless) and its meaning."""

    value: Real
    unit: str
    meaning: str


class System:
    r"""A mechanical system, written once as a sympy Lagrangian.

    Equations of motion, energy and Noether charges are derived from :attr:`lagrangian` on first use
    and compiled to torch; nothing is typed twice. States are pairs ``(q, qdot)`` of tensors
    ``(..., d)``, or points ``z = (q, p)`` of phase space, tensors ``(..., 2 d)`` with all
    coordinates before all momenta; dtype and device of the results are those of the inputs.

    Args:
        name: how ``systems.get`` knows it.
        coordinates: ``(q, qdot, qddot)`` of :func:`companion.symbolic.coordinates`.
        parameters: every symbol of the Lagrangian that is not a coordinate.
        lagrangian: :math:`L(q, \dot q)`.
        symmetries: name of the charge -> its generator :math:`\xi(q)`.
        gauges: name of the charge -> K, for symmetries under which L changes by dK/dt.

    Raises:
        ValueError: a parameter is not a finite number, or has the wrong sign for its symbol.
    """

    def __init__(
        self,
        name: str,
        coordinates: tuple[tuple, tuple, tuple],
        parameters: Mapping[sympy.Symbol, Parameter],
        lagrangian: sympy.Expr,
        symmetries: Mapping[str, Sequence[sympy.Expr]] | None = None,
        gauges: Mapping[str, sympy.Expr] | None = None,
    ) -> None:
        self.name = name
        self.q, self.qdot, self.qddot = coordinates
        self.parameters = dict(parameters)
        self.lagrangian = lagrangian
        self.symmetries = {k: list(xi) for k, xi in (symmetries or {}).items()}
        self.gauges = dict(gauges or {})
        for symbol, parameter in self.parameters.items():
            _check(symbol, parameter)

    def __repr__(self) -> str:
        settings = ", ".join(f"{s}={p.value:g}" for s, p in self.parameters.items())
        return f"{type(self).__name__}({settings})"

    @property
    def d(self) -> int:
        """Number of degrees of freedom."""
        return len(self.q)

    @property
    def values(self) -> dict[sympy.Symbol, Real]:
        """The numbers that the compiled functions use."""
        return {symbol: parameter.value for symbol, parameter in self.parameters.items()}

    @property
    def charge_names(self) -> list[str]:
        """Names of the Noether charges, in the order of :meth:`charges`."""
        return list(self.symmetries)

    # Derived with sympy, for the reader ---------------------------------------------------------

    @cached_property
    def acceleration_expressions(self) -> list[sympy.Expr]:
        """The accelerations, solved from the Euler-Lagrange equations."""
        return symbolic.accelerations(self.lagrangian, self.q, self.qdot)

    @cached_property
    def energy_expression(self) -> sympy.Expr:
        """The charge of time translations."""
        return symbolic.energy(self.lagrangian, self.q, self.qdot)

    @cached_property
    def charge_expressions(self) -> dict[str, sympy.Expr]:
        """The Noether charge of each symmetry."""
        return {
            name: symbolic.noether_charge(
                self.lagrangian, self.q, self.qdot, xi, self.gauges.get(name, 0)
            )
            for name, xi in self.symmetries.items()
        }

    @cached_property
    def momentum_expressions(self) -> list[sympy.Expr]:
        """The momenta conjugate to the coordinates, p_i = dL/dqdot_i."""
        return [self.lagrangian.diff(v) for v in self.qdot]

    @cached_property
    def p(self) -> tuple[sympy.Symbol, ...]:
        """Symbols of the momenta conjugate to :attr:`q`."""
        return symbolic.momenta(" ".join(str(x) for x in self.q))

    @cached_property
    def hamiltonian_expression(self) -> sympy.Expr:
        r"""H(q, p), the Legendre transform of the Lagrangian.

        If L is quadratic in the velocities, :math:`L = \frac12 \dot q^T M \dot q + b \cdot \dot q
        - V`, it is :math:`H = \frac12 (p - b)^T M^{-1} (p - b) + V`, and sympy need not simplify.
        """
        mass = sympy.hessian(self.lagrangian, list(self.qdot))
        if mass.free_symbols & set(self.qdot):
            return symbolic.legendre(self.lagrangian, self.q, self.qdot, self.p)
        rest = dict.fromkeys(self.qdot, sympy.S.Zero)
        kinetic = sympy.Matrix(
            [a - b.xreplace(rest) for a, b in zip(self.p, self.momentum_expressions, strict=True)]
        )
        if mass.is_diagonal():
            velocity = [kinetic[i] / mass[i, i] for i in range(self.d)]
        else:
            velocity = _algebra.solve(mass, kinetic)
        T = (kinetic.T * sympy.Matrix(velocity))[0] / 2
        if not mass.is_diagonal():
            T = min(T, cast(sympy.Expr, sympy.factor(T)), key=sympy.count_ops)
        return T - self.lagrangian.xreplace(rest)

    @cached_property
    def flow_expressions(self) -> list[sympy.Expr]:
        """Hamilton's equations: dH/dp, then -dH/dq."""
        rates, forces = symbolic.hamilton(self.hamiltonian_expression, self.q, self.p)
        return [*rates, *forces]

    @cached_property
    def phase_charge_expressions(self) -> dict[str, sympy.Expr]:
        r"""Conserved functions of (q, p): the Noether charges, then what the system adds.

        The charge of the generator :math:`\xi(q)` with gauge term K is
        :math:`\sum_i \xi_i(q)\, p_i - K(q)`.
        """
        noether = {
            name: sympy.Add(*(x * a for x, a in zip(xi, self.p, strict=True)))
            - self.gauges.get(name, 0)
            for name, xi in self.symmetries.items()
        }
        return noether | self._hidden_charges()

    def _hidden_charges(self) -> dict[str, sympy.Expr]:
        """Conserved functions of (q, p) that no point transformation of :attr:`q` explains."""
        return {}

    @property
    def phase_charge_names(self) -> list[str]:
        """Names of the conserved functions, in the order of :meth:`phase_charges`."""
        return list(self.phase_charge_expressions)

    # Compiled with torch, for the machine --------------------------------------------------------

    def _compile(self, expressions: sympy.Expr | list[sympy.Expr]) -> Callable[..., Tensor]:
        return symbolic.to_torch(expressions, [self.q, self.qdot], self.values)

    @cached_property
    def _lagrangian(self) -> Callable[..., Tensor]:
        return self._compile(self.lagrangian)

    @cached_property
    def _acceleration(self) -> Callable[..., Tensor]:
        return self._compile(self.acceleration_expressions)

    @cached_property
    def _momentum(self) -> Callable[..., Tensor]:
        return self._compile(self.momentum_expressions)

    @cached_property
    def _energy(self) -> Callable[..., Tensor]:
        return self._compile(self.energy_expression)

    @cached_property
    def _charges(self) -> Callable[..., Tensor]:
        return self._compile(list(self.charge_expressions.values()))

    def lagrangian_value(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch"]:
        """The Lagrangian at a state. Raises ValueError for a last axis other than d."""
        return self._lagrangian(q, qdot)

    def acceleration(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """The true acceleration, eq. (9). Raises ValueError for a last axis other than d."""
        return self._acceleration(q, qdot)

    def momentum(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """The conjugate momenta. Raises ValueError for a last axis other than d."""
        return self._momentum(q, qdot)

    def energy(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch"]:
        """The energy at a state. Raises ValueError for a last axis other than d."""
        return self._energy(q, qdot)

    def charges(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch k"]:
        """The Noether charges, eq. (2), in the order of :attr:`charge_names`.

        Raises ValueError for a last axis other than d.
        """
        return self._charges(q, qdot)

    def rhs(self, y: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch two_d"]:
        """The first-order form y' = f(y) of y = (q, qdot), for the integrators.

        Raises ValueError for a last axis other than 2 d.
        """
        if y.shape[-1:] != (2 * self.d,):
            raise ValueError(
                f"y: expected shape (..., {2 * self.d}), positions then velocities of "
                f"{self.name}; got {tuple(y.shape)}"
            )
        q, qdot = y.split(self.d, dim=-1)
        return torch.cat([qdot, self._acceleration(q, qdot)], dim=-1)

    def rollout(
        self,
        q: Float[Tensor, "*batch d"],
        qdot: Float[Tensor, "*batch d"],
        dt: Real,
        steps: int,
        every: int = 1,
    ) -> Float[Tensor, "time *batch two_d"]:
        """True trajectories by RK4, every `every`-th state kept: `(steps / every + 1, ..., 2 d)`.

        The same as :func:`companion.integrators.solve` of :attr:`rhs`, in machine code where the
        states are float64 on the CPU: a thousand times faster for a single trajectory, once the
        second or two of compiling are over. Raises ValueError as `solve` does.
        """
        y = torch.cat([q, qdot], dim=-1)
        return self._march(self.rhs, "_machine_code", y, dt, steps, every)

    def _march(
        self, f: Callable, machine_code: str, y: Tensor, dt: Real, steps: int, every: int
    ) -> Tensor:
        """RK4 of y' = f(y); the attribute `machine_code` is f compiled, made on first use."""
        if y.dtype != torch.float64 or y.is_cuda:
            with torch.no_grad():
                return integrators.solve(f, y, dt, steps, every=every)
        integrators.check(y, dt, steps, "rk4", every, compensated=False)
        f(y)  # refuses a last axis other than 2 d
        return _march.march(getattr(self, machine_code), y, dt, steps, every)

    @cached_property
    def _machine_code(self) -> Callable:
        right_side = [*self.qdot, *self.acceleration_expressions]
        return _march.machine_code(right_side, [*self.q, *self.qdot], self.values)

    # The same in phase space ---------------------------------------------------------------------

    def _compile_phase(self, expressions: sympy.Expr | list[sympy.Expr]) -> Callable[..., Tensor]:
        return symbolic.to_torch(expressions, [(*self.q, *self.p)], self.values)

    @cached_property
    def _hamiltonian(self) -> Callable[..., Tensor]:
        return self._compile_phase(self.hamiltonian_expression)

    @cached_property
    def _flow(self) -> Callable[..., Tensor]:
        return self._compile_phase(self.flow_expressions)

    @cached_property
    def _velocity(self) -> Callable[..., Tensor]:
        return self._compile_phase(self.flow_expressions[: self.d])

    @cached_property
    def _phase_charges(self) -> Callable[..., Tensor]:
        return self._compile_phase(list(self.phase_charge_expressions.values()))

    def hamiltonian(self, z: Shaped[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch"]:
        """H at z = (q, p). Raises ValueError for a last axis other than 2 d."""
        return self._hamiltonian(self._point(z))

    def flow(self, z: Shaped[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch two_d"]:
        """Hamilton's equations, (dH/dp, -dH/dq) at z = (q, p), for the integrators.

        Raises ValueError for a last axis other than 2 d.
        """
        return self._flow(self._point(z))

    def velocity(self, z: Shaped[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch d"]:
        """The velocities dH/dp at z = (q, p). Raises ValueError for a last axis other than 2 d."""
        return self._velocity(self._point(z))

    def phase_charges(self, z: Shaped[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch k"]:
        """The conserved functions at z = (q, p), in the order of :attr:`phase_charge_names`.

        Raises ValueError for a last axis other than 2 d.
        """
        return self._phase_charges(self._point(z))

    def phase_rollout(
        self, z: Shaped[Tensor, "*batch two_d"], dt: Real, steps: int, every: int = 1
    ) -> Float[Tensor, "time *batch two_d"]:
        """:meth:`rollout` with Hamilton's equations: `(steps / every + 1, ..., 2 d)`, all (q, p).

        Raises ValueError as `rollout` does.
        """
        return self._march(self.flow, "_phase_machine_code", z, dt, steps, every)

    def _point(self, z: Tensor) -> Tensor:
        if z.shape[-1:] != (2 * self.d,):
            raise ValueError(
                f"z: expected shape (..., {2 * self.d}), positions then momenta of {self.name}; "
                f"got {tuple(z.shape)}"
            )
        return z

    @cached_property
    def _phase_machine_code(self) -> Callable:
        return _march.machine_code(self.flow_expressions, [*self.q, *self.p], self.values)

    # Initial conditions --------------------------------------------------------------------------

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """The initial condition the book's figures start from."""
        raise NotImplementedError(f"{type(self).__name__} defines no initial condition")

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """n random states ``(q, qdot)`` typical of the motion, drawn with ``generator``."""
        raise NotImplementedError(f"{type(self).__name__} defines no sampler")

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n two_d"]:
        """n random points z = (q, p): the states of :meth:`sample` with their momenta."""
        q, qdot = self.sample(n, generator, dtype)
        return torch.cat([q, self.momentum(q, qdot)], dim=-1)


class PhaseSpaceSystem(System):
    """A system whose random states are drawn in phase space, by :meth:`sample_phase`."""

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n two_d"]:
        """n random points z = (q, p) typical of the motion, drawn with ``generator``."""
        raise NotImplementedError(f"{type(self).__name__} defines no sampler")

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """The states of :meth:`sample_phase`, with velocities."""
        z = self.sample_phase(n, generator, dtype)
        return z[:, : self.d], self.velocity(z)

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """One state of :meth:`sample`, always the same."""
        q, qdot = self.sample(1, torch.Generator().manual_seed(0))
        return q[0].to(dtype), qdot[0].to(dtype)


def _check(symbol: sympy.Symbol, parameter: Parameter) -> None:
    value = parameter.value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{symbol} ({parameter.meaning}): got {value!r}, expected a finite number")
    if symbol.is_nonzero and value == 0 and not symbol.is_positive:
        raise ValueError(f"{symbol} ({parameter.meaning}): got 0, expected another number")
    if (symbol.is_positive and value <= 0) or (symbol.is_nonnegative and value < 0):
        kind = "positive" if symbol.is_positive else "non-negative"
        raise ValueError(f"{symbol} ({parameter.meaning}): got {value}, expected a {kind} number")


def axis_names(d: int) -> list[str]:
    """x, y, z; beyond three dimensions x_1 ... x_d."""
    return list("xyz"[:d]) if d <= 3 else [f"x_{i}" for i in range(1, d + 1)]


def normal_states(
    n: int, d: int, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """n states with standard normal positions and velocities."""
    state = torch.randn(2, n, d, generator=generator, dtype=dtype, device=generator.device)
    return state[0], state[1]
