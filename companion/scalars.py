r"""Scalars of vectors, and the vectors that scalars multiply: the layers of Yao et al. (2021).

A function of vectors $v_1 \dots v_n$ is invariant under O(d) if and only if it is a function of
their products $v_i \cdot v_j$ (eq. 1), and a vector-valued one is equivariant if and only if it is
a sum of the vectors with invariant coefficients (eq. 2). `Scalars` makes the products and the
sums; `Components` is the same door for networks that see components.

A layer first takes fixed combinations $a_k = \sum_i B_{ki} v_i$ of the vectors. That is where
translations are dealt with: where the coefficients of the positions sum to zero in every
combination, moving all positions alike changes nothing.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion.datasets import check_finite

Vectors = Float[Tensor, "*batch n D"]
Features = Float[Tensor, "*batch M"]


def gram(v: Vectors, metric: Float[Tensor, "D D"] | None = None) -> Float[Tensor, "*batch n n"]:
    r"""The Gram matrix $G_{ij} = v_i^T \eta\, v_j$; the `metric` $\eta$ is 1 if not given."""
    return v @ v.mT if metric is None else v @ metric.to(v) @ v.mT


def combine(f: Float[Tensor, "*batch n"], v: Vectors) -> Float[Tensor, "*batch D"]:
    r"""The vector $\sum_s f_s v_s$ of eq. (2)."""
    return (f[..., None] * v).sum(-2)


class Layer(torch.nn.Module):
    r"""Features of n vectors in D dimensions, and vectors made from a network's outputs.

    The length is the transformation $\sigma(x) = \sqrt{x}$ of eq. (9), applied to norms alone: of a
    product that changes sign the root has an infinite slope.

    Args:
        B: the combinations $a_k = \sum_i B_{ki} v_i$, `(k, n)`.
        D: dimension of the vectors.
        lengths: which combinations have their length $|a_k|$ among the features, counted from 0.

    Attributes: `n`, `k`, `D`, and `M`, the number of features.

    Raises:
        ValueError: B is not a matrix, or a length does not exist.
    """

    B: Tensor

    def __init__(
        self,
        B: Tensor | Sequence[Sequence[float | int]],
        D: int = 3,
        lengths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        B = torch.as_tensor(B, dtype=torch.float64)
        if B.dim() != 2:
            raise ValueError(
                f"B has shape {tuple(B.shape)}; expected (k, n), a row for each combination"
            )
        self.register_buffer("B", B, persistent=False)
        self.k, self.n = B.shape
        self.D = D
        if not all(0 <= i < self.k for i in lengths):
            raise ValueError(
                f"lengths = {tuple(lengths)}: expected numbers from 0 to {self.k - 1}, one of the "
                "combinations each"
            )
        self.lengths = tuple(lengths)

    @property
    def M(self) -> int:
        """Number of features."""
        return self._products() + len(self.lengths)

    def combinations(self, v: Vectors) -> Float[Tensor, "*batch k D"]:
        """The vectors $a_k$. Raises ValueError for other than n vectors in D dimensions."""
        if v.shape[-2:] != (self.n, self.D):
            raise ValueError(
                f"v has shape {tuple(v.shape)}; expected (..., {self.n}, {self.D}): {self.n} "
                f"vectors in {self.D} dimensions"
            )
        return self.B.to(v.dtype) @ v

    def value(self, v: Vectors) -> Features:
        """The features `(..., M)`, the lengths first."""
        a = self.combinations(v)
        rest = self._value(a)
        if not self.lengths:
            return rest
        return torch.cat([a[..., self.lengths, :].norm(dim=-1), rest], dim=-1)

    def gradient(self, v: Vectors, beta: Features) -> Vectors:
        r"""The gradient $\sum_m \beta_m\, \partial\phi_m/\partial v_i$ of a function of features.

        Where a length among the features is zero it is nan.
        """
        a, m = self.combinations(v), len(self.lengths)
        slopes = self._gradient(a, beta[..., m:])
        if self.lengths:
            chosen = a[..., self.lengths, :]
            unit = chosen / chosen.norm(dim=-1, keepdim=True)
            place = torch.tensor(self.lengths, device=v.device)
            slopes = slopes.index_add(-2, place, beta[..., :m, None] * unit)
        return self.B.to(v.dtype).mT @ slopes

    # What a layer must define: its features of the combinations a `(..., k, D)`, lengths apart.

    def _products(self) -> int:
        raise NotImplementedError

    def _value(self, a: Tensor) -> Tensor:
        raise NotImplementedError

    def _gradient(self, a: Tensor, beta: Tensor) -> Tensor:
        raise NotImplementedError

    def outputs(self, m: int) -> int:
        """How many numbers a network must give for m vectors."""
        raise NotImplementedError

    def vectors(self, v: Vectors, f: Float[Tensor, "*batch o"]) -> Float[Tensor, "*batch m D"]:
        """The m vectors that the outputs `f` of a network stand for."""
        raise NotImplementedError


class Scalars(Layer):
    r"""The products $a_i \cdot a_j$, $i \le j$, and the lengths $|a_i|$ of some of the vectors.

    Invariant under O(D) acting on all vectors alike, external ones such as gravity included; the
    vectors made from invariant coefficients, $\sum_k f_k a_k$, turn with them (eqs. 1, 2 and 9).
    The gradient is itself such a sum: of $F(G)$ it is $\sum_j (F_{ij} + F_{ji})\, a_j$.

    Args:
        B, D, lengths: as in `Layer`.
        metric: symmetric `(D, D)`; products are $a_i^T \eta\, a_j$ (Lorentz: diag(1, 1, 1, -1)).

    Raises:
        ValueError: what `Layer` refuses, or lengths with a metric, whose norms may be negative.
    """

    def __init__(
        self,
        B: Tensor | Sequence[Sequence[float | int]],
        D: int = 3,
        lengths: Sequence[int] = (),
        metric: Float[Tensor, "D D"] | None = None,
    ) -> None:
        super().__init__(B, D, lengths)
        if lengths and metric is not None:
            raise ValueError(
                f"lengths = {tuple(lengths)} with a metric: norms may be negative and have no root"
            )
        self.register_buffer("metric", metric, persistent=False)
        i, j = torch.triu_indices(self.k, self.k)
        self.register_buffer("places", i * self.k + j, persistent=False)

    metric: Tensor | None
    places: Tensor  # of the products in the flattened Gram matrix, (1,1), (1,2), ...

    def _products(self) -> int:
        return self.k * (self.k + 1) // 2

    def _value(self, a: Tensor) -> Tensor:
        return gram(a, self.metric).flatten(-2)[..., self.places]

    def _gradient(self, a: Tensor, beta: Tensor) -> Tensor:
        upper = beta.new_zeros(*beta.shape[:-1], self.k**2).index_copy(-1, self.places, beta)
        C = upper.unflatten(-1, (self.k, self.k))
        C = C + C.mT  # the diagonal twice: a . a has the gradient 2 a
        return C @ a if self.metric is None else C @ a @ self.metric.to(a)

    def outputs(self, m: int) -> int:
        """m k: a coefficient for each combination in each vector."""
        return m * self.k

    def vectors(self, v: Vectors, f: Float[Tensor, "*batch o"]) -> Float[Tensor, "*batch m D"]:
        r"""The vectors $\sum_k f_{mk} a_k$, eq. (9)."""
        return f.unflatten(-1, (-1, self.k)) @ self.combinations(v)


class Components(Layer):
    """No symmetry under rotations: the components of the combinations, vector after vector."""

    def _products(self) -> int:
        return self.k * self.D

    def _value(self, a: Tensor) -> Tensor:
        return a.flatten(-2)

    def _gradient(self, a: Tensor, beta: Tensor) -> Tensor:
        return beta.unflatten(-1, (self.k, self.D))

    def outputs(self, m: int) -> int:
        """m D, the components."""
        return m * self.D

    def vectors(self, v: Vectors, f: Float[Tensor, "*batch o"]) -> Float[Tensor, "*batch m D"]:
        """The outputs as vectors; `v` has no part in it."""
        return f.unflatten(-1, (-1, self.D))


def vectors_from_gram(G: Shaped[Tensor, "..."], d: int) -> Vectors:
    r"""Vectors with these products: `v` `(..., n, d)` with $v_i \cdot v_j = G_{ij}$.

    With $G = U \Lambda U^T$ the rows of $U\sqrt\Lambda$. Any other answer is $R\,v_i$ with an R of
    O(d), so this is the inverse of `gram` up to what `gram` cannot see; `alignment` finds the R.

    Args:
        G: symmetric `(..., n, n)`, positive semidefinite, of rank at most d. What rounding spoils,
            up to 1000 n eps of the largest eigenvalue, is forgiven.
        d: dimension of the vectors.

    Raises:
        ValueError: G is not square, of floats, finite or symmetric, has a negative eigenvalue or
            more than d positive ones, or d is below 1. Names the matrix of the batch.
    """
    if d < 1 or G.dim() < 2 or G.shape[-1] != G.shape[-2] or not G.is_floating_point():
        raise ValueError(
            f"G, d: got {G.dtype} of shape {tuple(G.shape)} and d = {d}; expected a float tensor "
            "(..., n, n) and d >= 1"
        )
    check_finite(G=G)
    n = G.shape[-1]
    slack = 1000 * n * torch.finfo(G.dtype).eps
    lopsided = (G - G.mT).abs() > slack * G.abs().amax((-2, -1), keepdim=True)
    if lopsided.any():
        *at, i, j = lopsided.nonzero()[0].tolist()
        raise ValueError(
            f"G{[*at, i, j]} is {G[(*at, i, j)]:.6g} and G{[*at, j, i]} is {G[(*at, j, i)]:.6g}; "
            "expected a symmetric matrix"
        )
    values, U = torch.linalg.eigh((G + G.mT) / 2)  # ascending
    values, U = values.flip(-1), U.flip(-1)
    limit = slack * values.abs().amax(-1, keepdim=True)
    bad = (values < -limit) | ((values > limit) & (torch.arange(n, device=G.device) >= d))
    if bad.any():
        *at, k = bad.nonzero()[0].tolist()
        largest, found = values.abs().amax(-1)[tuple(at)], values[(*at, k)]
        raise ValueError(
            f"G{at or ''} has the eigenvalue {found:.3g} (largest size {largest:.3g}); vectors in "
            f"{d} dimensions have no negative eigenvalue and at most {d} positive ones: project G, "
            "or use a larger d"
        )
    v = U[..., :d] * values[..., None, :d].clamp(min=0).sqrt()
    return torch.nn.functional.pad(v, (0, d - v.shape[-1]))


def alignment(
    v: Shaped[Tensor, "..."], w: Shaped[Tensor, "..."], special: bool = False
) -> Float[Tensor, "*batch D D"]:
    r"""The orthogonal R that brings `v` closest to `w`: least $\sum_i |R\,v_i - w_i|^2$.

    (Procrustes.) With $\sum_i v_i w_i^T = U S V^T$ it is $V U^T$. If `v` and `w` have the same
    Gram matrix, then $R\,v_i = w_i$ to rounding, or to the root of it where the vectors are nearly
    dependent. Where they do not span the space R is one of many.

    Args:
        v, w: `(..., n, D)`, of the same dtype; batches are broadcast.
        special: whether only rotations are allowed, $\det R = 1$; a mirror image then stays apart.

    Raises:
        ValueError: v and w are not floats of one dtype and of shapes (..., n, D), or not finite.
    """
    alike = v.shape[-2:] == w.shape[-2:] and v.dtype == w.dtype and v.is_floating_point()
    if not alike or min(v.dim(), w.dim()) < 2:
        raise ValueError(
            f"v, w: got {v.dtype} of shape {tuple(v.shape)} and {w.dtype} of shape "
            f"{tuple(w.shape)}; expected floats (..., n, D) with the same n, D and dtype"
        )
    check_finite(v=v, w=w)
    U, _, Vh = torch.linalg.svd(v.mT @ w)
    R = Vh.mT @ U.mT
    if not special:
        return R
    flip = torch.ones_like(R[..., 0])
    flip[..., -1] = torch.linalg.det(R).sgn()  # gives up the direction that costs least
    return Vh.mT @ (flip[..., None] * U.mT)
