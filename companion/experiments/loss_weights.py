r"""Tables 2, 3 and 4 of Syväri et al. (2021): what the weights of the losses do, for two bodies.

The loss is eq. (9), $L_{HNN} + \alpha_1 L_{Poisson} + \alpha_2 L_{HQP}$, with both weights in
$\{1, 0.1, 0.01, 0.001\}$: sixteen cells a table. Three arrangements: the paper's, four cyclic
coordinates; three, of which the last is an angle; and four, of which the last two are, as in
Poincaré's variables. All cells and seeds of an arrangement are one ensemble; the cells of a seed
have the same first weights and see the same batches.

The paper's networks are wider (200) and were trained longer; its optimiser and number of steps are
not stated. A Hamiltonian network with the same steps stands beside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, training
from companion.artifacts import Figure
from companion.canonical import SymmetryControlNetwork, Transformation
from companion.experiments import two_body
from companion.experiments._canonical import ACTIVATION, ROLLED
from companion.experiments._lagrangian import described
from companion.formulas import conservation_ratio
from companion.hamiltonian import HamiltonianNetwork
from companion.phase_space import Coordinates

NAME = "loss_weights"
SUMMARY = "Two bodies: the weights of the Poisson loss and of the cyclic loss"
PAPER = "Syväri et al. (2021), appendix D, tables 2, 3 and 4"

TASK = two_body.TASK
# The number n of cyclic coordinates, and which of them are angles.
ARRANGEMENTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "paper": (4, ()),
    "circular": (3, (2,)),
    "poincare": (4, (2, 3)),
}
ALPHAS = (1.0, 1e-1, 1e-2, 1e-3)
# Rows alpha_2, columns alpha_1, both from 1 to 0.001.
TABLES = {
    "trajectory": (
        (7.41, 9.87, 0.606, 0.330),
        (28.8, 15.8, 0.134, 0.183),
        (3.00, 0.225, 0.859, 0.414),
        (44.9, 0.594, 0.167, 0.101),
    ),
    "energy": (
        (0.220, 2.04, 4.83, 2.01e-5),
        (28.8, 1.68, 8.80e-5, 5.40e-6),
        (0.243, 8.75e-3, 6.01e-4, 3.50e-5),
        (0.187, 3.34e-3, 5.49e-5, 1.13e-5),
    ),
    "L": (
        (16.9, 1.70, 0.242, 7.22e-3),
        (133.0, 108.0, 4.74e-3, 7.81e-4),
        (50.8, 5.95, 0.494, 1.64e-4),
        (116.0, 4.15, 3.74e-3, 2.97e-4),
    ),
}
HNN = {"trajectory": 0.115, "energy": 1.91e-5, "L": 1.23e-3}  # appendix D's text


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: steps, states in a batch, rate and warm-up, width, the weights tried."""

    steps: int
    batch: int = 64
    lr: float = 2e-2
    warmup: int = 100
    width: int = 64
    alphas: tuple[float, ...] = ALPHAS


SETTINGS = {
    "ci": Settings(steps=20, batch=16, warmup=5, width=8, alphas=(1.0, 1e-3)),
    "demo": Settings(steps=300, width=32, warmup=30, alphas=(1.0, 1e-3)),
    "full": Settings(steps=1500),
}


def cells(alphas: Sequence[float]) -> list[tuple[float, float]]:
    """The pairs (alpha_1, alpha_2), alpha_2 slowest: the order of the members."""
    return [(a_1, a_2) for a_2 in alphas for a_1 in alphas]


def network(
    name: str,
    alphas: Sequence[float],
    seeds: Sequence[int],
    width: int = 64,
    device: torch.device | str = "cpu",
) -> Any:
    """An untrained ensemble of an arrangement, cell by cell with all seeds, or `hnn`."""
    d, hidden = TASK.system.d, (width, width)
    if name == "hnn":
        net: Any = HamiltonianNetwork(
            Coordinates(d), d, hidden, ACTIVATION, seeds=seeds, device=device
        )
    else:
        n, circular = ARRANGEMENTS[name]
        repeated = [*seeds] * len(alphas) ** 2
        T = Transformation(d, hidden, ACTIVATION, repeated, device=device)
        net = SymmetryControlNetwork(T, n, circular, hidden, ACTIVATION)
    net.standardise(TASK.scale.to(next(net.parameters())))
    return net


def loss(
    name: str, alphas: Sequence[float], seeds: Sequence[int], device: torch.device | str = "cpu"
) -> Callable[..., Tensor]:
    """Eq. (9) with each member's own weights; eq. (6) for `hnn`."""
    if name == "hnn":
        return lambda net, z, zdot: (net(z) - zdot).square().sum(-1).mean(-1)
    pairs = torch.tensor(cells(alphas), device=device).repeat_interleave(len(seeds), 0)

    def weighted(net: SymmetryControlNetwork, z: Tensor, zdot: Tensor) -> Tensor:
        repeat = len(pairs) // len(z)
        part = net.losses(z.repeat(repeat, 1, 1), zdot.repeat(repeat, 1, 1))
        return part.hnn + pairs[:, 0] * part.poisson + pairs[:, 1] * part.cyclic

    return weighted


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains all arrangements and the Hamiltonian network; resumes a run that was stopped."""
    settings, where = SETTINGS[budget], training.device(device)
    states, histories = {}, {}
    data = TASK.data(seeds, settings.batch, where)
    for name in (*ARRANGEMENTS, "hnn"):
        net = network(name, settings.alphas, seeds, settings.width, where)
        if progress:
            print(f"{name}: {net.S} networks, {settings.steps} steps", flush=True)
        histories[name] = training.fit(
            net,
            loss(name, settings.alphas, seeds, where),
            data,
            steps=settings.steps,
            lr=settings.lr,
            lr_end=settings.lr / 1000,
            warmup=settings.warmup,
            checkpoint=folder / f"checkpoint-{name}.safetensors",
            progress=progress,
        )
        states |= _split(name, net.state_dict(), len(settings.alphas))
    about = described(NAME, budget, settings, seeds, where, command, histories)
    artifacts.save_weights(folder, states, about)


def _split(name: str, state: dict[str, Tensor], rows: int) -> dict[str, dict[str, Tensor]]:
    """The weights row by row of the table, so that no file grows too large."""
    rows = 1 if name == "hnn" else rows
    parts = {key: x.chunk(rows) for key, x in state.items()}
    return {f"{name}-{k}": {key: x[k].clone() for key, x in parts.items()} for k in range(rows)}


def load(folder: Path | None = None) -> tuple[dict[str, Any], dict]:
    """The trained ensembles, one an arrangement, and `hnn`, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """
    folder = folder or artifacts.folder(NAME)
    states, about = artifacts.load_weights(folder, NAME)
    with artifacts.fitting(folder):
        settings, seeds = about["settings"], about["provenance"]["seeds"]
        alphas, networks = settings["alphas"], {}
        for name in (*ARRANGEMENTS, "hnn"):
            net = network(name, alphas, seeds, settings["width"])
            rows = [state for key, state in states.items() if key.split("-")[0] == name]
            net.load_state_dict(
                {key: torch.cat([r[key] for r in rows]) for key in states[f"{name}-0"]}
            )
            networks[name] = net
    return networks, about


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    `keep_curves` is there for the contract; the tables have none.
    """
    networks, about = load(folder)
    alphas, S = about["settings"]["alphas"], len(about["provenance"]["seeds"])
    rows = []
    for name, net in tqdm(networks.items(), desc="arrangements", disable=not progress):
        measured = _measured(net)
        if name == "hnn":
            rows += [_figure(name, what, HNN.get(what), x) for what, x in measured.items()]
            continue
        for k, (a_1, a_2) in enumerate(cells(alphas)):
            i, j = ALPHAS.index(a_2), ALPHAS.index(a_1)
            for what, x in measured.items():
                paper = TABLES[what][i][j] if what in TABLES else None
                cell = f"{name}, alpha_1 = {a_1:g}, alpha_2 = {a_2:g}"
                rows.append(_figure(cell, what, paper, x[k * S : (k + 1) * S]))
    return rows, about


MEANINGS = {
    "trajectory": "squared error of the states",
    "energy": "squared error of the true energy",
    "L": "squared error of the true angular momentum",
    "test loss": "squared error of the rates, eq. (6), mean over test states",
    "best ratio": "within/between-trajectory ratio of the best conserved learned P",
    "worst ratio": "within/between-trajectory ratio of the worst conserved learned P",
}


def _figure(cell: str, what: str, paper: float | None, ours: Tensor) -> Figure:
    meaning = MEANINGS[what]
    if what in TABLES:
        meaning += f", integrated to T = {TASK.T:g}, mean over {ROLLED} test trajectories"
        if cell.startswith(("circular", "poincare")):
            meaning += "; the paper's value is that of four cyclic coordinates, none an angle"
    # An orbit that a poor network throws into a near collision amplifies rounding.
    tolerance = 3.0 if what in TABLES else 1.2
    values = tuple(ours.tolist())
    return Figure(f"{cell}: {what}", meaning, "1", "lower", paper, None, values, tolerance)


def _measured(net: Any) -> dict[str, Tensor]:
    """Every measure of an ensemble, one value a member."""
    errors = TASK.errors(TASK.rollout(net, TASK.test[0, :ROLLED]))
    step = TASK.T / (TASK.points - 1)
    measured = {
        what: torch.trapezoid(errors[what].mean(-1), dim=0) * step
        for what in ("trajectory", "energy", "L")
    }
    measured["test loss"] = TASK.test_loss(net).mean(-1)
    if isinstance(net, SymmetryControlNetwork):
        ratio = conservation_ratio(TASK.momenta(net).transpose(1, 2)).sort(-1).values  # (S, n)
        measured |= {"best ratio": ratio[:, 0], "worst ratio": ratio[:, -1]}
    return measured
