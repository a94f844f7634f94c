r"""Descriptors of an atom's surroundings, and the forces that are functions of them.

Ma & Chan (2022, section 3.5) get rid of the atoms' numbers with sums over neighbours. With

$$ \phi_\alpha(r) = e^{-\eta_\alpha (r - r_\alpha)^2} f_c(r), \qquad
   G_i^\alpha = \sum_{j \ne i} \phi_\alpha(r_{ij}), \qquad
   D_i^\alpha = \sum_{j \ne i} \frac{\mathbf r_{ij}}{r_{ij}}\,\phi_\alpha(r_{ij}) $$

(eqs. 31-33), relabelled atoms have relabelled descriptors; the scalars G do not turn, the vectors D
turn with the atoms (eq. 34). Three models are built on them:

- `LinearForces`: $F_i = \sum_\alpha c_\alpha D_i^\alpha$. Any forces that come from a pair
  potential, $F_i = \sum_j g(r_{ij})\,\mathbf r_{ij}/r_{ij}$, are of this form as soon as g is a sum
  of the $\phi_\alpha$. No training: least squares.
- `DescriptorForces`: a unitary network from the vectors of an atom to its force.
- `EnergyForces`: an invariant energy of the atoms, and its gradient in closed form. Such forces are
  conservative and add up to zero, in linear and angular momentum, for any weights.

All of them take positions alone, and then look at all pairs of atoms, or positions and the `pairs`
within the cutoff, from `companion.neighbours`: the result is the same, the cost then grows as N.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from companion._activations import Activation
from companion._dense import Dense
from companion.force_models import ForceModel, Positions
from companion.permutations import alike
from companion.unitary import EPSILON, UnitaryNetwork

RIDGE = 1e-6
Pairs = Shaped[Tensor, "..."]  # (P, 2) atoms i < j, the same for all configurations: checked below
Forces = Float[Tensor, "S B N 3"]


class Descriptors(torch.nn.Module):
    r"""The descriptors of eqs. 31-33 with K centres $r_\alpha$ between `first` and `last`.

    The centres are evenly spaced in $1/r$: dense where forces are steep, sparse where they are
    faint. The width of each Gaussian is the distance to its neighbours, $\eta_\alpha = 1/(2
    \Delta_\alpha^2)$. The cutoff function $f_c = (1 - r^2/r_c^2)^3$ for $r < r_c$, else 0, is twice
    continuously differentiable.

    Args:
        K: number of centres.
        cutoff: $r_c$ in angstrom.
        first, last: the outermost centres in angstrom; `last` is the cutoff if not given.
        dtype, device: of the constants.

    Raises:
        ValueError: fewer than 2 centres, or lengths that are not 0 < first < last <= cutoff.
    """

    centres: Tensor
    eta: Tensor

    def __init__(
        self,
        K: int = 32,
        cutoff: float = 12.0,
        first: float = 2.5,
        last: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        last = cutoff if last is None else last
        if K < 2 or not 0 < first < last <= cutoff:
            raise ValueError(
                f"K = {K}, first = {first}, last = {last}, cutoff = {cutoff}: expected K >= 2 and "
                "0 < first < last <= cutoff, in angstrom"
            )
        self.K, self.cutoff = K, float(cutoff)
        centres = 1 / torch.linspace(1 / first, 1 / last, K, dtype=torch.float64)
        width = torch.gradient(centres)[0]
        self.register_buffer("centres", centres.to(dtype=dtype, device=device), persistent=False)
        eta = 1 / (2 * width.square())
        self.register_buffer("eta", eta.to(dtype=dtype, device=device), persistent=False)

    def radial(self, d: Float[Tensor, "*batch"]) -> tuple[Tensor, Tensor]:
        r"""$\phi_\alpha$ and $\phi_\alpha'$ at distances `(...)`, both `(..., K)`."""
        x = d[..., None]
        away = x - self.centres
        inside = (1 - (x / self.cutoff).square()).clamp(min=0)
        bell = torch.exp(-self.eta * away.square()) * inside.square()
        value = bell * inside
        return value, -2 * self.eta * away * value - 6 * x / self.cutoff**2 * bell

    def scalars(self, r: Positions, pairs: Pairs | None = None) -> Float[Tensor, "*batch N K"]:
        """The scalars G of eq. 32, `(..., N, K)`, at positions `(..., N, 3)`."""
        around = Surroundings(r, pairs)
        return around.to_atoms(self.radial(around.d)[0], sign=1)

    def vectors(self, r: Positions, pairs: Pairs | None = None) -> Float[Tensor, "*batch N 3 K"]:
        """The vectors D of eq. 33 as columns, `(..., N, 3, K)`, at positions `(..., N, 3)`."""
        around = Surroundings(r, pairs)
        return around.to_atoms(around.e[..., None] * self.radial(around.d)[0][..., None, :])


class Surroundings:
    """Pairs of atoms i < j, their distance d `(..., P)` and direction e `(..., P, 3)` from i to j.

    Raises ValueError for pairs that are not `(P, 2)` of whole numbers from 0 to N - 1, i != j.
    """

    def __init__(self, r: Tensor, pairs: Tensor | None) -> None:
        self.N = r.shape[-2]
        if pairs is None:
            self.i, self.j = torch.triu_indices(self.N, self.N, 1, device=r.device)
        else:
            self.i, self.j = _ends(pairs, self.N)
        x = r[..., self.j, :] - r[..., self.i, :]
        self.d = x.square().sum(-1).sqrt()
        self.e = x / self.d[..., None]

    def to_atoms(self, x: Tensor, sign: int = -1) -> Tensor:
        """Sums values of pairs `(..., P, *)` at atom i, and `sign` times them at atom j."""
        axis = self.d.dim() - 1
        out = x.new_zeros(*x.shape[:axis], self.N, *x.shape[axis + 1 :])
        return out.index_add(axis, self.i, x).index_add(axis, self.j, x, alpha=sign)

    def to_pairs(self, x: Tensor, sign: int = -1) -> Tensor:
        """The transpose of `to_atoms`: values of atoms at i, plus `sign` times those at j."""
        axis = self.d.dim() - 1
        return torch.add(x.index_select(axis, self.i), x.index_select(axis, self.j), alpha=sign)


def _ends(pairs: Int[Tensor, "P 2"] | Tensor, N: int) -> tuple[Tensor, Tensor]:
    if pairs.dim() != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        raise ValueError(
            f"pairs: got {pairs.dtype} of shape {tuple(pairs.shape)}; expected whole numbers "
            "(P, 2), each pair of atoms once, as companion.neighbours gives them"
        )
    i, j = pairs.long().unbind(1)
    if len(pairs) and (int(pairs.min()) < 0 or int(pairs.max()) >= N or bool((i == j).any())):
        raise ValueError(
            f"pairs: expected two different atoms from 0 to {N - 1} each, got {pairs.tolist()[:3]} "
            f"... with numbers from {int(pairs.min())} to {int(pairs.max())}"
        )
    return i, j


class LinearForces(ForceModel):
    r"""$F_i = \sum_\alpha c_\alpha D_i^\alpha$: eq. 33 and nothing else.

    Its forces are those of a pair potential with $U'(r) = \sum_\alpha c_\alpha \phi_\alpha(r)$,
    whatever the coefficients: they conserve energy and both momenta.

    Args:
        descriptors: the K functions of the distance.
        seeds: S, or the seeds of the members. Coefficients start at zero: members differ by the
            data they are fitted to.
    """

    def __init__(self, descriptors: Descriptors, seeds: int | Sequence[int] = 1) -> None:
        super().__init__()
        self.seeds = _seeds(seeds)
        self.descriptors = copy.deepcopy(descriptors)
        like = descriptors.centres
        self.coefficients = torch.nn.Parameter(like.new_zeros(self.S, descriptors.K))

    def forces(self, r: Positions, pairs: Pairs | None = None) -> Forces:
        """Forces in eV/angstrom at positions `(S, B, N, 3)` or `(B, N, 3)` in angstrom."""
        around = Surroundings(alike(self.checked(r), self.coefficients), pairs)
        g = (self.descriptors.radial(around.d)[0] @ self.coefficients[:, None, :, None])[..., 0]
        return around.to_atoms(g[..., None] * around.e)

    @torch.no_grad()
    def standardise(self, r: Positions, F: Positions) -> None:
        """Nothing to set: descriptors and forces have their units."""

    @torch.no_grad()
    def least_squares(self, r: Positions, F: Positions) -> None:
        """Sets the coefficients to the best for data `(S, B, N, 3)` or `(B, N, 3)`, in float64.

        A ridge of `RIDGE` times the size of the equations keeps a function of distances that are
        not in the data at zero.
        """
        r, F = self.checked(r).double(), self.checked(F).double()
        D = self.descriptors.double().vectors(r)
        self.descriptors.to(self.coefficients)
        self.coefficients.copy_(_ridge(D, F))

    def keep(self, s: int) -> None:
        """Keeps member s alone, as an ensemble of one."""
        self.seeds = [self.seeds[s]]
        self.coefficients.data = self.coefficients.data[s : s + 1].clone()


class DescriptorForces(ForceModel):
    r"""A unitary network, shared by all atoms, from the K vectors $D_i^\alpha$ to the force $F_i$.

    Equivariant under permutations, O(3) and translations, for any number of atoms. It sees the
    angles between neighbours, as the network takes lengths of sums of the $D_i^\alpha$. Its unit
    vectors (eq. 8) do not fade as the vectors do: where all $D_i^\alpha$ of an atom go to zero, as
    its last neighbour leaves the cutoff, the force does not.

    Args:
        descriptors: the K functions of the distance.
        hidden: numbers of vectors of the hidden layers.
        momentum: whether the mean force of a configuration is taken off, so that forces add up
            to zero; distant atoms then feel each other, which suits a single small cluster only.
        seeds: S, or the seeds of the members.
    """

    def __init__(
        self,
        descriptors: Descriptors,
        hidden: Sequence[int] = (64, 64),
        momentum: bool = True,
        epsilon: float = EPSILON,
        seeds: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.descriptors, self.momentum = copy.deepcopy(descriptors), momentum
        like = descriptors.centres
        self.network = UnitaryNetwork(
            (descriptors.K, *hidden, 1),
            epsilon=epsilon,
            seeds=_seeds(seeds),
            dtype=like.dtype,
            device=like.device,
        )

    @property
    def seeds(self) -> list[int]:
        """The members' seeds."""
        return self.network.seeds

    def forces(self, r: Positions, pairs: Pairs | None = None) -> Forces:
        """Forces in eV/angstrom at positions `(S, B, N, 3)` or `(B, N, 3)` in angstrom."""
        r = alike(self.checked(r), self.descriptors.centres)
        D = self.descriptors.vectors(r, pairs)
        F = self.network(D.flatten(1, 2))[..., 0].unflatten(1, D.shape[1:3])
        return F - F.mean(-2, keepdim=True) if self.momentum else F

    def standardise(self, r: Positions, F: Positions) -> None:
        """One spread each for descriptors and forces, from samples `(S, B, N, 3)`."""
        D = self.descriptors.vectors(self.checked(r)).flatten(1, 2)
        self.network.standardise(D, self.checked(F).flatten(1, 2)[..., None])

    def keep(self, s: int) -> None:
        """Keeps member s alone, as an ensemble of one."""
        self.network.keep(s)


class EnergyForces(ForceModel):
    r"""An invariant energy, $E = \sum_i \epsilon(G_i, q_i)$, and the forces $F = -\nabla E$.

    $\epsilon$ is a dense network, shared by all atoms, of the K scalars of eq. 32 and of $k$
    squared lengths $q_i = |\sum_\alpha D_i^\alpha C_{\alpha\cdot}|^2$ of learned combinations of
    the vectors of eq. 33. The lengths hold the angles between neighbours, so the energy is no sum
    over pairs. For any weights the energy does not change under permutations, O(3) and
    translations, so the forces are equivariant, conserve the energy, and have no net force and no
    net torque.

    The gradient is written out: with $V_i = D_i C$, $\beta = \partial\epsilon/\partial G$ and
    $w = \partial\epsilon/\partial V$ at every atom, it is for each pair

    $$ \frac{\partial E}{\partial \mathbf r_{ij}} = (\beta_i + \beta_j)\cdot\phi'\,\mathbf e
       + (\mathbf e \cdot (w_i - w_j)\,C^T\phi')\,\mathbf e
       + \frac{1 - \mathbf e\mathbf e^T}{r_{ij}}\,(w_i - w_j)\,C^T\phi . $$

    Args:
        descriptors: the K functions of the distance.
        hidden: widths of the dense layers.
        lengths: k, the number of learned combinations.
        pair: whether a sum over pairs, $\sum_\alpha w_\alpha G_i^\alpha$, is added to $\epsilon$,
            so that the network is left with what is no such sum. It starts at zero, and
            `standardise` sets it to the best fit of the data by pairs alone.
        activation: as in `companion.lagrangian`.
        seeds: S, or the seeds of the members.

    Raises:
        ValueError: no hidden layer, a width or `lengths` below 1, or an unknown activation.
    """

    strength: Tensor

    def __init__(
        self,
        descriptors: Descriptors,
        hidden: Sequence[int] = (64, 64),
        lengths: int = 16,
        pair: bool = False,
        activation: str | Activation = "silu",
        seeds: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.seeds = _seeds(seeds)
        if not hidden or min(*hidden, lengths) < 1:
            raise ValueError(
                f"hidden = {tuple(hidden)}, lengths = {lengths}: expected at least one width, and "
                "1 or more everywhere"
            )
        self.descriptors = copy.deepcopy(descriptors)
        self.hidden, self.lengths = tuple(hidden), lengths
        K, like = descriptors.K, descriptors.centres
        sources = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.core = Dense(
            K + lengths, hidden, 1, activation, sources, 0.05, like.dtype, like.device
        )
        draws = [torch.randn(K, lengths, generator=g, dtype=torch.float64) for g in sources]
        self.mixing = torch.nn.Parameter((K**-0.5 * torch.stack(draws)).to(like))
        self.pair = torch.nn.Parameter(like.new_zeros(self.S, K)) if pair else None
        self.register_buffer("strength", like.new_ones(()))

    def energy(self, r: Positions, pairs: Pairs | None = None) -> Float[Tensor, "S B"]:
        """The energy in eV at positions `(S, B, N, 3)` or `(B, N, 3)`, but for a constant."""
        around = Surroundings(alike(self.checked(r), self.strength), pairs)
        x, _, _ = self._features(around, self.descriptors.radial(around.d)[0])
        e = self.core.value(x.flatten(1, 2))[..., 0].unflatten(1, x.shape[1:3])
        if self.pair is not None:
            e = e + (x[..., : self.descriptors.K] * self.pair[:, None, None]).sum(-1)
        return self.strength * e.sum(-1)

    def forces(self, r: Positions, pairs: Pairs | None = None) -> Forces:
        """Minus the gradient of `energy`, in eV/angstrom."""
        around = Surroundings(alike(self.checked(r), self.strength), pairs)
        phi, slope = self.descriptors.radial(around.d)
        x, V, mixed = self._features(around, phi)
        beta = self.core.gradient(x.flatten(1, 2)).view_as(x)
        on_scalars, on_lengths = beta.split([self.descriptors.K, self.lengths], dim=-1)
        if self.pair is not None:
            on_scalars = on_scalars + self.pair[:, None, None]
        w, e = around.to_pairs(2 * on_lengths[..., None, :] * V), around.e
        turned = (w @ mixed[..., None])[..., 0]
        along = (around.to_pairs(on_scalars, sign=1) * slope).sum(-1)
        along = along + ((e[..., None, :] @ w)[..., 0, :] * self._mixed(slope)).sum(-1)
        across = (turned - (turned * e).sum(-1, keepdim=True) * e) / around.d[..., None]
        return self.strength * around.to_atoms(along[..., None] * e + across)

    @torch.no_grad()
    def standardise(self, r: Positions, F: Positions) -> None:
        """Centres and scales the features, sets the unit of energy and, if there are any, the
        coefficients of the pairs, from data in angstrom and eV/angstrom."""
        r, F = self.checked(r), self.checked(F)
        around = Surroundings(r, None)
        phi, slope = self.descriptors.radial(around.d)
        self.core.standardise(self._features(around, phi)[0].flatten(1, 2))
        self.strength.copy_(F.square().mean().sqrt())
        if self.pair is not None:
            D = around.to_atoms(around.e[..., None] * 2 * slope[..., None, :])
            self.pair.copy_(_ridge(D.double(), (F / self.strength).double()))

    def keep(self, s: int) -> None:
        """Keeps member s alone, as an ensemble of one."""
        self.seeds = [self.seeds[s]]
        self.core.keep(s)
        for p in (self.mixing, self.pair):
            if p is not None:
                p.data = p.data[s : s + 1].clone()

    def _features(self, around: Surroundings, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Features `(S, B, N, K + k)`, the vectors V `(S, B, N, 3, k)` in them, and phi C.

        $V_i = \sum_j \mathbf e_{ij}\,(\phi C)_{ij}$: mixed before it is summed, as k < K.
        """
        mixed = self._mixed(phi)
        V = around.to_atoms(around.e[..., None] * mixed[..., None, :])
        return torch.cat([around.to_atoms(phi, sign=1), V.square().sum(-2)], -1), V, mixed

    def _mixed(self, phi: Tensor) -> Tensor:
        """The combinations `(S, B, P, k)` of functions of the distance, `(S, B, P, K)`."""
        return torch.bmm(phi.flatten(1, 2), self.mixing).unflatten(1, phi.shape[1:3])


def _ridge(D: Tensor, F: Tensor) -> Tensor:
    """The coefficients `(S, K)` with the least |D c - F|^2, of `(S, B, N, 3, K)`, with a ridge."""
    D, F = D.flatten(1, 3), F.flatten(1)[..., None]
    size = RIDGE * (D.square().sum((1, 2)) / D.shape[2]).sqrt()
    ridge = size[:, None, None] * torch.eye(D.shape[2], dtype=D.dtype, device=D.device)
    D, F = torch.cat([D, ridge], 1), torch.cat([F, F.new_zeros(*ridge.shape[:2], 1)], 1)
    return torch.linalg.lstsq(D, F).solution[..., 0]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    found = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not found:
        raise ValueError(f"seeds = {seeds!r}: expected 1 or more members, such as seeds=3")
    return found
