r"""Activations with their first two derivatives in closed form, for explicit second-order
passes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor

Jet = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Activation:
    r"""A twice-differentiable activation; `jet(u)` returns $\sigma(u), \sigma'(u), \sigma''(u)$."""

    name: str
    jet: Callable[[Tensor], Jet]

    def __call__(self, u: Tensor) -> Tensor:
        return self.jet(u)[0]


def _softplus(u: Tensor) -> Jet:
    # F.softplus turns linear above its threshold, 20 by default, where float64 still sees a slope.
    s = torch.sigmoid(u)
    return F.softplus(u, threshold=20.0 if u.dtype == torch.float32 else 40.0), s, s * (1 - s)


def _tanh(u: Tensor) -> Jet:
    y = torch.tanh(u)
    slope = 1 - y * y
    return y, slope, -2 * y * slope


def _silu(u: Tensor) -> Jet:
    s = torch.sigmoid(u)
    ds = s * (1 - s)
    return u * s, s + u * ds, ds * (2 + u * (1 - 2 * s))


def _sin(u: Tensor) -> Jet:
    y = torch.sin(u)
    return y, torch.cos(u), -y


ACTIVATIONS = {
    name: Activation(name, jet)
    for name, jet in {"softplus": _softplus, "tanh": _tanh, "silu": _silu, "sin": _sin}.items()
}


def activation_named(activation: str | Activation) -> Activation:
    """The activation of this name. Raises ValueError with the nearest names if there is none."""
    if isinstance(activation, Activation):
        return activation
    if activation not in ACTIVATIONS:
        near = get_close_matches(activation, ACTIVATIONS, n=2, cutoff=0.3) or list(ACTIVATIONS)
        raise ValueError(
            f"activation {activation!r} is not known; did you mean {' or '.join(near)}? The second "
            "derivative must exist, so relu is not offered; or pass an Activation with its jet"
        )
    return ACTIVATIONS[activation]
