r"""Averaging over a group: the Reynolds operator, which makes any function equivariant.

.. math:: (\mathcal R f)(x) = \big\langle \rho(g)^{-1} f(g \cdot x) \big\rangle_g

The mean is over the whole group, in the Haar measure. For a finite group it is a sum over
``group.elements()``. For a polynomial f under SO(2) or O(2) the elements of
``group.design(degree)`` give it exactly; for SO(3) a quadrature with weights does. The mean over a
handful of ``group.sample()`` is an estimate: no such average is exactly equivariant.
"""

from collections.abc import Callable

from jaxtyping import Inexact, Shaped
from torch import Tensor, linalg

__all__ = ["reynolds"]

Action = Callable[[Tensor, Tensor], Tensor]


def reynolds(
    f: Callable[..., Tensor],
    action: Action,
    elements: Shaped[Tensor, "..."],
    *,
    output_action: Action | None = None,
    weights: Shaped[Tensor, "..."] | None = None,
) -> Callable[..., Tensor]:
    r"""The average of f over the elements, as a new function of the same inputs.

    Args:
        f: a function of one or more tensors.
        action: ``action(g, x)`` moves an input; all inputs move together, as in
            `companion.testing.assert_equivariant`.
        elements: (N, d, d), invertible matrices, one a group element.
        output_action: ``output_action(g, y)`` moves the output. None averages the outputs as they
            are: then the result is invariant.
        weights: (N,), adding up to 1, of a quadrature; None weighs all elements alike.

    The result is exactly equivariant, to rounding, under every group whose elements are listed,
    each once and with equal weights. f is called N times.

    Raises:
        ValueError: no elements, elements that are not square matrices, weights of another number
            or of another sum than 1.
    """
    if elements.ndim != 3 or not len(elements) or elements.shape[1] != elements.shape[2]:
        raise ValueError(
            f"elements: got shape {tuple(elements.shape)}, expected (N, d, d) with N >= 1, one "
            "matrix an element, as group.elements(), group.design() or group.sample() return"
        )
    count = len(elements)
    if weights is None:
        weights = elements.new_full((count,), 1 / count)
    if weights.shape != (count,) or abs(weights.sum().item() - 1) > 1e-5:
        raise ValueError(
            f"weights: got shape {tuple(weights.shape)} and sum {weights.sum().item():.6g}, "
            f"expected ({count},) and 1, one weight an element"
        )
    back = linalg.inv(elements)

    def averaged(*inputs: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        total: Tensor | float = 0.0
        for g, inverse, weight in zip(elements, back, weights, strict=True):
            value = f(*(action(g, x) for x in inputs))
            if output_action is not None:
                value = output_action(inverse, value)
            total = total + weight * value
        return total  # type: ignore[return-value] -- there is at least one element

    return averaged
