r"""Symmetry-enforcing layers: the first layer $S$ of figure 1 of Müller (2023).

A layer turns coordinates and velocities into features $\phi_m(q, \dot q)$ that do not change under
a symmetry, so that whatever is computed from the features does not change either (eq. 11). The
layers have no weights. Each knows its own first and second derivatives in closed form, because the
acceleration of a Lagrangian network needs them (`companion.lagrangian`).

A state of $n$ particles in $D$ dimensions is a vector $q = (x^{(1)}, \dots, x^{(n)})$ of
$d = nD$ numbers, particle after particle.
"""

from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement, permutations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Coordinates = Shaped[Tensor, "..."]  # (..., d): `state` checks, and says what is wrong
Features = Float[Tensor, "*batch M"]
Jacobian = Float[Tensor, "*batch M two_d"]
Curvature = Float[Tensor, "*batch two_d two_d"]


class Layer(torch.nn.Module):
    r"""Features $\phi(z)$ of $z = (q, \dot q)$, with their first and second derivatives.

    Attributes: `d`, the number of coordinates; `M`, the number of features; `features`, their
    names in LaTeX.
    """

    def __init__(self, d: int, features: tuple[str, ...]) -> None:
        super().__init__()
        self.d = d
        self.features = features

    @property
    def M(self) -> int:
        """Number of features."""
        return len(self.features)

    def state(self, q: Coordinates, qdot: Coordinates) -> Float[Tensor, "*batch two_d"]:
        """The checked state $z = (q, \\dot q)$, shape `(..., 2 d)`.

        Raises `ValueError` if `q` and `qdot` differ in shape, dtype or device, or are not `(...,
        d)`.
        """
        if q.shape != qdot.shape:
            raise ValueError(
                f"q and qdot must have the same shape, got {tuple(q.shape)} and "
                f"{tuple(qdot.shape)}; give one velocity for each coordinate"
            )
        if q.shape[-1] != self.d:
            raise ValueError(
                f"the last axis of q must have d = {self.d} coordinates for {type(self).__name__}, "
                f"got shape {tuple(q.shape)}; flatten n particles in D dimensions to n*D numbers"
            )
        if q.dtype != qdot.dtype or not q.is_floating_point():
            raise ValueError(
                f"q and qdot must share one floating dtype, got {q.dtype} and {qdot.dtype}; "
                "convert both with .to(torch.float64) or .to(torch.float32)"
            )
        if q.device != qdot.device:
            raise ValueError(
                f"q and qdot must be on one device, got {q.device} and {qdot.device}; "
                "move both with .to(device)"
            )
        return torch.cat([q, qdot], dim=-1)

    def forward(self, q: Coordinates, qdot: Coordinates) -> Features:
        r"""The features $\phi(q, \dot q)$, shape `(..., M)`. Raises as `state` does."""
        return self.value(self.state(q, qdot))

    def jacobian(self, q: Coordinates, qdot: Coordinates) -> Jacobian:
        r"""First derivatives $\partial\phi_m/\partial z_i$, shape `(..., M, 2 d)`."""
        return self.first(self.state(q, qdot))

    def curvature(self, q: Coordinates, qdot: Coordinates, g: Features) -> Curvature:
        r"""Second derivatives weighted by `g`: $\sum_m g_m\,\partial^2\phi_m/\partial z_i\partial
        z_j$.
        """
        return self.second(self.state(q, qdot), g)

    # What a layer must define, for a state z = (q, qdot) that is already checked.
    def value(self, z: Tensor) -> Tensor:
        """Features `(..., M)` of `z` `(..., 2 d)`."""
        raise TypeError(f"{type(self).__name__} must define value(z)")

    def first(self, z: Tensor) -> Tensor:
        """Jacobian `(..., M, 2 d)`."""
        raise TypeError(f"{type(self).__name__} must define first(z)")

    def second(self, z: Tensor, g: Tensor) -> Tensor:
        """Curvature `(..., 2 d, 2 d)`."""
        raise TypeError(f"{type(self).__name__} must define second(z, g)")


class _Linear(Layer):
    """Features that are fixed linear combinations of the state: `phi = B z`."""

    B: Tensor

    def __init__(self, B: Tensor, features: tuple[str, ...]) -> None:
        super().__init__(B.shape[1] // 2, features)
        self.register_buffer("B", B, persistent=False)

    def value(self, z: Tensor) -> Tensor:
        return z @ self.B.to(z.dtype).T

    def first(self, z: Tensor) -> Tensor:
        return self.B.to(z.dtype).expand(*z.shape[:-1], *self.B.shape)

    def second(self, z: Tensor, g: Tensor) -> Tensor:
        return z.new_zeros(*z.shape, z.shape[-1])


class Unconstrained(_Linear):
    """No symmetry: the features are the state itself (Table 1, top left); M = 2 n D.

    Coordinates listed in `cyclic`, counted from 0, are left out, their velocities stay: a
    Lagrangian that does not contain a coordinate conserves its momentum. Raises `ValueError` for a
    coordinate that does not exist.
    """

    def __init__(self, n: int = 1, D: int = 3, cyclic: Sequence[int] = ()) -> None:
        if not all(0 <= i < n * D for i in cyclic):
            raise ValueError(
                f"cyclic = {tuple(cyclic)}: expected coordinates from 0 to {n * D - 1}, counted "
                "particle after particle"
            )
        kept = [i for i in range(2 * n * D) if i not in cyclic]
        names = _component_names(_vector_names(n), D)
        super().__init__(
            torch.eye(2 * n * D, dtype=torch.float64)[kept], tuple(names[i] for i in kept)
        )


class Translations(_Linear):
    r"""Invariance under translations of all particles: $x^{(1)} - x^{(k)}$ and all velocities.

    Table 1, bottom left; M = (2 n - 1) D. Needs `n >= 2`, else `ValueError`.
    """

    def __init__(self, n: int = 2, D: int = 3) -> None:
        _at_least_two(n)
        names = _component_names(_difference_names(n), D)
        super().__init__(torch.kron(_differences(n), torch.eye(D, dtype=torch.float64)), names)


class _Scalars(Layer):
    r"""Scalar invariants of vectors $a^{(\alpha)} = \sum_\beta B_{\alpha\beta} z^{(\beta)}$
    (appendix A).

    Dot products $a^{(\alpha)}\cdot a^{(\beta)}$ (eq. 40) and, where asked for, full contractions
    with the Levi-Civita symbol (eq. 41). A dot product is a form $\tfrac12 z^T Q_m z$: its
    gradient is $Q_m z$ and its Hessian the constant $Q_m$. A contraction is linear in each of its
    vectors: its derivatives leave one or two places of the symbol open.
    """

    B: Tensor
    Q: Tensor
    epsilon: Tensor

    def __init__(self, B: Tensor, D: int, levi_civita: bool, vectors: tuple[str, ...]) -> None:
        pairs = list(combinations_with_replacement(range(len(B)), 2))
        self_names = [rf"{vectors[a]}\cdot {vectors[b]}" for a, b in pairs]
        chosen = list(combinations(range(len(B)), D)) if levi_civita else []
        names = self_names + [" : ".join(vectors[a] for a in places) for places in chosen]
        super().__init__(B.shape[1] * D // 2, tuple(names))
        B = torch.kron(B, torch.eye(D, dtype=B.dtype)).unflatten(0, (-1, D))  # (k, D, 2 d)
        Q = torch.stack([B[a].T @ B[b] + B[b].T @ B[a] for a, b in pairs])  # (pairs, 2 d, 2 d)
        self.chosen = chosen
        self.register_buffer("B", B, persistent=False)
        self.register_buffer("Q", Q, persistent=False)
        self.register_buffer("epsilon", levi_civita_symbol(D), persistent=False)

    def value(self, z: Tensor) -> Tensor:
        dots = 0.5 * (self._slopes(z) * z[..., None, :]).sum(-1)
        if not self.chosen:
            return dots
        triples = [self._open(z, places, ()) for places in self.chosen]
        return torch.cat([dots, torch.stack(triples, dim=-1)], dim=-1)

    def first(self, z: Tensor) -> Tensor:
        if not self.chosen:
            return self._slopes(z)
        B, slots = self.B.to(z.dtype), range(len(self.epsilon))
        triples = [
            torch.stack([self._open(z, places, (s,)) @ B[places[s]] for s in slots]).sum(0)
            for places in self.chosen
        ]
        return torch.cat([self._slopes(z), torch.stack(triples, dim=-2)], dim=-2)

    def second(self, z: Tensor, g: Tensor) -> Tensor:
        Q = self.Q.to(z.dtype)
        C = (g[..., : len(Q)] @ Q.flatten(1)).unflatten(-1, Q.shape[1:])
        for m, places in enumerate(self.chosen, start=len(Q)):
            for s, t in combinations(range(len(self.epsilon)), 2):
                Bs, Bt = self.B[places[s]].to(z.dtype), self.B[places[t]].to(z.dtype)
                block = Bs.T @ (g[..., m, None, None] * self._open(z, places, (s, t))) @ Bt
                C = C + block + block.mT
        return C

    def _slopes(self, z: Tensor) -> Tensor:
        """The gradients `Q z` of all dot products, shape `(..., pairs, 2 d)`."""
        Q = self.Q.to(z.dtype)
        return (z @ Q.flatten(0, 1).T).unflatten(-1, Q.shape[:2])

    def _open(self, z: Tensor, places: tuple[int, ...], free: tuple[int, ...]) -> Tensor:
        """The Levi-Civita symbol contracted with the vectors at `places`, the slots `free` open."""
        a = torch.einsum("kix,...x->...ki", self.B.to(z.dtype), z)
        letters = "abcdefgh"[: len(self.epsilon)]
        closed = [slot for slot in range(len(letters)) if slot not in free]
        spec = ",".join([letters, *(f"...{letters[slot]}" for slot in closed)])
        left = "".join(letters[slot] for slot in free)
        vectors = [a[..., places[slot], :] for slot in closed]
        return torch.einsum(f"{spec}->...{left}", self.epsilon.to(z.dtype), *vectors)


class Rotations(_Scalars):
    r"""Invariance under SO(D) (or O(D) with `levi_civita=False`) about the origin (Table 1, top
    right).

    Dot products of the $2n$ vectors $x^{(k)}, \dot x^{(k)}$ and, where $2n \ge D$, their
    Levi-Civita contractions: $M = n(2n+1) + \binom{2n}{D}$.
    """

    def __init__(self, n: int = 1, D: int = 3, levi_civita: bool = True) -> None:
        B = torch.eye(2 * n, dtype=torch.float64)
        super().__init__(B, D, levi_civita, _vector_names(n))


class RotationsTranslations(_Scalars):
    r"""Invariance under rotations and translations, $R \circ T$ (Table 1, bottom right).

    Scalars of the differences $x^{(1)} - x^{(k)}$ and the velocities. Needs `n >= 2`, else
    `ValueError`.
    """

    def __init__(self, n: int = 2, D: int = 3, levi_civita: bool = True) -> None:
        _at_least_two(n)
        super().__init__(_differences(n), D, levi_civita, _difference_names(n))


class SchwarzschildRotations(Layer):
    r"""The features $\dot\tau, x^2, \dot x^2, x\cdot\dot x$ of section 2.3.2; coordinates $(x_1,
    x_2, x_3, \tau)$.

    The coordinate $\tau$ itself is dropped: the true Lagrangian does not depend on it.
    """

    def __init__(self) -> None:
        super().__init__(4, (r"\dot\tau", r"x\cdot x", r"x\cdot\dot x", r"\dot x\cdot\dot x"))
        self.scalars = Rotations(1, 3, levi_civita=False)
        self.register_buffer("place", torch.tensor([0, 1, 2, 4, 5, 6]), persistent=False)

    place: Tensor

    def value(self, z: Tensor) -> Tensor:
        return torch.cat([z[..., 7:], self.scalars.value(z[..., self.place])], dim=-1)

    def first(self, z: Tensor) -> Tensor:
        J = z.new_zeros(*z.shape[:-1], 4, 8)
        J[..., 0, 7] = 1.0
        J[..., 1:, self.place] = self.scalars.first(z[..., self.place])
        return J

    def second(self, z: Tensor, g: Tensor) -> Tensor:
        C = z.new_zeros(*z.shape, 8)
        inner = self.scalars.second(z[..., self.place], g[..., 1:])
        C[..., self.place[:, None], self.place] = inner
        return C


def _at_least_two(n: int) -> None:
    if n < 2:
        raise ValueError(
            f"n must be at least 2 for invariance under translations, got {n}; a single "
            "particle has no difference of positions: use Rotations or Unconstrained"
        )


def _vector_names(n: int) -> tuple[str, ...]:
    label = [""] if n == 1 else [f"^{{({k})}}" for k in range(1, n + 1)]
    x = "q" if n == 1 else "x"
    return tuple(f"{x}{k}" for k in label) + tuple(rf"\dot {x}{k}" for k in label)


def _difference_names(n: int) -> tuple[str, ...]:
    differences = tuple(f"(x^{{(1)}}-x^{{({k})}})" for k in range(2, n + 1))
    return differences + _vector_names(n)[n:]


def _component_names(vectors: tuple[str, ...], D: int) -> tuple[str, ...]:
    return tuple(f"{{{vector}}}_{i}" for vector in vectors for i in range(1, D + 1))


def _differences(n: int) -> Tensor:
    """The matrix `(2 n - 1, 2 n)` that maps positions to differences and keeps the velocities."""
    B = torch.zeros(2 * n - 1, 2 * n, dtype=torch.float64)
    B[: n - 1, 0] = 1.0
    B[: n - 1, 1:n] = -torch.eye(n - 1, dtype=torch.float64)
    B[n - 1 :, n:] = torch.eye(n, dtype=torch.float64)
    return B


def levi_civita_symbol(D: int) -> Tensor:
    """The Levi-Civita symbol of eq. 39 in float64, shape `(D,) * D`."""
    epsilon = torch.zeros((D,) * D, dtype=torch.float64)
    for order in permutations(range(D)):
        swaps = sum(order[i] > order[j] for i, j in combinations(range(D), 2))
        epsilon[order] = -1.0 if swaps % 2 else 1.0
    return epsilon
