r"""What a belief about a field costs, read off the field before a network is built on it.

A belief is a linear family of fields $\dot z = f(z)$: those that commute with a group, or those
that come from an energy. Its *price* is the share of the field's mean square that no member of the
family can express: the error, squared, that infinite data would leave,

.. math:: \pi = \min_u \; \langle |f - u|^2 \rangle \,/\, \langle |f|^2 \rangle .

A price is between 0 and 1, and that of a true belief is 0, to rounding. The functions below take
any field: the truth, or a network that was trained without the belief and is asked about it. The
chapter *Which symmetry for which problem?* derives both formulas.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion.phase_space import omega

__all__ = ["price_of_energy", "price_of_symmetry"]

Field = Callable[[Tensor], Tensor]
Move = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def price_of_symmetry(f: Field, z: Shaped[Tensor, "..."], move: Move) -> Float[Tensor, "*ensemble"]:
    r"""Half the mean square of what a symmetry of f would make zero, over that of f.

    .. math:: \pi = \big\langle |f(gz) - g f(z)|^2 \big\rangle \,/\, 2 \langle |f|^2 \rangle

    This is the price where g is drawn from the Haar measure of a compact group whose elements keep
    lengths, and gz is distributed as z; for other elements, such as translations, it is zero
    exactly if f commutes with them, and else a measure without that meaning.

    Args:
        f: the field, `(..., B, k)` to `(..., B, k)`.
        z: states, `(..., B, k)`.
        move: called with states and their rates; returns both where the group takes them, one
            element a state.

    Returns:
        A number for each member of an ensemble, shape `(...)`: the mean is over B states.

    Raises:
        ValueError: fewer than two axes, `move` changes a shape, or f is zero at all states.
    """
    rate = _rates(f, z)
    there, turned = move(z, rate)
    if there.shape != z.shape or turned.shape != rate.shape:
        raise ValueError(
            f"move returned shapes {tuple(there.shape)} and {tuple(turned.shape)} for "
            f"{tuple(z.shape)} and {tuple(rate.shape)}; expected states and rates of the same ones"
        )
    return (f(there) - turned).square().sum(-1).mean(-1) / (2 * _mean_square(rate))


def price_of_energy(f: Field, z: Shaped[Tensor, "..."]) -> Float[Tensor, "*ensemble"]:
    r"""The antisymmetric share of $A = -\Omega\, Df$: zero where f is Hamiltonian, and only there.

    .. math:: \pi = \langle |A - A^T|^2 \rangle \,/\, 4 \langle |A|^2 \rangle

    with Frobenius norms. This is the price for a linear field and states that are normal with unit
    covariance; for others a mean over the linear fields that touch f at the states. Units matter:
    use states whose positions and momenta are of like size.

    Args:
        f: a field z = (q, p) to its rate, differentiable by autograd, `(..., B, 2d)` to the same.
        z: states, `(..., B, 2d)`.

    Returns:
        A number for each member of an ensemble, shape `(...)`.

    Raises:
        ValueError: fewer than two axes, an odd number of components, or a constant f.
    """
    if z.dim() < 2 or z.shape[-1] % 2:
        raise ValueError(
            f"z has shape {tuple(z.shape)}, expected (..., B, 2d): q and p of B states"
        )
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        rate = _rates(f, z)
        rows = [
            torch.autograd.grad(rate[..., i].sum(), z, retain_graph=True)[0]
            for i in range(z.shape[-1])
        ]
    Df = torch.stack(rows, dim=-2)
    A = -omega(z.shape[-1] // 2).to(Df) @ Df
    whole = A.square().sum((-1, -2)).mean(-1)
    if bool((whole == 0).any()):
        raise ValueError("f is the same at all states, so it has no part that is not Hamiltonian")
    return (A - A.mT).square().sum((-1, -2)).mean(-1) / (4 * whole)


def _rates(f: Field, z: Tensor) -> Tensor:
    if z.dim() < 2:
        raise ValueError(f"z has shape {tuple(z.shape)}, expected (..., B, k): several states")
    rate = f(z)
    if rate.shape != z.shape:
        raise ValueError(f"f returned shape {tuple(rate.shape)} for z {tuple(z.shape)}")
    return rate


def _mean_square(rate: Tensor) -> Tensor:
    size = rate.square().sum(-1).mean(-1)
    if bool((size == 0).any()):
        raise ValueError("f is zero at all states; a share of nothing does not exist")
    return size
