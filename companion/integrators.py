r"""Time integrators for $\dot y = f(y)$, batched over every leading dimension and differentiable.

A method is a function `step(f, y, dt) -> y` with `y` of shape `(..., D)`; `METHODS` lists them by
name and `solve` repeats one of them. A mechanical state is $y = (q, \dot q)$ with $D = 2d$;
`first_order` turns an acceleration into its vector field $f(y) = (\dot q, \ddot q)$.

| method | order | evaluations of f a step | symplectic | keeps quadratic invariants |
|---|---|---|---|---|
| `rk4` | 4 | 4 | no | no |
| `velocity_verlet` | 2 | 1 in `solve`, 2 alone | yes | angular momentum |
| `implicit_midpoint` | 2 | 1 an iteration | yes | all, to the tolerance |

Nothing here switches gradients on or off: wrap a rollout that needs none in `torch.no_grad()`.
"""

import difflib
import importlib
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

VectorField = Callable[[Tensor], Tensor]
Step = Callable[[VectorField, Tensor, float], Tensor]


def first_order(acceleration: Callable[[Tensor, Tensor], Tensor]) -> VectorField:
    r"""The vector field $f(q, \dot q) = (\dot q, \ddot q)$ of `acceleration(q, qdot)`.

    The state `y` is `(q, qdot)` joined along the last axis, shape `(..., 2d)`.
    Raises `ValueError` if the last axis is odd or the acceleration has another shape than `q`.
    """

    def f(y: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        q, qdot = _halves(y)
        qddot = acceleration(q, qdot)
        if qddot.shape != q.shape:
            raise ValueError(
                f"acceleration(q, qdot) returned shape {tuple(qddot.shape)} for q of shape "
                f"{tuple(q.shape)}; they must agree. For an ensemble of S networks expand the "
                "state first: y.expand(S, *y.shape)."
            )
        return torch.cat((qdot, qddot), -1)

    return f


def rk4_step(
    f: VectorField, y: Float[Tensor, "*batch D"], dt: float | int
) -> Float[Tensor, "*batch D"]:
    """One step of the classical Runge-Kutta method: order 4, not symplectic."""
    return torch.add(y, _rk4_slopes(f, y, dt), alpha=dt / 6)


def velocity_verlet_step(
    f: VectorField, y: Float[Tensor, "*batch D"], dt: float | int
) -> Float[Tensor, "*batch D"]:
    r"""One step kick, drift, kick of a state $(q, \dot q)$: order 2, symplectic, reversible.

    The acceleration must not depend on the velocity (no magnetic field, no friction, no general
    Lagrangian network): with such a force the method drops to order 1 and is no longer symplectic.
    A single step cannot see that; `solve` checks it once, at `y0`.
    """
    return _kick_drift_kick(f, y, _halves(_slope(f, y))[1], dt)[0]


def implicit_midpoint_step(
    f: VectorField,
    y: Float[Tensor, "*batch D"],
    dt: float | int,
    tol: float | None = None,
    max_iter: int = 50,
) -> Float[Tensor, "*batch D"]:
    r"""One step $y' = y + \Delta t\, f(\tfrac{y + y'}{2})$: order 2, symplectic, reversible.

    Every quadratic invariant of the flow is kept to the tolerance. The midpoint is found by
    fixed-point iteration until its largest change, relative to `1 + |y|`, is below `tol`
    (default: 8 times the rounding unit of the dtype). Gradients flow through the iteration.
    A trajectory that is already inf or nan stays so and does not stop the others.
    Raises `RuntimeError` if `max_iter` iterations are not enough: take a smaller `dt`.
    """
    tol = 8 * torch.finfo(y.dtype).eps if tol is None else tol
    allowed = tol * (1 + y.detach().abs().amax(-1))
    middle = torch.add(y, _slope(f, y), alpha=dt / 2)
    for _ in range(max_iter):
        slope = f(middle)
        previous, middle = middle, torch.add(y, slope, alpha=dt / 2)
        change = (middle.detach() - previous.detach()).abs_().amax(-1)
        if not bool((change > allowed).any()):
            break
    failed = ~(change <= allowed) & y.detach().isfinite().all(-1)
    if bool(failed.any()):
        worst = (change / allowed).where(failed, 0).max().item() * tol
        raise RuntimeError(
            f"implicit midpoint: {int(failed.sum())} of {failed.numel()} states still change by a "
            f"relative {worst:.1e} after {max_iter} iterations (tol = {tol:.1e}) with dt = {dt}; "
            "take a smaller dt, or raise tol or max_iter if the change is slowly falling."
        )
    return torch.add(y, slope, alpha=dt)


METHODS: dict[str, Step] = {
    "rk4": rk4_step,
    "velocity_verlet": velocity_verlet_step,
    "implicit_midpoint": implicit_midpoint_step,
}


def solve(
    f: VectorField,
    y0: Shaped[Tensor, "*batch D"],
    dt: float | int,
    steps: int,
    method: str = "rk4",
    every: int = 1,
    progress: bool = False,
    compensated: bool = False,
) -> Float[Tensor, "time *batch D"]:
    r"""The trajectory through `y0`: `steps` steps of size `dt`, every `every`-th state kept.

    Returns `(1 + steps // every, ..., D)`, the initial state first; entry `k` is at time
    `k * every * dt`. A negative `dt` goes back in time. A trajectory that blows up holds inf and
    nan from there on; the others of the batch are not touched by it. Under `torch.no_grad()` the
    states are written into one preallocated tensor; otherwise all of them carry gradients.

    `compensated=True` (rk4 only) carries the rounding error of `y + increment` to the next step
    (Kahan), so that a long float32 rollout loses to the method, not to the additions.

    Raises `ValueError` for an unknown method, `steps` not divisible by `every`, a `y0` that holds
    nan or inf (with its index), an `f` that changes shape or dtype, and, for velocity Verlet, a
    force that depends on the velocity.
    """
    check(y0, dt, steps, method, every, compensated)
    advance = _advance(f, y0, dt, method, compensated)
    kept = steps // every
    blocks = range(1, kept + 1)
    if progress:
        from tqdm.auto import tqdm

        blocks = tqdm(blocks, desc=method, unit="step", unit_scale=every)

    states = None if torch.is_grad_enabled() else y0.new_empty(1 + kept, *y0.shape)
    graph = [y0]  # holds the states instead where they carry gradients
    if states is not None:
        states[0] = y0
    y = y0
    for block in blocks:
        for _ in range(every):
            y = advance(y)
        if states is None:
            graph.append(y)
        else:
            states[block] = y
    return torch.stack(graph) if states is None else states


def odeint(
    f: VectorField,
    y0: Float[Tensor, "*batch D"],
    t: Float[Tensor, " time"],
    *,
    adjoint: bool = False,
    **options,
) -> Float[Tensor, "time *batch D"]:
    """Adaptive integration by `torchdiffeq.odeint`, at the times `t` (strictly monotone).

    `adjoint=True` takes `odeint_adjoint`, whose memory does not grow with the number of steps; it
    needs the parameters: give an `nn.Module` as `f`, or `adjoint_params=tuple(net.parameters())`.
    `options` go to torchdiffeq (`method`, `rtol`, `atol`, ...). Its default tolerances (1e-7, 1e-9)
    are below float32 rounding, so a float32 state gets rtol = 1e-5 and atol = 1e-6.
    """
    try:
        torchdiffeq = importlib.import_module("torchdiffeq")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "odeint needs torchdiffeq, which is not installed: pip install torchdiffeq "
            "(or use companion.integrators.solve, which needs nothing)."
        ) from error
    if y0.dtype != torch.float64:
        options = {"rtol": 1e-5, "atol": 1e-6} | options
    if not adjoint:
        return torchdiffeq.odeint(lambda t, y: f(y), y0, t, **options)
    if "adjoint_params" not in options:
        if not isinstance(f, torch.nn.Module):
            raise ValueError(
                f"adjoint=True with f = {type(f).__name__}, which does not tell its parameters; "
                "pass adjoint_params=tuple(net.parameters()), or f as an nn.Module."
            )
        options["adjoint_params"] = tuple(f.parameters())
    return torchdiffeq.odeint_adjoint(lambda t, y: f(y), y0, t, **options)


# The arithmetic of a step


def _halves(y: Tensor) -> tuple[Tensor, Tensor]:
    if y.shape[-1] % 2:
        raise ValueError(
            f"y has shape {tuple(y.shape)}; a mechanical state (q, qdot) needs an even last axis."
        )
    q, qdot = y.chunk(2, -1)
    return q, qdot


def _slope(f: VectorField, y: Tensor) -> Tensor:
    slope = f(y)
    if slope.shape != y.shape or slope.dtype != y.dtype:
        raise ValueError(
            f"f(y) has shape {tuple(slope.shape)} and {slope.dtype} for y of shape "
            f"{tuple(y.shape)} and {y.dtype}; they must agree. Mend f, or expand y first."
        )
    return slope


def _rk4_slopes(f: VectorField, y: Tensor, dt: float) -> Tensor:
    """k1 + 2 k2 + 2 k3 + k4; the increment of the state is dt / 6 times it."""
    k1 = _slope(f, y)
    k2 = f(torch.add(y, k1, alpha=dt / 2))
    k3 = f(torch.add(y, k2, alpha=dt / 2))
    k4 = f(torch.add(y, k3, alpha=dt))
    return torch.add(k1 + k4, k2 + k3, alpha=2)


def _advance(f: VectorField, y0: Tensor, dt: float, method: str, compensated: bool) -> VectorField:
    """One step as a function of the state alone; it may carry something from step to step."""
    if compensated:
        return _compensated_rk4(f, y0, dt)
    if method == "velocity_verlet":
        return _carried_verlet(f, y0, dt)
    step = METHODS[method]
    return lambda y: step(f, y, dt)


def _compensated_rk4(f: VectorField, y0: Tensor, dt: float) -> VectorField:
    lost = torch.zeros_like(y0)  # what the last addition rounded away

    def advance(y: Tensor) -> Tensor:
        nonlocal lost
        increment = torch.add(lost, _rk4_slopes(f, y, dt), alpha=dt / 6)
        y_next = y + increment
        lost = increment - (y_next - y)
        return y_next

    return advance


def _kick_drift_kick(f: VectorField, y: Tensor, qddot: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    q, qdot = _halves(y)
    qdot = torch.add(qdot, qddot, alpha=dt / 2)
    q = torch.add(q, qdot, alpha=dt)
    qddot = _halves(_slope(f, torch.cat((q, qdot), -1)))[1]
    return torch.cat((q, torch.add(qdot, qddot, alpha=dt / 2)), -1), qddot


def _carried_verlet(f: VectorField, y0: Tensor, dt: float) -> VectorField:
    """Velocity Verlet that hands the last acceleration of a step to the next: one f a step."""
    q, qdot = _halves(y0)
    with torch.no_grad():
        faster = 2 * qdot + 1
        slope, probe = _slope(f, y0), f(torch.cat((q, faster), -1))
    (drift, qddot), (probe_drift, probe_qddot) = _halves(slope), _halves(probe)
    eps = torch.finfo(y0.dtype).eps

    def near(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e4 * eps, atol=1e2 * eps, equal_nan=True)

    if not (near(drift, qdot) and near(probe_drift, faster)):
        raise ValueError(
            "velocity_verlet: the first half of f(y) is not the second half of y; it needs "
            "y = (q, qdot) and f(y) = (qdot, acceleration(q)). Use first_order(acceleration)."
        )
    if not near(qddot, probe_qddot):
        change = (qddot - probe_qddot).abs().max().item()
        raise ValueError(
            f"velocity_verlet: at y0 the acceleration changes by {change:.1e} when only qdot is "
            "changed; the method is neither symplectic nor of order 2 for such a force. "
            'Use method="implicit_midpoint" or "rk4".'
        )
    qddot = _halves(f(y0))[1]

    def advance(y: Tensor) -> Tensor:
        nonlocal qddot
        y, qddot = _kick_drift_kick(f, y, qddot, dt)
        return y

    return advance


def check(y0: Tensor, dt: float, steps: int, method: str, every: int, compensated: bool) -> None:
    """Refuses what `solve` cannot do, with a ValueError that says so."""
    if method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, n=3, cutoff=0.3) or list(METHODS)
        raise ValueError(f"method = {method!r} is unknown; did you mean {' or '.join(near)}?")
    if not math.isfinite(dt) or dt == 0:
        raise ValueError(f"dt = {dt}; it must be finite and not zero (negative: back in time).")
    if steps < 1 or every < 1 or steps % every:
        raise ValueError(
            f"steps = {steps} and every = {every}; both must be at least 1 and steps a multiple "
            "of every, so that the last state is kept."
        )
    if compensated and method != "rk4":
        raise ValueError(f'compensated=True with method = {method!r}; it exists for "rk4" only.')
    if y0.dim() < 1 or not y0.is_floating_point():
        raise ValueError(
            f"y0 has shape {tuple(y0.shape)} and {y0.dtype}; expected a float tensor (..., D)."
        )
    bad = (~y0.detach().isfinite()).nonzero()
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(
            f"y0 holds {y0[index].item()} at index {index} ({len(bad)} such entries); "
            "an initial state must be finite. Drop or mend that trajectory."
        )
