r"""The layers of `companion.emlp`: coefficients, their assembly, one hidden layer forward and back.

Three parts make a hidden layer. `Linear` is an equivariant affine map. `Bilinear` adds products of
its outputs to them. `Hidden` is both, assembled, followed by the gates; its `backward` is the
chain rule written out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from companion.groups import Group
from companion.representations import Rep, invariant_tensors

BILINEAR = 0.2  # first spread of the bilinear part, the linear one having 1: products have tails
WIDEST = 400  # matrices with more columns are stored flat: SOAP's work grows as their cube
Draw = Callable[..., torch.nn.Parameter]


class Bases:
    """The invariant tensors of a group up to a rank, in every dtype and on every device asked for.

    Kept in float64, outside the module, so that a network converted to float64 is equivariant to
    the rounding of float64.
    """

    def __init__(self, group: Group, top: int) -> None:
        self.d = group.d
        self._exact = [invariant_tensors(group, rank) for rank in range(top + 1)]
        self._cast: dict[tuple, Tensor] = {}

    def count(self, rank: int) -> int:
        return len(self._exact[rank])

    def get(self, rank: int, like: Tensor) -> Tensor:
        """The basis `(m, d^rank)`."""
        key = (rank, like.dtype, like.device)
        if key not in self._cast:
            self._cast[key] = self._exact[rank].to(like)
        return self._cast[key]


class Linear(torch.nn.Module):
    """Coefficients of an equivariant affine map, and their assembly to a matrix and a vector."""

    def __init__(
        self, rep_in: Rep, rep_out: Rep, bases: Bases, normal: Draw, zeros: Draw, spread: float
    ) -> None:
        super().__init__()
        self.rep_in, self.rep_out, self.bases = rep_in, rep_out, bases
        self.coefficients, self.biases = torch.nn.ParameterDict(), torch.nn.ParameterDict()
        for q, n in enumerate(rep_out.counts):
            K = sum(m * bases.count(q + p) for p, m in enumerate(rep_in.counts))
            if n * K:  # a row of K unit coefficients makes |t|^2 = K from inputs of spread 1
                shape = (n, K) if K <= WIDEST else (n * K,)
                self.coefficients[str(q)] = normal(spread * (bases.d**q / K) ** 0.5, *shape)
            if n * bases.count(q):
                self.biases[str(q)] = zeros(0.0, n, bases.count(q))

    def matrix(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix `(S, out, in)` and the vector `(S, out)`, in the kind of tensor of `like`."""
        S, d, rows, vector = len(like), self.bases.d, [], []
        for q, n in enumerate(self.rep_out.counts):
            rows.append(like.new_zeros(S, n * d**q, self.rep_in.size(d)))
            vector.append(like.new_zeros(S, n * d**q))
            if str(q) in self.coefficients:
                C, at, blocks = self.coefficients[str(q)].view(S, n, -1), 0, []
                for p, k in enumerate(self.rep_in.counts):
                    Q = self.bases.get(q + p, like)
                    c = C[:, :, at : at + k * len(Q)].unflatten(2, (k, len(Q)))
                    at += k * len(Q)
                    block = (c @ Q).unflatten(3, (d**q, d**p))  # (S, n, k, d^q, d^p)
                    blocks.append(block.transpose(2, 3).reshape(S, n * d**q, k * d**p))
                rows[q] = torch.cat(blocks, 2)
            if str(q) in self.biases:
                vector[q] = (self.biases[str(q)] @ self.bases.get(q, like)).flatten(1)
        return torch.cat(rows, 1), torch.cat(vector, 1)


class Bilinear(torch.nn.Module):
    r"""Coefficients of the bilinear map of a representation to itself, and where its parts are.

    `used[k]` channels of rank k serve as matrices X from rank p to rank q, k = q + p. For q >= 1,
    `mixing[p]` `(S, rows, n_p)` makes the channels of rank p that they multiply, for every q one
    after another. For q = 0 the products $X \cdot t$ come first and `dots` mixes them.
    """

    def __init__(self, rep: Rep, d: int, normal: Draw) -> None:
        super().__init__()
        self.d, self.counts = d, rep.counts
        counts, top = rep.counts, len(rep.counts)
        self.used = [0, *(min(n, d**k) for k, n in enumerate(counts) if k)]
        self.ranks = [k for k in range(1, top) if counts[k]]
        terms = [0.0] * top  # variance of an entry from unit coefficients and inputs, each rank
        for p, n in enumerate(counts):
            for q in range(p == 0, top - p):
                terms[q] += self.used[q + p] * n * d**p
        sd = [BILINEAR / max(total, 1.0) ** 0.5 for total in terms]
        self.parts: dict[int, list[tuple[int, int]]] = {}  # of each p: q and number of rows
        self.mixing = torch.nn.ParameterDict()
        for p, n in enumerate(counts):
            parts = [(q, self.used[q + p] * counts[q]) for q in range(1, top - p)]
            parts = [(q, m) for q, m in parts if m and n]
            if parts:
                self.parts[p] = parts
                spread = torch.tensor([sd[q] for q, m in parts for _ in range(m)]).double()
                self.mixing[str(p)] = normal(spread[:, None], len(spread), n)
        self.pairs = [self.used[k] * counts[k] for k in self.ranks]
        self.dots = (
            normal(sd[0], counts[0], sum(self.pairs)) if counts[0] * len(self.ranks) else None
        )


@dataclass
class Hidden:
    """One hidden layer, its matrices assembled. Channels are rows: tensors are `(S, n, d^p, R)`."""

    W: Tensor
    b: Tensor
    hidden: Rep
    plan: Bilinear

    def forward(self, x: Tensor) -> tuple[Tensor, tuple]:
        """The activations `(S, N, R)` of inputs `(S, in, R)`, and what `backward` needs."""
        u = torch.baddbmm(self.b, self.W, x)
        t = self._split(u, self.plan.counts)
        X = [w[:, None, :m] for w, m in zip(t, self.plan.used, strict=True)]
        Y, v, n = self._multiplied(t), list(t), self.hidden.count(0)
        if self.plan.dots is not None:
            D = [_product("A", X[k], t[k][:, None]).flatten(1, 2) for k in self.plan.ranks]
            v[0] = t[0] + (self.plan.dots @ torch.cat(D, 1))[:, :, None]
        for (p, q), y in Y.items():
            v[q] = v[q] + _product("A", self._matrices(X, q, p), y)
        s = torch.sigmoid(v[0])
        out = [(v[0] * s)[:, :n].flatten(1, 2)]
        if len(t) > 1:
            gates = s[:, n:].split(self.hidden.counts[1:], 1)
            out += [(g * w).flatten(1, 2) for g, w in zip(gates, v[1:], strict=True)]
        return torch.cat(out, 1), (t, X, Y, v, s)

    def backward(self, saved: tuple, back: Tensor) -> Tensor:
        """The derivative `(S, in, R)` in the inputs, from that in the activations."""
        t, X, Y, v, s = saved
        plan, n, counts = self.plan, self.hidden.count(0), self.hidden.counts
        outs = self._split(back, counts)
        slope = s * (1 - s)
        V = [outs[0] * (s + v[0] * slope)[:, :n]]
        if len(t) > 1:
            gates = s[:, n:].split(counts[1:], 1)
            V += [g * o for g, o in zip(gates, outs[1:], strict=True)]
            gated = [(o * w).sum(2, keepdim=True) for o, w in zip(outs[1:], v[1:], strict=True)]
            V[0] = torch.cat([V[0], slope[:, n:] * torch.cat(gated, 1)], 1)
        U, XB = list(V), [[] for _ in t]  # derivatives in the channels, and in those used as X
        if plan.dots is not None:
            parts = (plan.dots.mT @ V[0][:, :, 0]).split(plan.pairs, 1)
            for k, part in zip(plan.ranks, parts, strict=True):
                e = part.unflatten(1, (plan.counts[k], plan.used[k]))
                XB[k].append(_product("X", e, t[k][:, None])[:, 0])
                U[k] = U[k] + _product("Y", e, X[k])[:, 0]
        made: dict[int, list[Tensor]] = {}
        for (p, q), y in Y.items():
            XB[q + p].append(_product("X", V[q], y).flatten(2, 3))
            z = _product("Y", V[q], self._matrices(X, q, p))
            made.setdefault(p, []).append(z.flatten(1, 2))
        for p, parts in made.items():
            z = torch.cat(parts, 1).flatten(2)
            U[p] = U[p] + (plan.mixing[str(p)].mT @ z).unflatten(2, (plan.d**p, -1))
        for k, parts in enumerate(XB):
            if parts:
                m, whole = plan.used[k], torch.stack(parts).sum(0)
                U[k] = torch.cat([U[k][:, :m] + whole, U[k][:, m:]], 1)
        return self.W.mT @ torch.cat([w.flatten(1, 2) for w in U], 1)

    def _split(self, u: Tensor, counts: Sequence[int]) -> list[Tensor]:
        parts = u.split([n * self.plan.d**p for p, n in enumerate(counts)], 1)
        return [t.unflatten(1, (-1, self.plan.d**p)) for p, t in enumerate(parts)]

    def _matrices(self, X: list[Tensor], q: int, p: int) -> Tensor:
        """The channels used as matrices from rank p to rank q, `(S, s, d^q, d^p, R)`."""
        return X[q + p][:, 0].unflatten(2, (self.plan.d**q, self.plan.d**p))

    def _multiplied(self, t: list[Tensor]) -> dict[tuple[int, int], Tensor]:
        """For each p and q >= 1 the channels of rank p to be multiplied, `(S, s, o, d^p, R)`."""
        plan, found = self.plan, {}
        for p, parts in plan.parts.items():
            mixed = (plan.mixing[str(p)] @ t[p].flatten(2)).unflatten(2, (plan.d**p, -1))
            for (q, _), y in zip(parts, mixed.split([m for _, m in parts], 1), strict=True):
                found[p, q] = y.unflatten(1, (plan.used[q + p], plan.counts[q]))
        return found


def _product(want: str, left: Tensor, right: Tensor) -> Tensor:
    """`companion._trilinear.contract`, imported at its first use: numba takes a second."""
    from companion._trilinear import contract

    return contract(want, left, right)
