r"""Phase space: states $z = (q, p)$, the matrix Omega, brackets, and the features of coordinates.

All positions come first, then all momenta; d degrees of freedom are 2 d numbers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion.scalars import Layer


def omega(
    d: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Float[Tensor, "two_d two_d"]:
    r"""The matrix $\Omega$ with the blocks 0, 1, -1, 0: Hamilton's equations are
    $\dot z = \Omega \nabla H$. Raises ValueError for d < 1."""
    if d < 1:
        raise ValueError(f"d must be 1 or more, got {d}")
    one = torch.eye(d, dtype=dtype, device=device)
    none = torch.zeros_like(one)
    return torch.cat([torch.cat([none, one], 1), torch.cat([-one, none], 1)])


def symplectic_gradient(gradient: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch two_d"]:
    r"""$\Omega \nabla f = (\partial f/\partial p, -\partial f/\partial q)$: the motion that f
    generates."""
    slope_q, slope_p = gradient.chunk(2, dim=-1)
    return torch.cat([slope_p, -slope_q], dim=-1)


def bracket(
    grad_f: Float[Tensor, "*#batch two_d"], grad_g: Float[Tensor, "*#batch two_d"]
) -> Float[Tensor, "*#batch"]:
    r"""The Poisson bracket $\{f, g\} = \nabla f \cdot \Omega \nabla g$ of Syväri et al. (2021),
    eq. (2), from gradients in z."""
    return (grad_f * symplectic_gradient(grad_g)).sum(-1)


def brackets(J: Float[Tensor, "*batch m two_d"]) -> Float[Tensor, "*batch m m"]:
    r"""All brackets $\{Z_a, Z_b\} = (J \Omega J^T)_{ab}$ of m functions whose gradients are the
    rows of J."""
    return J @ symplectic_gradient(J).mT


class Coordinates(Layer):
    r"""The coordinates of phase space as features, every angle as its cosine and sine.

    An angle and the same angle one turn later are the same state; a function of cosine and sine
    cannot tell them apart. The features are the coordinates that are no angles, in their order,
    then the cosines, then the sines.

    Args:
        d: degrees of freedom.
        angles: which positions are angles, counted from 0.

    Raises:
        ValueError: d below 1, or an angle that is no position or is named twice.
    """

    def __init__(self, d: int, angles: Sequence[int] = ()) -> None:
        if d < 1 or not set(angles) <= set(range(d)) or len(set(angles)) < len(angles):
            raise ValueError(
                f"d = {d}, angles = {tuple(angles)}: expected d >= 1 and distinct positions from 0 "
                "to d - 1"
            )
        super().__init__(torch.eye(2 * d), D=1)
        self.d, self.angles = d, tuple(angles)
        self._straight = [i for i in range(2 * d) if i not in self.angles]

    def _products(self) -> int:
        return 2 * self.d + len(self.angles)

    def combinations(self, v: Float[Tensor, "*batch n D"]) -> Float[Tensor, "*batch n D"]:
        """The coordinates themselves. Raises ValueError for another number of them."""
        if v.shape[-2:] != (self.n, 1):
            raise ValueError(
                f"v has shape {tuple(v.shape)}; expected (..., {self.n}, 1): {self.d} positions, "
                f"then {self.d} momenta"
            )
        return v

    def gradient(
        self, v: Float[Tensor, "*batch n D"], beta: Float[Tensor, "*batch M"]
    ) -> Float[Tensor, "*batch n D"]:
        """See `Layer.gradient`."""
        return self._gradient(self.combinations(v), beta)

    def _value(self, a: Tensor) -> Tensor:
        z = a.squeeze(-1)
        if not self.angles:
            return z
        turns = z[..., self.angles]
        return torch.cat([z[..., self._straight], turns.cos(), turns.sin()], dim=-1)

    def _gradient(self, a: Tensor, beta: Tensor) -> Tensor:
        if not self.angles:
            return beta[..., None]
        turns = a.squeeze(-1)[..., self.angles]
        m, k = len(self._straight), len(self.angles)
        straight, by_cos, by_sin = beta.split([m, k, k], dim=-1)
        turning = by_sin * turns.cos() - by_cos * turns.sin()
        order = torch.tensor([*self._straight, *self.angles], device=a.device)
        both = torch.cat([straight, turning], dim=-1)
        return torch.empty_like(both).index_copy(-1, order, both)[..., None]

    def outputs(self, m: int) -> int:
        """m: a rate for each coordinate."""
        return m

    def vectors(
        self, v: Float[Tensor, "*batch n D"], f: Float[Tensor, "*batch o"]
    ) -> Float[Tensor, "*batch o one"]:
        """The outputs as rates; `v` has no part in it."""
        return f[..., None]
