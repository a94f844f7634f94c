r"""Hamiltonian networks: learn the energy, derive the motion.

$\mathcal H = h(\phi(q, p, c))$ with a layer of `companion.scalars` and a network h, and
$\dot q = \partial\mathcal H/\partial p$, $\dot p = -\partial\mathcal H/\partial q$ (Greydanus et
al. 2019; Yao et al. 2021, eq. 11). The gradient is written out, layer by layer, so that training
differentiates once and not twice.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from companion.scalars import Layer
from companion.vectorfield import Given, State, VectorNetwork


class HamiltonianNetwork(VectorNetwork):
    r"""An ensemble of learned Hamiltonians; the arguments are those of `VectorNetwork`.

    The flow keeps $\mathcal H$, whatever the weights. With `Scalars` it is invariant under O(D),
    acting on the given vectors as well: rotating about $g$ changes nothing, so the component of
    the angular momentum along $g$ through $q_o$ is conserved too (Noether).
    """

    def _outputs(self, layer: Layer) -> int:
        return 1

    def energy(
        self, z: State, given: Given | None = None, extra: Tensor | None = None
    ) -> Float[Tensor, "S B"]:
        r"""The learned $\mathcal H$, up to a constant that no motion shows."""
        return self.core.value(self.features(self.vectors(z, given), extra)).squeeze(-1)

    def _rate(self, core: Any, v: Tensor, extra: Tensor | None) -> Tensor:
        beta = core.gradient(self.features(v, extra))[..., : self.layer.M]
        slope_q, slope_p = self.layer.gradient(v, beta)[..., : 2 * self.n, :].chunk(2, dim=-2)
        return torch.cat([slope_p, -slope_q], dim=-2).flatten(-2)
