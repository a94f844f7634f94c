r"""Equivariant multilayer perceptrons, after Finzi, Welling and Wilson (2021).

Their layers take sums of tensors to sums of tensors, and three things happen in each:

- a linear map from the null space of the equivariance constraint (`companion.representations`);
- a bilinear map, added to what came out of the first: a channel of rank q + p, seen as a matrix
  from $V^{\otimes p}$ to $V^{\otimes q}$, times a channel of rank p. Linear maps and gates alone
  cannot make a scalar from a vector of O(3); this makes $u \cdot v$;
- a gate: a scalar channel u becomes $u\,s(u)$ and a tensor t becomes $s(g)\,t$, with the logistic
  function s and a scalar g of the tensor's own, which the two maps before it have made.

A linear map is stored as its coefficients on the orthonormal basis of its blocks
$V^{\otimes p} \to V^{\otimes q}$; all that end in rank q form one matrix, a row for each channel.
`frozen` assembles the matrices once for many evaluations; gradients with respect to the inputs
are an explicit pass back through the layers, so that training a Hamiltonian differentiates once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._equivariant import Bases, Bilinear, Hidden, Linear
from companion.groups import Group
from companion.representations import SCALAR, Rep, T, equivariant_basis

__all__ = ["EMLP", "Frozen", "uniform_rep"]

Rows = Shaped[Tensor, "..."]  # (S, R, in): `Frozen._checked` says what is wrong
GAIN = 1.7  # undoes what gates take from the spread: E[(u s(u))^2] is about 1/3 at spread 1


def uniform_rep(channels: int, d: int) -> Rep:
    r"""Tensors of every rank that fits, each rank with about the same share of the channels.

    The rule of Finzi (2021): with the highest rank r for which $(r + 1)\,d^r$ channels are left,
    take $d^{r - p}$ tensors of each rank p; repeat with what is left. 128 channels over d = 3 make
    38 scalars, 12 vectors, 3 tensors of rank 2 and one of rank 3.

    Raises:
        ValueError: `channels` below 1, or d below 2, where all ranks have the same size.
    """
    if channels < 1 or d < 2:
        raise ValueError(f"channels = {channels}, d = {d}: expected channels >= 1 and d >= 2")
    rep = Rep(())
    while channels > 0:
        r = 0
        while (r + 2) * d ** (r + 1) <= channels:
            r += 1
        rep += Rep(tuple(d ** (r - p) for p in range(r + 1)))
        channels -= (r + 1) * d**r
    return rep


class EMLP(torch.nn.Module):
    r"""S equivariant multilayer perceptrons: $f(\rho_{in}(g)\,x) = \rho_{out}(g)\,f(x)$.

    Every parameter has a leading axis of S = `seeds` members that never mix. The bilinear maps use
    the first $\min(n, d^k)$ of the n channels of each rank k as matrices.

    Args:
        rep_in, rep_out: how inputs and outputs turn.
        group: a group of orthogonal matrices.
        channels: the hidden layers' representation, or their width, then `uniform_rep` of it.
        layers: number of hidden layers.
        seeds: the members: S of them with seeds 0..S-1, or the seeds themselves. A member's first
            weights depend on its own seed alone, and are the same numbers in every dtype.
        output_scale: spread of the outputs at first.
        dtype, device: of the parameters.

    Raises:
        ValueError: no layer, no member, an empty representation, or a group that is not orthogonal.
    """

    shift: Tensor
    scaling: Tensor

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        group: Group,
        channels: int | Rep = 128,
        layers: int = 3,
        *,
        seeds: int | Sequence[int] = 1,
        output_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        hidden = channels if isinstance(channels, Rep) else uniform_rep(channels, group.d)
        if not seeds or layers < 1 or not all(rep.counts for rep in (rep_in, rep_out, hidden)):
            raise ValueError(
                f"seeds = {seeds}, layers = {layers}, rep_in = {rep_in}, rep_out = {rep_out}, "
                f"channels = {channels}: expected at least one member, one layer, and "
                "representations that are not empty"
            )
        self.rep_in, self.rep_out, self.hidden, self.group = rep_in, rep_out, hidden, group
        self.seeds = seeds
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]

        def normal(sd: float | Tensor, *shape: int) -> torch.nn.Parameter:
            draws = [torch.randn(shape, generator=g, dtype=torch.float64) for g in sources]
            return torch.nn.Parameter((sd * torch.stack(draws)).to(dtype=dtype, device=device))

        def zeros(sd: float | Tensor, *shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.zeros(len(seeds), *shape, dtype=dtype, device=device))

        ranks = [len(rep.counts) - 1 for rep in (rep_in, rep_out, hidden)]
        bases = Bases(group, max(ranks) + ranks[2])
        gates = sum(hidden.counts[1:])
        self.gated = hidden + gates * SCALAR  # the scalars, the gates, then the tensors
        self.linear, self.mixes = torch.nn.ModuleList(), torch.nn.ModuleList()
        for k in range(layers):
            here, spread = (hidden, GAIN) if k else (rep_in, 1.0)
            self.linear.append(Linear(here, self.gated, bases, normal, zeros, spread))
            self.mixes.append(Bilinear(self.gated, group.d, normal))
        self.output = Linear(hidden, rep_out, bases, normal, zeros, GAIN * output_scale)
        n = rep_in.size(group.d)
        self.register_buffer("shift", torch.zeros(len(seeds), n, dtype=dtype))
        self.register_buffer("scaling", torch.eye(n, dtype=dtype).repeat(len(seeds), 1, 1))
        self.to(device)

    def frozen(self) -> "Frozen":
        """The network with its matrices assembled, for many evaluations: all stages of a rollout,
        say. It keeps the autograd graph back to the parameters; after a step of the optimiser make
        a new one."""
        layers = []
        blocks = zip(cast(list[Linear], self.linear), cast(list[Bilinear], self.mixes), strict=True)
        for k, (linear, mix) in enumerate(blocks):
            W, b = linear.matrix(self.shift)
            if k == 0:  # standardised inputs are A (x - c)
                W = W @ self.scaling
                b = b - (W @ self.shift[..., None])[..., 0]
            layers.append(Hidden(W, b[..., None], self.hidden, mix))
        W, b = self.output.matrix(self.shift)
        return Frozen(layers, W, b[..., None])

    def value(self, x: Rows) -> Float[Tensor, "S R out"]:
        """The outputs at rows `(S, R, in)`. ValueError for another shape or dtype."""
        return self.frozen().value(x)

    def gradient(self, x: Rows) -> Float[Tensor, "S R in"]:
        """The gradient of a network with one output. ValueError as `value`, or for more outputs."""
        return self.frozen().gradient(x)

    @torch.no_grad()
    def standardise(self, x: Rows) -> None:
        r"""Centres and scales every member's inputs over these rows, as far as symmetry allows.

        The mean is projected on the vectors that the group leaves as they are. A channel of
        `rep_in` is multiplied by $\Sigma^{-1/2}$, with $\Sigma$ the projection of its second
        moment on the matrices that commute with the group, which is its mean over the group; so
        $\Sigma^{-1/2}$ commutes as well. For O(2) about the vertical this divides the vertical
        component by one spread and the two others by another. A direction that hardly varies
        (spread below 1e-6 of its size, or zero) keeps its scale.
        """
        x, group = x.to(torch.float64), self.group
        B = equivariant_basis(SCALAR, self.rep_in, group)[..., 0].to(x.device)
        shift = x.mean(1) @ B.mT @ B
        moved = x - shift[:, None]
        at = 0
        for p, n in enumerate(self.rep_in.counts):
            size = group.d**p
            Q = equivariant_basis(T(p), T(p), group).to(x.device)
            for _ in range(n):
                here = slice(at, at + size)
                for s, (t, raw) in enumerate(zip(moved[..., here], x[..., here], strict=True)):
                    weights = (Q * (t.mT @ t / len(t))).sum((1, 2))
                    moment = (weights[:, None, None] * Q).sum(0)
                    values, axes = torch.linalg.eigh(moment)
                    still = values <= 1e-12 * raw.square().sum(1).mean()
                    factor = torch.where(still, 1.0, values.clamp(min=0).rsqrt())
                    self.scaling[s, here, here] = (axes * factor @ axes.mT).to(self.scaling)
                at += size
        self.shift.copy_(shift)

    def keep(self, s: int) -> None:
        """Drops all members but `s`."""
        for tensor in (*self.parameters(), self.shift, self.scaling):
            tensor.data = tensor.data[s : s + 1].clone()
        self.seeds = self.seeds[s : s + 1]


@dataclass
class Frozen:
    """An `EMLP` whose matrices are assembled: see `EMLP.frozen`."""

    layers: list[Hidden]
    W: Tensor
    b: Tensor

    def value(self, x: Rows) -> Float[Tensor, "S R out"]:
        """The outputs at rows `(S, R, in)`. ValueError for another shape or dtype."""
        h = self._checked(x).mT
        for layer in self.layers:
            h, _ = layer.forward(h)
        return torch.baddbmm(self.b, self.W, h).mT

    def gradient(self, x: Rows) -> Float[Tensor, "S R in"]:
        """The gradient of a network with one output. ValueError as `value`, or for more outputs."""
        if self.W.shape[1] != 1:
            raise ValueError(f"gradient needs one output, this network has {self.W.shape[1]}")
        h, passed = self._checked(x).mT, []
        for layer in self.layers:
            h, saved = layer.forward(h)
            passed.append(saved)
        back = self.W.mT.expand(-1, -1, h.shape[2])
        for layer, saved in zip(reversed(self.layers), reversed(passed), strict=True):
            back = layer.backward(saved, back)
        return back.mT

    def _checked(self, x: Tensor) -> Tensor:
        W = self.layers[0].W
        if x.ndim != 3 or x.shape[0] != W.shape[0] or x.shape[2] != W.shape[2]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (S, R, in) with S = {W.shape[0]} members "
                f"and in = {W.shape[2]}"
            )
        if x.dtype != W.dtype or x.device != W.device:
            raise ValueError(
                f"x is {x.dtype} on {x.device}, the weights {W.dtype} on {W.device}; convert "
                "with .to(...)"
            )
        return x
