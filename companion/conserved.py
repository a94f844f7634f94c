r"""How many conserved quantities? A count from trajectories, by linear algebra.

Take a library of functions $\varphi_m(z)$, and ask which combinations $C = \sum_m a_m \varphi_m$
are constant on every trajectory. On N sampled points the combinations are one subspace of
$\mathbb R^N$, the functions that are constant on each trajectory another. `spectrum` finds the
angles between the two: their sines are the ratios of `formulas.conservation_ratio`, and a zero is
a conserved combination. Products of conserved quantities are conserved too, so `count` then asks
how many are independent: the rank of the gradients.

What the count means is limited by the library and by the data; see `count`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import PolynomialFeatures
from torch import Tensor
from torch.func import jacfwd, vmap

from companion.datasets import check_finite
from companion.formulas import EVERY, conservation_ratio
from companion.phase_space import brackets

SLOPE = 1e-5  # slope of a constraint in coordinates of spread 1; what is below is rounding
COMMUTES = 1e-3  # a bracket of two unit gradients that is below it counts as zero
Features = Callable[[Tensor], Tensor]


class Library:
    r"""All monomials of degree 1 to `degree` in the features $u(z)$ of a state.

    Args:
        degree: 1 or more.
        features: a torch function `(..., 2 d) -> (..., m)`; None: the coordinates themselves. Put
            the cosine and sine of angles here, and what the energy needs and is no polynomial,
            such as 1/r.

    Raises:
        ValueError: a degree below 1.
    """

    def __init__(self, degree: int, features: Features | None = None) -> None:
        if degree < 1:
            raise ValueError(f"degree must be 1 or more, got {degree}")
        self.degree = degree
        self.features: Features = features or (lambda z: z)

    def __call__(self, z: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch M"]:
        """The monomials, the constant left out."""
        u = self.features(z)
        powers = self.powers(u.shape[-1]).to(u.device)
        table = torch.stack([u**k for k in range(self.degree + 1)])  # (degree + 1, ..., m)
        value = table[powers[:, 0], ..., 0]  # (M, ...)
        for j in range(1, u.shape[-1]):
            value = value * table[powers[:, j], ..., j]
        return value.movedim(0, -1)

    def powers(self, m: int) -> Tensor:
        """The exponents `(M, m)` of the monomials in m features."""
        basis = PolynomialFeatures(self.degree, include_bias=False).fit([[0.0] * m])
        return torch.as_tensor(basis.powers_)


@dataclass(frozen=True)
class Spectrum:
    r"""Combinations of a library, from the best conserved to the least.

    `ratios` `(K,)`: the conservation ratio of each on the trajectories that it was made from, the
    sines of the principal angles. `held_out` `(K,)`: the same on other trajectories. `weights`
    `(M, K)` gives each combination variance 1. `constraints` `(M, M - K)`: combinations that have
    one and the same value on all data; they say where the data lie, not what is conserved.
    """

    library: Library
    ratios: Tensor
    held_out: Tensor
    weights: Tensor
    constraints: Tensor
    mean: Tensor
    scale: Tensor  # of the coordinates, (2 d,)

    def __call__(self, z: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch K"]:
        """The values of all combinations."""
        return (self.library(z) - self.mean) @ self.weights


def spectrum(library: Library, path: Shaped[Tensor, "..."], tol: float = 1e-7) -> Spectrum:
    """The combinations of a library in order of their conservation ratios.

    Args:
        library: M functions.
        path: n trajectories `(time, n, 2 d)`; every fifth is held out.
        tol: a combination with a spread below `tol` of the largest is a constraint. Raise it to
            the size of the noise.

    Raises:
        ValueError: wrong shape or dtype, nan or inf, fewer than two times, fewer than ten
            trajectories, or fewer points than functions.
    """
    if path.dim() != 3 or path.shape[0] < 2 or path.shape[1] < 2 * EVERY or path.shape[2] % 2:
        raise ValueError(
            f"path has shape {tuple(path.shape)}; expected (time, n, 2 d), two times or more on "
            f"{2 * EVERY} trajectories or more"
        )
    path = path.detach().double()
    check_finite(path=path)
    out = torch.arange(path.shape[1]) % EVERY == EVERY - 1
    fitted, tested = path[:, ~out], path[:, out]
    time, n = fitted.shape[:2]
    X = library(fitted).flatten(0, 1)
    if len(X) < X.shape[1]:
        raise ValueError(
            f"{len(X)} points for {X.shape[1]} functions: some combination is constant on any "
            "data; give more points, or a lower degree"
        )
    mean, spread = X.mean(0), X.std(0, correction=0)
    spread = torch.where(spread > tol * X.abs().amax(0), spread, torch.ones_like(spread))
    U, S, Vh = torch.linalg.svd((X - mean) / spread, full_matrices=False)
    kept = tol * S[0] < S
    U = U[:, kept].unflatten(0, (time, n))  # an orthonormal basis of the library on the data
    _, sines, R = torch.linalg.svd((U - U.mean(0)).flatten(0, 1), full_matrices=False)
    weights = (Vh[kept].mT / S[kept]) @ R.flip(0).mT * len(X) ** 0.5 / spread[:, None]
    values = (library(tested) - mean) @ weights
    return Spectrum(
        library,
        sines.flip(0).clamp(max=1.0),
        conservation_ratio(values),
        weights,
        Vh[~kept].mT / spread[:, None],
        mean,
        path.flatten(0, 1).std(0),
    )


@dataclass(frozen=True)
class Count:
    """What `count` found.

    `number`: independent conserved quantities on the data. `commuting`: how many of them, or of
    functions of them, can have vanishing brackets with one another, never more than d; None where
    there are constraints, because brackets also need the slopes off the data. `conserved`:
    conserved combinations of the library, products included. `constraints`: independent functions
    that are the same on all data. `gap`: how many times larger the next held-out ratio is than the
    last counted one (than the smallest, where none is counted). `ratios`: the held-out ratios,
    ascending. `rank`: the relative singular values of the gradients, of which `number` are not 0.
    """

    number: int
    commuting: int | None
    conserved: int
    constraints: int
    gap: float
    ratios: Tensor
    rank: Tensor


def count(
    found: Spectrum,
    path: Shaped[Tensor, "..."],
    *,
    limit: float = 0.05,
    gap: float = 10.0,
    floor: float = 1e-4,
    points: int = 64,
) -> Count:
    r"""The number of independent conserved quantities that a library sees in trajectories.

    Held-out ratios are sorted, and counted up to their largest gap (ratios below `floor` count as
    `floor`), if that is at least a factor `gap` and begins below `limit`; without such a gap
    nothing is counted. Independent are as many as the gradients have rank at a typical point of
    the data, along the data: directions in which a constraint changes are projected out. If their
    brackets $\{C_i, C_j\}$ have rank 2 m, at most `number` - m can commute.

    A count below the truth: the library is too small, or a quantity has one value on all data.
    A count above: the trajectories are too short or too few for the library, or lie on a smaller
    set than the system's. Neither can be seen from the count.

    Args:
        found: a spectrum.
        path: states `(..., 2 d)` of which `points` are used for the gradients.
    """
    order = found.held_out.argsort()
    ratios = found.held_out[order]
    k, largest = _gap(ratios.clamp(min=floor), limit, gap)
    z = path.detach().double().flatten(0, -2)
    z = z[:: max(1, len(z) // points)][:points]
    slopes = vmap(jacfwd(found.library))(z) * found.scale  # (points, M, 2 d)
    tangent = torch.eye(z.shape[-1]).to(z).expand(len(z), -1, -1)
    constraints = 0
    if found.constraints.shape[1]:
        _, s, V = torch.linalg.svd(found.constraints.mT @ slopes, full_matrices=False)
        normal = V * (s > SLOPE)[..., None]
        tangent = tangent - normal.mT @ normal
        constraints = int((s > SLOPE).sum(-1).median())
    if not k:
        return Count(0, None if constraints else 0, 0, constraints, largest, ratios, z.new_zeros(0))
    gradients = found.weights[:, order[:k]].mT @ slopes @ tangent  # (points, k, 2 d)
    _, s, V = torch.linalg.svd(gradients, full_matrices=False)
    s = (s / s[:, :1]).median(0).values
    number = int((s > max(floor, 3 * float(ratios[k - 1]))).sum())
    rows = torch.nn.functional.normalize(V[:, :number] / found.scale, dim=-1)
    pairs = int((torch.linalg.svdvals(brackets(rows)) > COMMUTES).sum(-1).median())
    commuting = None if constraints else number - pairs // 2
    return Count(number, commuting, k, constraints, largest, ratios, s)


def _gap(ratios: Tensor, limit: float, gap: float) -> tuple[int, float]:
    """How many ratios lie before the largest gap, and that gap."""
    steps = ratios[1:] / ratios[:-1]
    steps = torch.where(ratios[:-1] < limit, steps, torch.ones_like(steps))
    if len(steps) and float(steps.max()) >= gap:
        return int(steps.argmax()) + 1, float(steps.max())
    return 0, float(ratios[1] / ratios[0]) if len(steps) else 1.0


def orbit_dimension(
    path: Shaped[Tensor, "..."], neighbours: int = 20, features: Features | None = None
) -> float:
    r"""The dimension of the set that one long trajectory fills, by nearest neighbours.

    The estimate of Levina and Bickel (2004), inverses averaged: with $T_j$ the distance to the
    j-th of k neighbours, $1/\hat D$ is the mean of $\log(T_k/T_j)$ over j < k and all points. A
    trajectory that fills what its conserved quantities allow has dimension 2 d minus their number.

    Args:
        path: one trajectory `(time, 2 d)`, long enough to return to itself often, its samples so
            far apart that neighbours in space are none in time.
        neighbours: k, 3 or more.
        features: as in `Library`; make angles cosine and sine.

    Raises:
        ValueError: wrong shape, nan or inf, or fewer samples than `10 * neighbours`.
    """
    if path.dim() != 2 or len(path) < 10 * neighbours or neighbours < 3:
        raise ValueError(
            f"path has shape {tuple(path.shape)}, neighbours = {neighbours}; expected (time, 2 d) "
            "with at least 10 samples a neighbour, and 3 neighbours or more"
        )
    check_finite(path=path)
    u = path.detach().double()
    u = u if features is None else features(u)
    spread = u.std(0)
    u = (u / torch.where(spread > 0, spread, torch.ones_like(spread))).numpy()
    distance, _ = NearestNeighbors(n_neighbors=neighbours + 1).fit(u).kneighbors(u)
    T = torch.as_tensor(distance[:, 1:]).clamp(min=1e-300)
    return 1 / float((T[:, -1:] / T[:, :-1]).log().mean())
