"""Where the atoms of a cluster or of a box may be: lattices to start from, random placements."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from companion.neighbours import minimum_image

_FOUR = [[3.0, 0.0, 0.1], [-3.0, -0.1, 0.0], [0.1, 2.5, 0.0], [0.0, -2.5, -0.1]]
_BASIS = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]  # fcc, in cells
_TRIES = 1000


def start(N: int, spacing: float, box: float | int | None) -> Float[Tensor, "N 3"]:
    """The paper's four atoms, a compact piece of an fcc lattice, or a box full of it."""
    if N == 4 and box is None:
        return torch.tensor(_FOUR, dtype=torch.float64)
    cells = math.ceil((N / 4) ** (1 / 3) - 1e-9) if box else math.ceil((N / 4) ** (1 / 3)) + 1
    grid = torch.arange(cells, dtype=torch.float64)
    corner = torch.cartesian_prod(grid, grid, grid)
    points = (corner[:, None] + torch.tensor(_BASIS, dtype=torch.float64)).flatten(0, 1)
    if box is not None:  # every site of the box, or evenly chosen ones
        keep = torch.arange(N) * len(points) // N
        return points[keep] * (box / cells)
    centre = torch.tensor([0.26, 0.25, 0.24], dtype=torch.float64) + cells // 2  # breaks ties
    nearest = (points - centre).square().sum(-1).argsort()[:N]
    chosen = math.sqrt(2) * spacing * points[nearest]
    return chosen - chosen.mean(0)


def sample(
    n: int,
    N: int,
    generator: torch.Generator,
    sd: float | int,
    r_min: float | int,
    box: float | int | None,
) -> Float[Tensor, "n N 3"]:
    """See Argon.sample."""
    for name, x in (("n", n), ("sd", sd), ("r_min", r_min)):
        if not 0 < x < math.inf:
            raise ValueError(f"{name}: got {x}, expected a positive number")
    if N <= 4 and box is None:
        return _whole(n, N, generator, sd, r_min)
    return _atom_by_atom(n, N, generator, sd * (N / 4) ** (1 / 3), r_min, box)


def _whole(n: int, N: int, generator: torch.Generator, sd: float, r_min: float) -> Tensor:
    i, j = torch.triu_indices(N, N, 1, device=generator.device)
    found: list[Tensor] = []
    for _ in range(_TRIES):
        r = sd * torch.randn(
            n, N, 3, generator=generator, dtype=torch.float64, device=generator.device
        )
        near = (r[:, j] - r[:, i]).square().sum(-1).amin(-1)
        found.append(r[near >= r_min**2])
        if sum(map(len, found)) >= n:
            return torch.cat(found)[:n]
    raise ValueError(_no_room(N, r_min, f"spread {sd:g}"))


def _atom_by_atom(
    n: int, N: int, generator: torch.Generator, sd: float, r_min: float, box: float | int | None
) -> Tensor:
    options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    size = f"spread {sd:g}" if box is None else f"box {box:g}"
    r = torch.zeros(n, N, 3, dtype=torch.float64, device=generator.device)
    for k in range(N):
        pending = torch.arange(n, device=generator.device)  # whose atom k is still to be placed
        for _ in range(_TRIES):
            shape = (len(pending), 3)
            x = box * torch.rand(shape, **options) if box else sd * torch.randn(shape, **options)
            d = r[pending, :k] - x[:, None]
            d = minimum_image(d, box) if box else d
            free = (d.square().sum(-1) >= r_min**2).all(-1)
            r[pending[free], k] = x[free]
            pending = pending[~free]
            if not len(pending):
                break
        else:
            raise ValueError(_no_room(N, r_min, size))
    return r


def _no_room(N: int, r_min: float, size: str) -> str:
    return (
        f"r_min: no room for {N} atoms {r_min:g} angstrom apart with the {size} angstrom after "
        f"{_TRIES} tries; take a smaller r_min or more space"
    )
