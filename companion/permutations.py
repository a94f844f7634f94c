r"""Forces that do not know the atoms' numbers: a vector network on ordered pairs of atoms.

The atoms of one kind have no names. A force model F is equivariant under permutations if relabelled
atoms get relabelled forces, $F(P r) = P F(r)$. Ma & Chan (2022, section 3.5) get there with sums
over neighbours at the input (`companion.descriptors`). `EdgeNetwork` gets there in every layer: it
keeps vectors $x_{ij}$ on the ordered pairs, or directed edges, $i \ne j$, and its linear maps are
all those that commute with relabelling. For N >= 4 atoms there are seven,

$$ x_{ij} \mapsto x_{ij},\quad x_{ji},\quad \sum_k x_{ik},\quad \sum_k x_{ki},\quad
   \sum_k x_{jk},\quad \sum_k x_{kj},\quad \sum_{kl} x_{kl}, $$

one for each way in which two ordered pairs can share atoms: the off-diagonal part of Maron et al.
(2019). Each of them has a matrix of weights that mixes the channels, and acts on the vectors and
on their unit vectors as in eq. 5; the activation is eq. 13. The forces are $F_i = \sum_j f_{ij}$
with $f_{ij} = -f_{ji}$, so they add up to zero for any weights.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion._columns import activated
from companion.force_models import ForceModel, Positions
from companion.unitary import EPSILON, Softsign, require_epsilon

Forces = Float[Tensor, "S B N 3"]
CORE = 0.1  # softens the inverse powers of the distance, far below where atoms ever meet


class EdgeNetwork(ForceModel):
    r"""An ensemble of S networks on directed edges: equivariant under $S_N$, O(3), translations.

    Inputs are the vectors $r_{ij} = r_j - r_i$ of all ordered pairs, the output is one vector
    $f_{ij} = -f_{ji}$ for each, and $F_i = \sum_j f_{ij}$. N is no part of the weights, but the
    sums over atoms make them fit the N they were trained at. Cost $O(N^2)$.

    Args:
        hidden: channels of the hidden layers.
        a: residue of the softsign of eq. 13.
        powers: number of input channels $\mathbf r_{ij}, \mathbf r_{ij}/r_{ij}^2,
            \mathbf r_{ij}/r_{ij}^4, \dots$ beside the unit vector; 1 is the paper's input. The
            further ones are large where atoms are close, and forces too.
        sums: first spread of the maps that sum over atoms, those of $x_{ij}$ having 1: below 1 the
            network starts close to a sum over pairs, and learns how far it is none.
        atoms: the number of atoms that the first weights are scaled for.
        epsilon: of the modulus of hidden vectors, as in `companion.unitary.UnitaryNetwork`.
        seeds: S, or the seeds of the members.
        dtype, device: of the parameters.

    Raises:
        ValueError: a width, `powers`, `seeds` or `atoms` out of range.
    """

    length: Tensor
    strength: Tensor

    def __init__(
        self,
        hidden: Sequence[int] = (24, 24, 24),
        *,
        a: float = 1.0,
        sums: float = 0.05,
        powers: int = 4,
        atoms: int = 4,
        epsilon: float = EPSILON,
        seeds: int | Sequence[int] = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        if not hidden or min(*hidden, powers) < 1 or atoms < 2:
            raise ValueError(
                f"hidden = {tuple(hidden)}, powers = {powers}, atoms = {atoms}: expected at least "
                "one width, powers and widths of 1 or more, and 2 atoms or more"
            )
        require_epsilon(epsilon)
        if not self.seeds:
            raise ValueError(f"seeds = {seeds!r}: expected 1 or more members, such as seeds=3")
        self.hidden, self.activation, self.powers = tuple(hidden), Softsign(a), powers
        self.epsilon = epsilon
        self.register_buffer("length", torch.ones((), dtype=dtype, device=device))
        self.register_buffer("strength", torch.ones((), dtype=dtype, device=device))
        sources = [torch.Generator().manual_seed(seed) for seed in self.seeds]

        def normal(m: int, n: int, sd: float) -> Tensor:
            draws = [torch.randn(m, n, generator=g, dtype=torch.float64) for g in sources]
            return (sd * torch.stack(draws)).to(dtype=dtype, device=device)

        self.pairs, self.sums, self.total = (torch.nn.ParameterList() for _ in range(3))
        inputs = [powers + 1, *(2 * n for n in hidden)]  # vectors and their unit vectors
        for m, n in zip(inputs, [*hidden, 1], strict=True):
            same, back = normal(m, n, m**-0.5), normal(m, n, sums * m**-0.5)
            self.pairs.append(torch.nn.Parameter(torch.cat([same, back], -1)))
            self.sums.append(
                torch.nn.Parameter(normal(2 * m, 2 * n, sums * (2 * m * (atoms - 1)) ** -0.5))
            )
            self.total.append(
                torch.nn.Parameter(normal(m, n, sums * (m * atoms * (atoms - 1)) ** -0.5))
            )

    def forces(self, r: Positions) -> Forces:
        """The forces in eV/angstrom at positions `(S, B, N, 3)`, or `(B, N, 3)`, in angstrom.

        Raises ValueError for another shape or dtype, and for less than two atoms.
        """
        r = alike(self.checked(r), self.length)
        B, N = r.shape[1:3]
        i, j = directed_edges(N, r.device)
        x = (r[:, :, j] - r[:, :, i]).permute(0, 2, 1, 3)[..., None] / self.length
        square = x.square().sum(-2, keepdim=True)
        inverse = 1 / (square + CORE**2)
        columns = [x * (square + EPSILON**2).rsqrt(), x]
        for _ in range(self.powers - 1):
            columns.append(columns[-1] * inverse)
        z = torch.cat(columns, -1)
        ends = incidence(N, r)
        layers = list(zip(self.pairs, self.sums, self.total, strict=True))
        u = _Linear.apply(z.flatten(2, 3), ends, *layers[0])
        for layer in layers[1:]:
            z = activated(u.unflatten(2, (B, 3)), self.activation, self.epsilon)
            u = _Linear.apply(z.flatten(2, 3), ends, *layer)
        there, back = u.flatten(2).chunk(2, dim=1)
        f = torch.cat([there - back, back - there], 1)
        F = (ends[:N] @ f).unflatten(2, (B, 3)).transpose(1, 2)
        return self.strength * F

    @torch.no_grad()
    def standardise(self, r: Positions, F: Positions) -> None:
        """Measures the units in data: the spread of r_ij over all pairs, and that of the forces.

        One number each, and no shift (section 4.1 of the paper): a shift would break rotations.
        """
        r, F = self.checked(r), self.checked(F)
        i, j = directed_edges(r.shape[-2], r.device)
        self.length.copy_((r[..., j, :] - r[..., i, :]).square().mean().sqrt())
        self.strength.copy_(F.square().mean().sqrt())

    def keep(self, s: int) -> None:
        """Keeps member s alone, as an ensemble of one."""
        self.seeds = [self.seeds[s]]
        for p in self.parameters():
            p.data = p.data[s : s + 1].clone()


def alike(r: Tensor, like: Tensor) -> Tensor:
    """The positions. ValueError if they are no two atoms or of another dtype than the model."""
    if r.shape[-2] < 2:
        raise ValueError(f"r: got shape {tuple(r.shape)}; expected at least 2 atoms")
    if r.dtype != like.dtype:
        raise ValueError(f"r: got {r.dtype}, the weights are {like.dtype}; convert with .to(...)")
    return r


def directed_edges(N: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """The ends i and j of the N (N - 1) directed edges, the second half the first reversed."""
    i, j = torch.triu_indices(N, N, 1, device=device)
    return torch.cat([i, j]), torch.cat([j, i])


def incidence(N: int, like: Tensor) -> Float[Tensor, "ends E"]:
    """Which edges leave atom i (row i), and which arrive there (row N + i), as zeros and ones."""
    i, j = directed_edges(N, like.device)
    atoms = torch.arange(N, device=like.device)[:, None]
    return torch.cat([atoms == i, atoms == j]).to(like.dtype)


def _swapped(x: Tensor) -> Tensor:
    """The values at the reversed edges: axis 1 counts edges in the order of `directed_edges`."""
    there, back = x.chunk(2, dim=1)
    return torch.cat([back, there], 1)


class _Linear(torch.autograd.Function):
    r"""All equivariant linear maps of edges, with their derivative by hand (no copies of slices).

    z `(S, E, R, m)` are m channels on E edges, R rows (configurations and components) each.
    pairs `(S, m, 2 n)`: from edge and reversed edge. sums `(S, 2 m, 2 n)`: from the sums out of and
    into an atom, to the edges out of and into it. total `(S, m, n)`: from the sum of all edges.
    """

    @staticmethod
    def forward(ctx, z, ends, pairs, sums, total):
        S, E, R, m = z.shape
        n, N = total.shape[-1], len(ends) // 2
        y = torch.bmm(z.reshape(S, E * R, m), pairs).view(S, E, R, 2 * n)
        at = torch.matmul(ends, z.reshape(S, E, R * m)).view(S, 2, N, R, m)
        everything = at[:, 0].sum(1)
        at = at.permute(0, 2, 3, 1, 4).reshape(S, N * R, 2 * m)
        p = torch.bmm(at, sums).view(S, N, R, 2, n)
        p[:, :, :, 0] += torch.bmm(everything, total)[:, None]
        p = p.permute(0, 3, 1, 2, 4).reshape(S, 2 * N, R * n)
        out = torch.matmul(ends.mT, p).view(S, E, R, n)
        out += y[..., :n]
        out[:, : E // 2] += y[:, E // 2 :, :, n:]
        out[:, E // 2 :] += y[:, : E // 2, :, n:]
        ctx.save_for_backward(z, ends, pairs, sums, total, at, everything)
        return out

    @staticmethod
    def backward(ctx, g):
        z, ends, pairs, sums, total, at, everything = ctx.saved_tensors
        S, E, R, m = z.shape
        n, N = total.shape[-1], len(ends) // 2
        rows = torch.cat([g, _swapped(g)], -1).view(S, E * R, 2 * n)
        d_pairs = torch.bmm(z.reshape(S, E * R, m).mT, rows)
        p = torch.matmul(ends, g.reshape(S, E, R * n)).view(S, 2, N, R, n)
        sent = p[:, 0].sum(1)
        p = p.permute(0, 2, 3, 1, 4).reshape(S, N * R, 2 * n)
        d_sums, d_total = torch.bmm(at.mT, p), torch.bmm(everything.mT, sent)
        dz = None
        if ctx.needs_input_grad[0]:
            back = torch.bmm(p, sums.mT).view(S, N, R, 2, m)
            back[:, :, :, 0] += torch.bmm(sent, total.mT)[:, None]
            back = back.permute(0, 3, 1, 2, 4).reshape(S, 2 * N, R * m)
            dz = torch.bmm(rows, pairs.mT).view(S, E, R * m)
            dz = torch.add(dz, torch.matmul(ends.mT, back)).view(S, E, R, m)
        return dz, None, d_pairs, d_sums, d_total
