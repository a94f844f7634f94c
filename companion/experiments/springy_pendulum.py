r"""Table 1 of Yao et al. (2021): a springy double pendulum by scalars, EMLP and plain networks.

Every cell is a model: a neural ODE (eqs. 8-10) or a Hamiltonian network (eq. 11), on O(3) scalars
with gravity and pivot as inputs, on components behind equivariant layers, or on components alone.

What differs from the paper's program, in every cell alike: fixed Runge-Kutta steps and exact
gradients instead of an adaptive solver and its adjoint; the loss compares one interval at a time,
each from the measured state and not from the predicted one, which data without noise allow; smooth
activations; standardised features; SOAP instead of Adam; a network of each seed sees trajectories
of its own. For the scalars: no product twice, no basis functions. For the rivals: positions
relative to pivot and first mass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, datasets, finite, groups, integrators, metrics, systems, training
from companion.artifacts import Figure
from companion.emlp import EMLP
from companion.experiments import _lagrangian
from companion.hamiltonian import HamiltonianNetwork
from companion.representations import SCALAR, V
from companion.scalars import Components, Layer, Scalars
from companion.vectorfield import VectorField, VectorNetwork

NAME = "springy_pendulum"
SUMMARY = "A springy double pendulum: scalars against equivariant layers and plain networks"
PAPER = "Yao et al. (2021), section 5, table 1 and figure 3"

POINTS, DT = 150, 0.2  # a test trajectory: t = 0, 0.2, ..., 29.8
TRAJECTORIES = 500  # for training and for test, each
TESTED = 250  # of the test trajectories, in `evaluate`
SYSTEM = systems.SpringyPendulum()
# Combinations of q_1, q_2, p_1, p_2 and the given q_o, g: one spring, the other, momenta, gravity.
RELATIVE = [
    [1, 0, 0, 0, -1, 0],
    [-1, 1, 0, 0, 0, 0],
    [0, 0, 1, 0, 0, 0],
    [0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 1],
]
SPRINGS = (0, 1)  # the combinations whose length is a feature
MODELS = {"node": VectorField, "hnn": HamiltonianNetwork}
SYMMETRIES = {
    "o2": groups.O(2),
    "so2": groups.SO(2),
    "d2": finite.Dihedral(2),
    "d6": finite.Dihedral(6),
}


@dataclass(frozen=True)
class Cell:
    """One model of the table: what moves, what it sees, how wide it is, how fast it learns.

    `model` is a key of `MODELS`; `sees` is `scalars` (products and the lengths of the springs),
    `gram` (products alone), `mlp` (components) or `emlp-` and a key of `SYMMETRIES` (components
    behind equivariant layers), with `+lengths` where the lengths of the springs are added. Width
    and learning rate were chosen by `tune`, from the same candidates for every cell. `paper` is
    the state error of table 1.
    """

    model: str
    sees: str
    width: int
    lr: float
    paper: float | None = None

    @property
    def name(self) -> str:
        """The variant's name in the artifact."""
        return f"{self.model}-{self.sees}"


CELLS = {
    cell.name: cell
    for cell in (
        Cell("node", "scalars", 64, 3e-2, 0.009),
        Cell("node", "gram", 64, 3e-2),
        Cell("node", "emlp-o2", 128, 3e-2, 0.020),
        Cell("node", "emlp-o2+lengths", 128, 1e-2),
        Cell("node", "emlp-so2", 128, 3e-2, 0.051),
        Cell("node", "emlp-d2", 128, 3e-2, 0.023),
        Cell("node", "emlp-d6", 128, 3e-2, 0.036),
        Cell("node", "mlp", 128, 3e-2, 0.048),
        Cell("node", "mlp+lengths", 128, 1e-2),
        Cell("hnn", "scalars", 128, 1e-2, 0.005),
        Cell("hnn", "gram", 128, 3e-2),
        Cell("hnn", "emlp-o2", 128, 1e-2, 0.012),
        Cell("hnn", "emlp-o2+lengths", 128, 3e-2),
        Cell("hnn", "emlp-so2", 128, 3e-2, 0.016),
        Cell("hnn", "emlp-d2", 128, 1e-2, 0.111),
        Cell("hnn", "emlp-d6", 128, 1e-2, 0.013),
        Cell("hnn", "mlp", 128, 3e-2, 0.028),
        Cell("hnn", "mlp+lengths", 128, 1e-2),
    )
}


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: steps, segments in a batch, warm-up, the widest layer, the cells."""

    steps: int = 1500
    batch: int = 32
    warmup: int = 75
    widest: int = 128
    cells: tuple[str, ...] = tuple(CELLS)


SMALL = ("node-scalars", "node-mlp", "hnn-scalars", "hnn-mlp")
SETTINGS = {
    "ci": Settings(steps=150, warmup=10, widest=32, cells=("hnn-scalars", "hnn-mlp")),
    "demo": Settings(steps=1000, warmup=50, cells=SMALL),
    "full": Settings(),
}


def layer(sees: str) -> Layer:
    """The first layer of a model that `sees` this. ValueError for what no cell sees."""
    if sees not in {cell.sees for cell in CELLS.values()}:
        raise ValueError(
            f"sees = {sees!r}; expected one of {sorted({c.sees for c in CELLS.values()})}"
        )
    if sees in ("scalars", "gram"):
        return Scalars(RELATIVE, lengths=SPRINGS if sees == "scalars" else ())
    # Components are told neither gravity nor pivot, which never change: the pivot is the origin.
    own = [row[:4] for row in RELATIVE[:4]]
    return Components(own, lengths=SPRINGS if sees.endswith("+lengths") else ())


def network(
    cell: Cell,
    seeds: Sequence[int],
    widest: int = 128,
    device: torch.device | str = "cpu",
) -> VectorNetwork:
    """An untrained network of a cell, its features standardised on trajectories of their own."""
    first, width = layer(cell.sees), min(cell.width, widest)
    hidden: tuple[int, ...] | EMLP = (width, width)
    if cell.sees.startswith("emlp-"):
        group = finite.Embedded(SYMMETRIES[cell.sees.removeprefix("emlp-").split("+")[0]], 3)
        seen = len(first.lengths) * SCALAR + 4 * V
        out = 4 * V if cell.model == "node" else SCALAR
        hidden = EMLP(seen, out, group, width, 2, seeds=seeds, output_scale=0.1, device=device)
    net = MODELS[cell.model](first, 2, hidden, seeds=seeds, device=device)
    net.standardise(_typical_states().to(device), given(net))
    return net


@cache
def _typical_states() -> Float[Tensor, "B 12"]:
    """States that every network's features are standardised on; made once, for all cells."""
    return datasets.Segments(SYSTEM, [2**20]).data[0].flatten(0, 1)


def given(net: VectorNetwork) -> Tensor | None:
    """Pivot and gravity, for a network that is told of them."""
    return SYSTEM.given if net.layer.n > 2 * net.n else None


def loss(net: VectorNetwork, segments: Float[Tensor, "S B chunk 12"]) -> Float[Tensor, " S"]:
    r"""$\log(1 + 1000\, |\hat z - z|^2 / 12)$, averaged over the intervals of the segments.

    Every interval starts from the measured state and is two Runge-Kutta steps long. The logarithm
    keeps a few violent intervals, early in training, from ruling the step.
    """
    z, after = segments[:, :, :-1].flatten(1, 2), segments[:, :, 1:].flatten(1, 2)
    f = net.field(given(net))
    for _ in range(2):
        z = integrators.rk4_step(f, z, DT / 2)
    return torch.log1p(1000 * (z - after).square().mean(-1)).mean(-1)


def train_cell(
    name: str,
    budget: str = "demo",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: bool = True,
    **changes,
) -> tuple[VectorNetwork, training.History]:
    """Trains a cell of the table, all seeds at once; `changes` replace settings of the budget."""
    settings, cell = replace(SETTINGS[budget], **changes), CELLS[name]
    where = training.device(device)
    net = network(cell, seeds, settings.widest, where)
    history = training.fit(
        net,
        loss,
        datasets.Segments(SYSTEM, seeds, batch=settings.batch, device=where),
        steps=settings.steps,
        lr=cell.lr,
        lr_end=cell.lr / 1000,
        warmup=settings.warmup,
        checkpoint=checkpoint,
        progress=progress,
    )
    return net, history


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every cell of the budget and writes the weights; resumes a run that was stopped."""
    settings = SETTINGS[budget]
    steps = dict.fromkeys(settings.cells, settings.steps)
    states, histories = _lagrangian.trained(
        train_cell, steps, budget, seeds, device, folder, progress
    )
    where = training.device(device)
    about = _lagrangian.described(NAME, budget, settings, seeds, where, command, histories)
    artifacts.save_weights(folder, states, about)


def load(folder: Path | None = None) -> tuple[dict[str, VectorNetwork], dict]:
    """The trained networks by cell, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, VectorNetwork]]:
        settings, seeds = about["settings"], about["provenance"]["seeds"]
        for name in settings["cells"]:
            yield name, network(CELLS[name], seeds, settings["widest"])

    return artifacts.load_networks(NAME, folder, untrained)


# What a trained network does ---------------------------------------------------------------------


def true_trajectories(n: int = TESTED) -> Float[Tensor, "points n 12"]:
    """The first n of the test trajectories, the same for all models and seeds, in float64."""
    q, qdot = SYSTEM.sample(TRAJECTORIES, torch.Generator().manual_seed(2**21))
    return datasets.trajectories(SYSTEM, q[:n], qdot[:n], POINTS, DT)


@torch.no_grad()
def rollout(
    net: VectorNetwork, z: Float[Tensor, "B 12"], points: int = POINTS
) -> Float[Tensor, "points S B 12"]:
    """Trajectories of all members from the same states, a state every 0.2, steps of 0.1."""
    start = z.to(next(net.parameters())).expand(net.S, *z.shape)
    return integrators.solve(net.field(given(net)), start, DT / 2, 2 * (points - 1), every=2)


@dataclass(frozen=True)
class Errors:
    """Relative errors along test trajectories, `(points, S, n)`: state, L_perp and energy."""

    state: Tensor
    L_perp: Tensor
    energy: Tensor


def errors(path: Float[Tensor, "points S n 12"], true: Float[Tensor, "points n 12"]) -> Errors:
    r"""Of the states, $\mathrm{rms}(\hat z - z)/(\mathrm{rms}\,\hat z + \mathrm{rms}\,z)$, and of
    the charges $|\hat L - L|/(|\hat L| + |L|)$ with L at the start; 1 where a trajectory ran away.
    """

    def relative(a: Tensor, b: Tensor) -> Tensor:
        return metrics.relative_state_error(a, b).nan_to_num(nan=1.0, posinf=1.0)

    path = path.double()
    q, p = path.chunk(2, dim=-1)  # masses are 1: p is the velocity
    charge, energy = SYSTEM.charges(q, p), SYSTEM.energy(q, p)[..., None]
    state = relative(path, true[:, None].expand_as(path))
    return Errors(state, relative(charge, charge[:1]), relative(energy, energy[:1]))


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves of figure 3 are written beside the weights.
    """
    networks, about = load(folder)
    true, rows = true_trajectories(), []
    curves = {"t": DT * torch.arange(POINTS), "true.z": true[:, 0]}
    for name, net in tqdm(networks.items(), desc="cells", disable=not progress):
        path = rollout(net, true[0])
        error = errors(path, true)
        curves |= {
            f"{name}.z": path[:, 0, 0],
            f"{name}.spread": error.state.clamp(min=1e-7).log().std(-1),
        }
        for what in ("state", "L_perp", "energy"):
            curves[f"{name}.{what}"] = metrics.geometric_mean(getattr(error, what), dim=-1)
        rows += _figures(CELLS[name], net, error)
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, {k: x.float() for k, x in curves.items()})
    return rows, about


def _figures(cell: Cell, net: VectorNetwork, error: Errors) -> list[Figure]:
    """The rows of one cell."""
    aim = {"node-scalars": 0.003, "hnn-scalars": 0.001}.get(cell.name)
    along = f"geometric mean over {TESTED} test trajectories"
    rows = [
        (
            "state error",
            f"relative state error, {along} to t = 29.8, as in table 1",
            cell.paper,
            aim,
            error.state,
        ),
        (
            "without t = 0",
            "the same without the first point, where it is zero by definition",
            None,
            None,
            error.state[1:],
        ),
        (
            "L_perp error",
            f"relative error of the true L_perp against its start, {along}, without t = 0",
            None,
            None,
            error.L_perp[1:],
        ),
        (
            "energy error",
            f"relative error of the true energy against its start, {along}, without t = 0",
            None,
            None,
            error.energy[1:],
        ),
    ]
    figures = [
        Figure(
            f"{cell.name}: {what}",
            meaning,
            "1",
            "lower",
            paper,
            goal,
            tuple(metrics.geometric_mean(x, dim=(0, 2)).tolist()),
            1.3,
        )
        for what, meaning, paper, goal, x in rows
    ]
    size = Figure(
        f"{cell.name}: parameters",
        "trained parameters of one network",
        "count",
        "lower",
        None,
        None,
        (float(net.size),),
        1.0,
    )
    return [*figures, size]
