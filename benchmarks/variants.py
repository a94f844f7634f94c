"""The acceleration of one and the same network, computed in five ways.

`explicit` is the package's; the other four are what one writes with automatic differentiation
alone. All take a network of one member and states `(1, B, d)` and return `(1, B, d)`. The linear
system is solved by the same function, so that only the derivatives differ.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, jvp, vmap

from companion.lagrangian import LagrangianNetwork

Acceleration = Callable[[LagrangianNetwork, Tensor, Tensor], Tensor]


def explicit(net: LagrangianNetwork, q: Tensor, qdot: Tensor) -> Tensor:
    """The second-order pass by hand: `LagrangianNetwork.acceleration`."""
    return net.acceleration(q, qdot, check=False)


def double_backward(net: LagrangianNetwork, q: Tensor, qdot: Tensor) -> Tensor:
    """A loop over the rows of the Hessian: backward through backward, for the whole batch."""
    train = torch.is_grad_enabled()
    with torch.enable_grad():
        q, qdot = (x.detach().requires_grad_() for x in (q, qdot))
        L = net.lagrangian(q, qdot).sum()
        force, momentum = torch.autograd.grad(L, (q, qdot), create_graph=True)
        rows = [
            torch.autograd.grad(
                momentum[..., i].sum(), (q, qdot), create_graph=train, retain_graph=True
            )
            for i in range(q.shape[-1])
        ]
    mixed, A = (torch.stack(part, dim=-2) for part in zip(*rows, strict=True))
    return _solve(A, force - (mixed @ qdot[..., None]).squeeze(-1))


def vmapped_hessian(net: LagrangianNetwork, q: Tensor, qdot: Tensor) -> Tensor:
    """`vmap(hessian(L))`: the shortest text."""
    return _by_samples(net, q, qdot, lambda L: lambda z: (hessian(L)(z), grad(L)(z)))


def reverse_over_reverse(net: LagrangianNetwork, q: Tensor, qdot: Tensor) -> Tensor:
    """`vmap(jacrev(grad(L)))`."""

    def second(L: Callable) -> Callable:
        def twice(z: Tensor) -> tuple[Tensor, Tensor]:
            g = grad(L)(z)
            return g, g

        return jacrev(twice, has_aux=True)

    return _by_samples(net, q, qdot, second)


def forward_over_reverse(net: LagrangianNetwork, q: Tensor, qdot: Tensor) -> Tensor:
    """Forward mode over `grad(L)` along the d velocities and the motion only."""
    d = net.layer.d
    slope = grad(_value(net))

    def one(z: Tensor) -> tuple[Tensor, Tensor]:
        motion = torch.cat([z[d:], torch.zeros_like(z[d:])])
        unit = torch.eye(2 * d, dtype=z.dtype)[d:]
        directions = torch.cat([unit, motion[None]])
        g, changes = vmap(lambda v: jvp(slope, (z,), (v,))[:2])(directions)
        return changes[:d, d:], g[0, :d] - changes[d, d:]

    A, b = vmap(one)(torch.cat([q, qdot], dim=-1)[0])
    return _solve(A, b)[None]


VARIANTS: dict[str, Acceleration] = {
    "explicit": explicit,
    "double-backward loop": double_backward,
    "torch.func: forward over reverse": forward_over_reverse,
    "torch.func: jacrev of grad": reverse_over_reverse,
    "torch.func: vmap of hessian": vmapped_hessian,
}


def _by_samples(net: LagrangianNetwork, q: Tensor, qdot: Tensor, second: Callable) -> Tensor:
    d = net.layer.d
    derivatives = second(_value(net))

    def one(z: Tensor) -> tuple[Tensor, Tensor]:
        H, g = derivatives(z)
        return H[d:, d:], g[:d] - H[d:, :d] @ z[d:]

    A, b = vmap(one)(torch.cat([q, qdot], dim=-1)[0])
    return _solve(A, b)[None]


def _value(net: LagrangianNetwork) -> Callable[[Tensor], Tensor]:
    """The Lagrangian of a single state `(2 d,)`, as one would write it for `torch.func`."""
    d = net.layer.d

    def L(z: Tensor) -> Tensor:
        x = (net.layer.value(z) - net.centre) / net.scale
        for W, b in zip(net.weights, net.biases, strict=True):
            x = net.activation(W[0] @ x + b[0])
        return net.output[0] @ x + 0.5 * (net.mass * z[d:].square()).sum()

    return L


def _solve(A: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve_ex(A, b)[0]
