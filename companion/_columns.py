r"""Activation and unit vectors of columns, with their derivative by hand: the inner loop of Part V.

Between two matrix products a layer of vectors needs $x = \sigma(y) = s(\rho)\,y$ and $e = y/\rho$,
$\rho = \sqrt{|y|^2 + \epsilon^2}$, of every column y (eqs. 8 and 13 of Ma & Chan 2022). As
whole-tensor operations that is a dozen passes over memory, more than the products cost. The
softsign of real columns is therefore a loop compiled by numba, on the CPU.
"""

from typing import Any

import torch
from torch import Tensor


def activated(y: Tensor, activation: Any, eps: float) -> Tensor:
    r"""$\sigma(y)$ and $e$ of the columns of y, `(..., n, M)`, side by side, `(..., n, 2 M)`.

    `activation` is a `companion.unitary.Radial`. Where it maps a column to zero, e is zero too.
    """
    return _Activated.apply(y, activation, eps)


class _Activated(torch.autograd.Function):
    r"""Section 3.4 in closed form.

    Both halves are y times a function of $\mu = |y|^2$. With $\delta_x, \delta_e$ their gradients

    $$\delta_y = s\,\delta_x + t\,\delta_e
        + 2 y\,\mathrm{Re}\, y^\dagger (s_\mu\,\delta_x + t_\mu\,\delta_e).$$
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, activation: Any, eps: float) -> Tensor:
        y = y.contiguous()
        ctx.save_for_backward(y)
        ctx.activation, ctx.eps = activation, eps
        if _compiles(y, activation):
            from companion import _columns_kernels as kernels

            out = y.new_empty(*y.shape[:-1], 2 * y.shape[-1])
            kernels.forward(_rows(y), *_constants(y, activation, eps), _rows(out))
            return out
        s, t, _, _ = _factors(y, activation, eps)
        return torch.cat([y * s, y * t], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (y,), activation, eps = ctx.saved_tensors, ctx.activation, ctx.eps
        # with create_graph the derivative is to be differentiated again: no compiled loop then
        if _compiles(y, activation) and not torch.is_grad_enabled():
            from companion import _columns_kernels as kernels

            g, delta_y = gradients[0].contiguous(), torch.empty_like(y)
            kernels.backward(_rows(y), _rows(g), *_constants(y, activation, eps), _rows(delta_y))
            return delta_y, None, None
        delta_x, delta_e = gradients[0].chunk(2, dim=-1)
        s, t, s_mu, t_mu = _factors(y, activation, eps)
        along = (y.conj() * (s_mu * delta_x + t_mu * delta_e)).real.sum(-2, keepdim=True)
        return s * delta_x + t * delta_e + 2 * along * y, None, None


def _factors(y: Tensor, activation: Any, eps: float) -> tuple[Tensor, ...]:
    r"""$s, t$ with $x = s\,y$, $e = t\,y$, and their derivatives in $\mu = |y|^2$."""
    mu = (y * y.conj()).real.sum(-2, keepdim=True)
    rho = (mu + eps**2).sqrt()
    s, slope = activation.gain(rho)
    t = (s > 0) / rho
    return s, t, slope / (2 * rho), -t / (2 * rho**2)


def _compiles(y: Tensor, activation: Any) -> bool:
    """Whether there is a compiled loop: for softsign of real columns."""
    from companion.unitary import Softsign  # which imports this module

    known = y.device.type == "cpu" and y.dtype in (torch.float32, torch.float64)
    return known and type(activation) is Softsign


def _rows(x: Tensor) -> Any:
    return x.detach().view(-1, *x.shape[-2:]).numpy()


def _constants(y: Tensor, activation: Any, eps: float) -> tuple[Any, Any]:
    """The constants in the type of y: a wider one would make the loop compute in it."""
    real = _rows(y).dtype.type
    return real(activation.a), real(eps**2)
