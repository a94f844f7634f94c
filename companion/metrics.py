r"""The numbers that the papers report, each with its equation.

Time is the first axis, then the batch; vectors lie along the last axis, so a scalar such as the
energy, shape `(T, B)`, is passed as `energy[..., None]`. *Mueller* is E. H. Mueller, *Exact
conservation laws for neural network integrators of dynamical systems* (2023); *Yao* is W. Yao,
K. Storey-Fisher, D. W. Hogg and S. Villar, *A simple equivariant machine learning method for
dynamics based on scalars* (2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def relative_deviation(
    I: Float[Tensor, "..."],  # noqa: E741 -- the letter of the chapter
    *,
    reference: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    r"""$\delta I(t) = \lVert I(t) - I(0)\rVert_2 \,/\, \lVert I(0)\rVert_2$ (Mueller, eq. 35).

    `I` has shape `(T, ..., k)`, the result `(T, ...)`; a single scalar over time, shape `(T,)`,
    counts as k = 1. `reference`, shape `(..., k)`, takes the place of $I(0)$ in the denominator
    (Mueller, eq. 36: the total momentum starts at zero, so one divides by that of the first
    particle). Raises `ValueError` if the denominator is zero.
    """
    if I.dim() == 0 or len(I) == 0:
        raise ValueError(f"I has shape {tuple(I.shape)}; expected (T, ..., k) with T >= 1.")
    if I.dim() == 1:
        I = I[:, None]  # noqa: E741
    scale = torch.linalg.vector_norm(I[0] if reference is None else reference, dim=-1)
    if bool((scale == 0).any()):
        index = tuple((scale == 0).nonzero()[0].tolist())
        what = "I(0)" if reference is None else "reference"
        raise ValueError(
            f"{what} is zero at batch index {index}, so no relative deviation exists; "
            "pass reference= with the size to compare with (Mueller, eq. 36)."
        )
    return torch.linalg.vector_norm(I - I[0], dim=-1) / scale


def max_deviation(
    I: Float[Tensor, "..."],  # noqa: E741
    *,
    reference: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    r"""$\max_t \delta I(t)$ of `relative_deviation`, shape `(...)`: one number a trajectory.

    A trajectory that blew up has the deviation inf, never a finite one.
    """
    return (
        relative_deviation(I, reference=reference)
        .nan_to_num(nan=torch.inf, posinf=torch.inf)
        .amax(0)
    )


def trajectory_distance(
    q_a: Float[Tensor, "*time_batch d"], q_b: Float[Tensor, "*#time_batch d"]
) -> Float[Tensor, "*time_batch"]:
    r"""$\delta q(t) = \lVert q_a(t) - q_b(t)\rVert_2$ of two trajectories (Mueller, figure 5)."""
    return torch.linalg.vector_norm(q_a - q_b, dim=-1)


def apsidal_angles(
    x: Float[Tensor, "time D"], v: Float[Tensor, "time D"], dt: float
) -> Float[Tensor, " k"]:
    r"""The polar angles of successive closest approaches to the origin, in radians, `(k,)`.

    `x`, `v` are positions and velocities every `dt`, D = 2 or more; the angle is that of the first
    two components, in $(-\pi, \pi]$. Between two samples the position is the cubic that takes both
    positions and velocities (error of order dt^4); a closest approach is where $x\cdot\dot x$
    passes from negative to positive. Raises `ValueError` for fewer than two samples or dimensions.
    """
    if x.shape != v.shape or x.dim() != 2 or len(x) < 2 or x.shape[1] < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, v {tuple(v.shape)}; expected both (time, D), at least "
            "two samples in two dimensions; take one trajectory at a time"
        )
    radial = (x * v).sum(-1)
    k = ((radial[:-1] < 0) & (radial[1:] >= 0)).nonzero()[:, 0]
    ends = x[k], x[k + 1], dt * v[k], dt * v[k + 1]
    low, high = torch.zeros(len(k), 1).to(x), torch.ones(len(k), 1).to(x)
    for _ in range(60):  # bisection to the last bit
        middle = (low + high) / 2
        position, velocity = _hermite(ends, middle)
        inward = (position * velocity).sum(-1, keepdim=True) < 0
        low, high = torch.where(inward, middle, low), torch.where(inward, high, middle)
    position, _ = _hermite(ends, high)
    return torch.atan2(position[:, 1], position[:, 0])


def _hermite(ends: tuple[Tensor, Tensor, Tensor, Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
    """The cubic through two positions with two slopes at 0 <= s <= 1, and its derivative."""
    a, b, u, w = ends
    c, d = 3 * (b - a) - 2 * u - w, 2 * (a - b) + u + w
    return a + s * (u + s * (c + s * d)), u + s * (2 * c + 3 * s * d)


def mse(
    prediction: Float[Tensor, "*seeds batch d"], target: Float[Tensor, "*#seeds batch d"]
) -> Float[Tensor, "*seeds"]:
    """Mean squared error over the batch and the components (Mueller, eq. 12), one for each seed.

    Eq. 12 leaves open whether components are summed or averaged; the published losses are means.
    """
    return (prediction - target).square().mean((-2, -1))


def relative_state_error(
    a: Float[Tensor, "*batch D"], b: Float[Tensor, "*#batch D"]
) -> Float[Tensor, "*batch"]:
    r"""$\mathrm{rms}(a - b) / (\mathrm{rms}\,a + \mathrm{rms}\,b)$ over the last axis, in [0, 1].

    The state relative error of figure 3 and table 1 of Yao, as their code and that of Finzi et al.
    (2021) compute it; eq. 13 prints the denominator as $\sqrt{a^2 + b^2}$, which is up to
    $\sqrt2$ smaller. Two zero states have error 0.
    """
    error, size = _rms(a - b), _rms(a) + _rms(b)
    return torch.where(size == 0, 0, error / size)


def geometric_mean(
    x: Float[Tensor, "..."], dim: int | tuple[int, ...] | None = None, floor: float = 1e-7
) -> Float[Tensor, "..."]:
    r"""$\exp\langle\log x\rangle$ over `dim` (default: everything), as in Yao, table 1.

    Values below `floor` count as `floor`, as in the published figures: one exact zero (the state
    at t = 0) would make the mean zero. Raises `ValueError` if a value is negative.
    """
    if bool((x < 0).any()):
        index = tuple((x < 0).nonzero()[0].tolist())
        raise ValueError(
            f"x holds {x[index].item()} at index {index}; a geometric mean needs values >= 0."
        )
    log = x.clamp(min=floor).log()
    return (log.mean() if dim is None else log.mean(dim)).exp()


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(-1).sqrt()
