r"""Representations of a matrix group, and the linear maps that commute with it.

A group of orthogonal matrices g acts on vectors of $V = \mathbb R^d$, hence on tensors
$V^{\otimes p}$ by $\rho(g) = g \otimes \dots \otimes g$, and on lists of them. A matrix W between
two such representations is equivariant if

$$ \rho_{out}(h)\, W = W\, \rho_{in}(h), \qquad
   d\rho_{out}(A)\, W = W\, d\rho_{in}(A) $$

for the discrete generators h and for a basis A of the Lie algebra (Finzi 2021, theorem 1). These
are linear equations for W: `constraint` writes them down, and `equivariant_basis` solves them.

Between sums of tensors W falls into blocks $V^{\otimes p} \to V^{\otimes q}$. For orthogonal
matrices such a block is a tensor of $V^{\otimes (q + p)}$ that the group leaves as it is, so there
is one null space to find for each p + q, and it is found once.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from companion.groups import Group

__all__ = [
    "SCALAR",
    "Rep",
    "T",
    "V",
    "averaging_projector",
    "constraint",
    "dimension",
    "dimension_by_characters",
    "equivariant_basis",
    "invariant_tensors",
]

ZERO, GAP = 1e-9, 1e-4  # singular values, relative to the largest: zero below, nonzero above


@dataclass(frozen=True)
class Rep:
    """A direct sum: `counts[p]` copies of the tensors $V^{\\otimes p}$, for p = 0, 1, ...

    Vectors of the sum list the copies one after another, scalars first; a copy of a tensor is its
    entries in the order of rows. `3 * SCALAR + 4 * V + T(2)` is `Rep((3, 4, 1))`.

    Raises:
        ValueError: a count that is not a whole number of at least 0.
    """

    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in self.counts):
            raise ValueError(f"counts: got {self.counts}, expected whole numbers >= 0, one a rank")
        counts = self.counts
        while counts and counts[-1] == 0:
            counts = counts[:-1]
        object.__setattr__(self, "counts", counts)

    def __add__(self, other: "Rep") -> "Rep":
        n = max(len(self.counts), len(other.counts))
        return Rep(tuple(self.count(p) + other.count(p) for p in range(n)))

    def __mul__(self, copies: int) -> "Rep":
        return Rep(tuple(copies * n for n in self.counts))

    __rmul__ = __mul__

    def count(self, p: int) -> int:
        """Copies of the tensors of rank p."""
        return self.counts[p] if p < len(self.counts) else 0

    def size(self, d: int) -> int:
        """Dimension of the sum over vectors of d entries."""
        return sum(n * d**p for p, n in enumerate(self.counts))

    def matrix(self, g: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch n n"]:
        r"""$\rho(g)$, block by block."""
        eye = torch.ones(*g.shape[:-2], 1, 1, dtype=g.dtype, device=g.device)
        powers = [eye]
        while len(powers) < len(self.counts):
            powers.append(_kron(powers[-1], g))
        return _blocks([powers[p] for p, n in enumerate(self.counts) for _ in range(n)], g)

    def algebra(self, A: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch n n"]:
        r"""$d\rho(A)$: on $V^{\otimes p}$ the sum of the p terms $1 \otimes A \otimes 1$."""
        d = A.shape[-1]
        powers = [torch.zeros(*A.shape[:-2], 1, 1, dtype=A.dtype, device=A.device)]
        for p in range(1, len(self.counts)):
            one, rest = torch.eye(d).to(A), torch.eye(d ** (p - 1)).to(A)
            powers.append(_kron(powers[-1], one) + _kron(rest, A))
        return _blocks([powers[p] for p, n in enumerate(self.counts) for _ in range(n)], A)


def T(p: int) -> Rep:
    """The tensors $V^{\\otimes p}$."""
    return Rep((0,) * p + (1,))


SCALAR, V = T(0), T(1)


def constraint(rep_in: Rep, rep_out: Rep, group: Group) -> Float[Tensor, "rows unknowns"]:
    r"""The matrix C whose null space holds the equivariant W, as vectors of their entries by rows.

    A block of $n_{out} n_{in}$ rows for each generator:
    $d\rho_{out}(A) \otimes 1 - 1 \otimes d\rho_{in}(A)^T$ of the algebra, and
    $\rho_{out}(h) \otimes 1 - 1 \otimes \rho_{in}(h)^T$ of the discrete ones. In float64.
    """
    generators, discrete = _of_group(group)
    left = torch.cat([rep_out.algebra(generators), rep_out.matrix(discrete)])
    right = torch.cat([rep_in.algebra(generators), rep_in.matrix(discrete)])
    n, m = left.shape[-1], right.shape[-1]
    one_out, one_in = (torch.eye(k, dtype=torch.float64) for k in (n, m))
    return (_kron(left, one_in) - _kron(one_out, right.mT)).reshape(-1, n * m)


def equivariant_basis(rep_in: Rep, rep_out: Rep, group: Group) -> Float[Tensor, "m n_out n_in"]:
    """An orthonormal basis of the equivariant matrices, `m` of them, in float64.

    Blocks are those of `invariant_tensors`, so the basis is the same on every machine. With
    `rep_in=SCALAR` it is the invariant vectors: what a bias may be.

    Raises:
        ValueError: as `invariant_tensors`.
    """
    n, m, d = rep_out.size(group.d), rep_in.size(group.d), group.d
    found, row = [torch.zeros(0, n, m, dtype=torch.float64)], 0
    for q, outs in enumerate(rep_out.counts):
        for _ in range(outs):
            column = 0
            for p, ins in enumerate(rep_in.counts):
                block = invariant_tensors(group, q + p).unflatten(1, (d**q, d**p))
                for _ in range(ins):
                    W = torch.zeros(len(block), n, m, dtype=torch.float64)
                    W[:, row : row + d**q, column : column + d**p] = block
                    found.append(W)
                    column += d**p
            row += d**q
    return torch.cat(found)


def invariant_tensors(group: Group, rank: int) -> Float[Tensor, "m size"]:
    r"""An orthonormal basis of the tensors of $V^{\otimes rank}$ that the group leaves as they are.

    The null space comes from a singular value decomposition, and is the same whatever basis the
    routine returns for it. Of the many orthonormal bases this is the one that Gram and Schmidt
    make of the projections of the unit tensors, in their order: it depends on the space alone, so
    coefficients stored on one machine mean the same on another.

    Raises:
        ValueError: the group is not orthogonal, or it acts by other than matrices; or its
            generators are so inexact that no gap separates the zero singular values.
    """
    generators, discrete = _of_group(group)
    return _solved(_frozen(generators), _frozen(discrete), group.d, rank)


def dimension(rep_in: Rep, rep_out: Rep, group: Group) -> int:
    """Number of independent equivariant matrices, by solving."""
    return sum(
        n * m * len(invariant_tensors(group, q + p))
        for q, n in enumerate(rep_out.counts)
        for p, m in enumerate(rep_in.counts)
    )


def dimension_by_characters(rep_in: Rep, rep_out: Rep, group: Group) -> float:
    r"""The same number without solving: the mean over the group of
    $\chi_{out}(g)\,\chi_{in}(g)$, with $\chi(g) = \mathrm{tr}\,\rho(g)$.

    Raises:
        ValueError: a group without `design`.
    """
    g = group.design(len(rep_in.counts) + len(rep_out.counts))
    trace = g.diagonal(dim1=-2, dim2=-1).sum(-1)
    chi_in, chi_out = (
        sum((n * trace**p for p, n in enumerate(rep.counts)), torch.zeros_like(trace))
        for rep in (rep_in, rep_out)
    )
    return (chi_in * chi_out).mean().item()


def averaging_projector(rep_in: Rep, rep_out: Rep, group: Group) -> Float[Tensor, "N N"]:
    r"""The mean over the group of $\rho_{out}(g) \otimes \rho_{in}(g)$: the orthogonal projector
    on the equivariant matrices, as vectors of their entries by rows.

    Raises:
        ValueError: a group without `design`.
    """
    g = group.design(len(rep_in.counts) + len(rep_out.counts))
    return torch.stack([_kron(rep_out.matrix(x), rep_in.matrix(x)) for x in g]).mean(0)


@cache
def _solved(generators: tuple, discrete: tuple, d: int, rank: int) -> Tensor:
    rep, n = T(rank), d**rank
    A = torch.tensor(generators, dtype=torch.float64).reshape(-1, d, d)
    h = torch.tensor(discrete, dtype=torch.float64).reshape(-1, d, d)
    one = torch.eye(n, dtype=torch.float64)
    if rank == 0 or len(A) + len(h) == 0:
        return one
    C = torch.cat([rep.algebra(A).reshape(-1, n), (rep.matrix(h) - one).reshape(-1, n)])
    _, s, rows = torch.linalg.svd(C, full_matrices=False)
    largest = s[0].clamp(min=torch.finfo(s.dtype).tiny)
    unclear = s[(s > ZERO * largest) & (s < GAP * largest)] / largest
    if len(unclear):
        raise ValueError(
            f"the constraint on tensors of rank {rank} has a singular value {unclear[0]:.1e} of "
            f"the largest; expected below {ZERO:.0e} or above {GAP:.0e}; are the generators "
            "exact to rounding?"
        )
    return _canonical(rows[s <= ZERO * largest])


def _canonical(rows: Tensor) -> Tensor:
    """The orthonormal basis of a row space that Gram and Schmidt make of projected unit vectors."""
    found = rows.new_zeros(0, rows.shape[1])
    for j in range(rows.shape[1]):
        if len(found) == len(rows):
            break
        r = rows[:, j] @ rows
        for _ in range(2):  # once more, for what rounding has left
            r = r - (found @ r) @ found
        size = r.norm()
        if size > 1e-6:
            found = torch.cat([found, r[None] / size])
    return found.where(found.abs() > 1e-13, 0.0)


def _of_group(group: Group) -> tuple[Tensor, Tensor]:
    A, h = group.generators(), group.discrete()
    one = torch.eye(group.d, dtype=torch.float64)
    good = A.ndim == 3 and torch.allclose(A, -A.mT) and torch.allclose(h @ h.mT, one.expand_as(h))
    if not good:
        raise ValueError(
            f"group: {group!r} is not a group of orthogonal matrices, for which alone a vector and "
            "its dual turn alike; see companion.groups and companion.finite"
        )
    return A, h


def _frozen(x: Tensor) -> tuple:
    return tuple(x.flatten().tolist())


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """The Kronecker product of the last two axes."""
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    return product.flatten(-2).flatten(-3, -2)


def _blocks(blocks: list[Tensor], like: Tensor) -> Tensor:
    """The block-diagonal matrix."""
    sizes = [b.shape[-1] for b in blocks]
    whole = torch.zeros(
        *like.shape[:-2], sum(sizes), sum(sizes), dtype=like.dtype, device=like.device
    )
    at = 0
    for b, n in zip(blocks, sizes, strict=True):
        whole[..., at : at + n, at : at + n] = b
        at += n
    return whole
