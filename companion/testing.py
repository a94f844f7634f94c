r"""Checks that a function has the symmetry it claims; they raise `AssertionError` if it has not.

Use them on your own models: before training, with random weights, in float32 and float64. A model
that passes at random weights passes at all weights with the same structure; one that only learned
its symmetry fails. Every check returns the largest error that it measured.

Errors are relative: the change of an entry, divided by the largest entry of its row (last axis) or
by the median over rows where that is larger, so that rows which happen to be tiny do not decide.
The default tolerance follows the dtype of the output: 1e-10 in float64 and complex128, 1e-4 in
float32 and complex64.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion.metrics import relative_deviation

TOLERANCE = {
    torch.float64: 1e-10,
    torch.complex128: 1e-10,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}

Action = Callable[..., Tensor]


def assert_invariant(
    f: Callable[..., Tensor],
    action: Action | Sequence[Action | None],
    inputs: Tensor | Sequence[Tensor],
    *,
    elements: Tensor | Sequence | None = None,
    rtol: float | None = None,
) -> float:
    r"""Checks $f(g \cdot x) = f(x)$ for every group element $g$ and every $x$ of the batch.

    `inputs` is a tensor, or several: then `f(*inputs)`. `action(g, x)` moves one input and is
    applied to each of them; give a sequence with one action an input where they differ, `None` for
    an input that is not moved: `(group.act, None)` translates q and not qdot. With
    `elements=None` the action is one transformation `action(x)`.

        SO3 = groups.SO(3)
        g = SO3.sample(8, generator=generator)
        assert_invariant(net.lagrangian, SO3.act, (q, qdot), elements=g)

    Raises `AssertionError` with the largest error, the tolerance and the worst place, and
    `ValueError` if the action moves nothing, for such a check says nothing.
    """
    return _compare("f(g x) = f(x)", f, action, inputs, elements, rtol, lambda g, output: output)


def assert_equivariant(
    f: Callable[..., Tensor],
    action: Action | Sequence[Action | None],
    inputs: Tensor | Sequence[Tensor],
    *,
    output_action: Action | None = None,
    elements: Tensor | Sequence | None = None,
    rtol: float | None = None,
) -> float:
    r"""Checks $f(g \cdot x) = g \cdot f(x)$; arguments as in `assert_invariant`.

    `output_action` moves the output; it defaults to `action` and must be given if that is a
    sequence.
    """
    if output_action is None:
        if not callable(action):
            raise ValueError(
                "action is a sequence, one an input, so it does not say how the output moves; "
                "pass output_action=."
            )
        output_action = action

    expected = _of_element(output_action, elements)
    return _compare("f(g x) = g f(x)", f, action, inputs, elements, rtol, expected)


def assert_conserved(
    values: Float[Tensor, "..."],
    rtol: float | None = None,
    *,
    reference: Float[Tensor, "..."] | None = None,
) -> float:
    r"""Checks $\lVert I(t) - I(0)\rVert \le$ `rtol` $\lVert I(0)\rVert$ at all times (axis 0).

    `values` and `reference` as `I` and `reference` of `metrics.relative_deviation`: shape
    `(T, ..., k)`, or `(T,)` for one scalar; a batch of scalars is `values[..., None]`.
    """
    tolerance = _tolerance(values, rtol)
    return _judge(
        "I(t) = I(0)", relative_deviation(values, reference=reference), tolerance, "(time, ...)"
    )


def assert_symplectic(
    transformation: Callable[[Tensor], Tensor],
    y: Float[Tensor, "*batch D"],
    *,
    rtol: float | None = None,
) -> float:
    r"""Checks that $J \Omega J^T = \Omega$ at every state, $J$ the Jacobian of the transformation.

    `y` is $(q, p)$ joined along the last axis and $\Omega$ has the blocks $0, 1, -1, 0$, so this is
    the condition that every Poisson bracket keeps its form. The states of the batch must not
    influence one another. An integrator step is `lambda y: rk4_step(f, y, dt)`; $(q, \dot q)$ is
    canonical where all masses are 1. The error is divided by the largest entry of $J$, squared,
    where that exceeds 1.
    """
    size = y.shape[-1]
    if size % 2:
        raise ValueError(f"y has shape {tuple(y.shape)}; (q, p) needs an even last axis.")
    with torch.enable_grad():
        start = y.detach().requires_grad_()
        end = transformation(start)
        if end.shape != y.shape:
            raise ValueError(
                f"transformation returned shape {tuple(end.shape)} for y of shape "
                f"{tuple(y.shape)}; it must map phase space to itself."
            )
        if not end.requires_grad:
            raise ValueError("transformation cut the gradient; take torch.no_grad out of it.")
        rows = [
            torch.autograd.grad(
                end[..., i].sum(), start, retain_graph=True, materialize_grads=True
            )[0]
            for i in range(size)
        ]
    jacobian = torch.stack(rows, -2)  # (..., D, D), row i is the gradient of output i
    upper = torch.eye(size, dtype=y.dtype, device=y.device).roll(size // 2, -1).triu()
    omega = upper - upper.T
    defect = (jacobian @ omega @ jacobian.mT - omega).abs().amax((-2, -1))
    error = defect / jacobian.abs().amax((-2, -1)).square().clamp(min=1)
    return _judge("J Omega J^T = Omega", error, _tolerance(y, rtol), "(batch)")


def _of_element(action, elements) -> Callable:
    """`action` as a function of (g, x), also where it is one fixed transformation or none."""
    if action is None:
        return lambda g, x: x
    return action if elements is not None else lambda g, x: action(x)


def _compare(law, f, action, inputs, elements, rtol, expected) -> float:
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    actions = (action,) * len(inputs) if callable(action) else tuple(action)
    if len(actions) != len(inputs):
        raise ValueError(f"{len(actions)} actions for {len(inputs)} inputs; give one an input.")
    if elements is not None and len(elements) == 0:
        raise ValueError("elements is empty; give at least one group element.")
    actions = [_of_element(act, elements) for act in actions]

    output = f(*inputs).detach()
    tolerance = _tolerance(output, rtol)
    errors, moved = [], False
    for g in [None] if elements is None else elements:
        new = [act(g, x) for act, x in zip(actions, inputs, strict=True)]
        moved = moved or not all(map(torch.equal, new, inputs))
        target, got = expected(g, output), f(*new).detach()
        if got.shape != target.shape:
            raise ValueError(
                f"f gave shape {tuple(got.shape)} on the moved inputs, expected "
                f"{tuple(target.shape)}; is the action batched like the inputs?"
            )
        errors.append((got - target).abs() / _scale(target))
    if not moved:
        raise ValueError(
            "the action left every input as it was, so the check says nothing; "
            "use group elements other than the identity."
        )
    if elements is None:
        return _judge(law, errors[0], tolerance, "(output index)")
    return _judge(law, torch.stack(errors), tolerance, "(element, output index)")


def _scale(output: Tensor) -> Tensor:
    rows = output.abs() if output.dim() == 0 else output.abs().amax(-1, keepdim=True)
    finite = rows[rows.isfinite()]
    floor = finite.median() if len(finite) else torch.ones_like(rows.flatten()[0])
    return rows.clamp(min=floor.item() or torch.finfo(output.dtype).tiny)


def _tolerance(output: Tensor, rtol: float | None) -> float:
    if rtol is not None:
        return rtol
    if output.dtype not in TOLERANCE:
        raise ValueError(f"no default tolerance for {output.dtype}; pass rtol=.")
    return TOLERANCE[output.dtype]


def _judge(law: str, error: Tensor, tolerance: float, places: str) -> float:
    error = error.detach().nan_to_num(nan=torch.inf, posinf=torch.inf)
    worst = error.max().item()
    if not worst <= tolerance:
        index = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
        share = (error > tolerance).double().mean().item()
        size = f"{worst:.2e}" if math.isfinite(worst) else "not finite"
        raise AssertionError(
            f"{law} fails: largest relative error {size}, tolerance {tolerance:.1e}, "
            f"worst at {places} = {index}; {share:.0%} of the entries fail."
        )
    return worst
