r"""What the systems of Syväri et al. (2021) share: data, models, losses, measures of table 1.

Every model of a task sees the same states and rates, in the same batches, for the same number of
steps, unless its `Model` says otherwise: `longer` gives a Hamiltonian network the wall time that a
symmetry control network takes. What differs from the paper, in every model alike: SOAP instead of
the unnamed optimiser, smooth silu instead of tanh, a linear part in the transformation, a
network of each seed on trajectories of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, datasets, integrators, symbolic, training
from companion.artifacts import Figure
from companion.canonical import SymmetryControlNetwork, Transformation
from companion.experiments._lagrangian import train_and_save
from companion.formulas import conservation_ratio
from companion.hamiltonian import HamiltonianNetwork
from companion.phase_space import Coordinates
from companion.systems import System
from companion.vectorfield import VectorField

ACTIVATION = "silu"
ROLLED = 50  # test trajectories that are integrated, as in figure 3
STEP = 0.05  # RK4, at most: for networks


@dataclass(frozen=True)
class Model:
    """One model of a task.

    `kind` is `baseline` (rates directly), `hnn`, `scnn` (learned transformation) or `exact`
    (canonical by construction). `n` is the number of cyclic coordinates, `circular` says which of
    them are angles, `alpha_1`, `alpha_2` and `beta` weigh eqs. (7) and (8). `imposed` names known
    charges whose brackets with H are added to the loss of a Hamiltonian network, with weight
    `alpha_1`. `steps` multiplies the budget's steps. `make` builds an exact map from seeds.
    """

    kind: str
    n: int = 0
    circular: tuple[int, ...] = ()
    alpha_1: float = 1.0
    alpha_2: float = 1.0
    beta: float = 1.0
    pairs: str = "cyclic"
    imposed: tuple[str, ...] = ()
    steps: float = 1.0
    make: Callable[[Sequence[int], int], Any] | None = None


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: steps, states in a batch, the rate and its warm-up, width, models."""

    steps: int
    models: tuple[str, ...]
    batch: int = 128
    lr: float = 1e-2
    warmup: int = 100
    width: int = 64


@dataclass(frozen=True)
class Paper:
    """A row of table 1: test loss, trajectory and energy, for SCNN and HNN.

    The factor in the row's label holds for the whole row; then the two-body HNN agrees with
    appendix D.
    """

    scnn: tuple[float | None, float | None, float | None] = (None, None, None)
    hnn: tuple[float | None, float | None, float | None] = (None, None, None)


@dataclass(frozen=True)
class Task:
    """A system, its data and its models; `angles` are the positions that are angles.

    `trajectories` a member for training and `tested` common ones, of `points` states each from 0 to
    `T`. `aim` is for the test loss of every network with cyclic coordinates.
    """

    name: str
    system: System
    models: Mapping[str, Model]
    settings: Mapping[str, Settings]
    trajectories: int
    tested: int
    points: int
    T: float
    paper: Paper = field(default_factory=Paper)
    angles: tuple[int, ...] = ()
    aim: float | None = None

    # Networks and their training ------------------------------------------------------------------

    def data(
        self, seeds: Sequence[int], batch: int = 128, device: torch.device | str = "cpu"
    ) -> datasets.Rates:
        """The training data of these seeds."""
        return datasets.Rates(
            self.system, seeds, self.trajectories, self.points, self.T, batch, device=device
        )

    @cached_property
    def scale(self) -> Tensor:
        """States that every network's features are standardised on."""
        few = min(self.trajectories, 200)
        return datasets.Rates(self.system, [2**20], few, self.points, self.T).data[0].flatten(0, 1)

    def network(
        self,
        name: str,
        seeds: Sequence[int],
        width: int = 64,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        """An untrained network of a model, its features standardised."""
        model, d = self.models[name], self.system.d
        hidden = (width, width)
        same = {"seeds": seeds, "dtype": dtype, "device": device}
        if model.kind in ("baseline", "hnn"):
            cls = VectorField if model.kind == "baseline" else HamiltonianNetwork
            layer = Coordinates(d, self.angles)
            net: Any = cls(layer, d, hidden, ACTIVATION, **same)
        else:
            if model.make is not None:
                T = model.make(seeds, width).to(device=device, dtype=dtype)
            else:
                T = Transformation(d, hidden, ACTIVATION, angles=self.angles, **same)
            net = SymmetryControlNetwork(T, model.n, model.circular, hidden, ACTIVATION)
        net.standardise(self.scale.to(device=device, dtype=dtype))
        return net

    def loss(self, name: str) -> Callable[..., Tensor]:
        """The loss of a model: eq. (9), or what is left of it."""
        model = self.models[name]
        if model.kind == "scnn":

            def controlled(net: SymmetryControlNetwork, z: Tensor, zdot: Tensor) -> Tensor:
                part = net.losses(z, zdot, model.beta, model.pairs)
                return part.hnn + model.alpha_1 * part.poisson + model.alpha_2 * part.cyclic

            return controlled

        gradients = self.charge_gradients(model.imposed) if model.imposed else None

        def plain(net: torch.nn.Module, z: Tensor, zdot: Tensor) -> Tensor:
            rate = net(z)
            error = (rate - zdot).square().sum(-1)
            if gradients is not None:
                C_dot = (gradients(z) @ rate[..., None]).squeeze(-1)
                error = error + model.alpha_1 * C_dot.square().sum(-1)
            return error.mean(-1)

        return plain

    def charge_gradients(self, names: Sequence[str]) -> Callable[[Tensor], Tensor]:
        r"""The gradients $\nabla C_k$ `(..., k, 2 d)` of known charges: $\{C, \mathcal H\}$ is
        their product with the learned rate."""
        z = [*self.system.q, *self.system.p]
        rows = [[self.system.phase_charge_expressions[k].diff(x) for x in z] for k in names]
        return symbolic.to_torch(rows, [z], self.system.values)

    def train_model(
        self,
        name: str,
        budget: str = "demo",
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        device: str = "auto",
        checkpoint: Path | None = None,
        progress: bool = True,
        **changes: Any,
    ) -> tuple[Any, training.History]:
        """Trains a model, all seeds at once; `changes` replace settings of the budget."""
        settings = replace(self.settings[budget], **changes)
        where = training.device(device)
        net = self.network(name, seeds, settings.width, where)
        history = training.fit(
            net,
            self.loss(name),
            self.data(seeds, settings.batch, where),
            steps=round(settings.steps * self.models[name].steps),
            lr=settings.lr,
            lr_end=settings.lr / 1000,
            warmup=settings.warmup,
            checkpoint=checkpoint,
            progress=progress,
        )
        return net, history

    def train(
        self,
        budget: str,
        seeds: Sequence[int],
        device: str,
        folder: Path,
        command: str,
        progress: bool = True,
    ) -> None:
        """Trains every model of the budget and writes the weights; resumes a run that was
        stopped."""
        settings = self.settings[budget]
        steps = {k: round(settings.steps * self.models[k].steps) for k in settings.models}
        train_and_save(
            self.name,
            self.train_model,
            settings,
            steps,
            budget,
            seeds,
            device,
            folder,
            command,
            progress,
        )

    def load(self, folder: Path | None = None) -> tuple[dict[str, Any], dict]:
        """The trained networks by model, and what is known about them.

        `folder` is a run's folder; None means the artifact in the package. Raises ValueError if
        the weights are missing, damaged, or not of this experiment.
        """

        def untrained(about: dict) -> Iterator[tuple[str, Any]]:
            settings, seeds = about["settings"], about["provenance"]["seeds"]
            for name in settings["models"]:
                yield name, self.network(name, seeds, settings["width"])

        return artifacts.load_networks(self.name, folder, untrained)

    # What a trained network does ------------------------------------------------------------------

    @cached_property
    def test(self) -> Float[Tensor, "points tested two_d"]:
        """The test trajectories, the same for all models and seeds, in float64."""
        z = self.system.sample_phase(self.tested, torch.Generator().manual_seed(2**21))
        return datasets.phase_trajectories(self.system, z, self.points, self.T)

    @torch.no_grad()
    def test_loss(self, net: Any) -> Float[Tensor, "S tested"]:
        """Eq. (6), averaged along each test trajectory."""
        like = next(net.parameters())
        error = [
            (net(z.to(like)) - self.system.flow(z).to(like)).square().sum(-1) for z in self.test
        ]
        return torch.stack(error).mean(0).double()

    @torch.no_grad()
    def rollout(
        self,
        net: Any,
        z: Float[Tensor, "B two_d"],
        points: int | None = None,
        T: float | None = None,
    ) -> Float[Tensor, "points S B two_d"]:
        """Trajectories of all members from the same states, by RK4 with steps of 0.05 or less."""
        points, T = points or self.points, T or self.T
        every = max(1, -int(-T / (points - 1) // STEP))
        like = next(net.parameters())
        start = z.to(like).expand(net.S, *z.shape)
        dt = T / (points - 1) / every
        return integrators.solve(net.field(), start, dt, every * (points - 1), every=every)

    def errors(self, path: Float[Tensor, "points S B two_d"]) -> dict[str, Tensor]:
        """Squared errors along trajectories from the first test states, `(points, S, B)`:
        of the state, of the energy, and of each known charge."""
        path, true = path.double(), self.test[:, None, : path.shape[2]]
        system = self.system
        wrong = {
            "trajectory": (path - true).square().sum(-1),
            "energy": (system.hamiltonian(path) - system.hamiltonian(true)).square(),
        }
        if system.phase_charge_expressions:
            change = (system.phase_charges(path) - system.phase_charges(true)).square()
            wrong |= dict(zip(system.phase_charge_expressions, change.unbind(-1), strict=True))
        return {name: x.nan_to_num(nan=torch.inf, posinf=torch.inf) for name, x in wrong.items()}

    @torch.no_grad()
    def momenta(self, net: SymmetryControlNetwork) -> Float[Tensor, "points S tested n"]:
        """The learned conserved momenta along the true test trajectories."""
        z = self.test.to(next(net.parameters()))
        return torch.stack([net.charges(row) for row in z]).double()

    def evaluate(
        self, folder: Path | None = None, progress: bool = False, keep_curves: bool = False
    ) -> tuple[list[Figure], dict]:
        """Recomputes every figure from the stored weights; returns them and the facts of the run.

        With `keep_curves` the curves of figure 3 are written beside the weights.
        """
        networks, about = self.load(folder)
        rows, curves = [], {"t": torch.linspace(0, self.T, self.points), "true.z": self.test[:, :3]}
        for name, net in tqdm(networks.items(), desc="models", disable=not progress):
            path = self.rollout(net, self.test[0, :ROLLED])
            errors = self.errors(path)
            curves[f"{name}.z"] = path[:, :, :3]
            for what, error in errors.items():
                curves[f"{name}.{what}"] = error.mean(-1)
            rows += self._figures(name, net, errors)
        if keep_curves:
            place = folder or artifacts.folder(self.name)
            artifacts.save_curves(place, {k: x.float() for k, x in curves.items()})
        return rows, about

    def _figures(self, name: str, net: Any, errors: dict[str, Tensor]) -> list[Figure]:
        """The rows of one model."""
        of_paper = {"scnn": self.paper.scnn, "hnn": self.paper.hnn}.get(name, (None,) * 3)
        aim = self.aim if self.models[name].n else None
        along = f"integrated over time from 0 to {self.T:g}, mean over {ROLLED} test trajectories"

        def integrated(error: Tensor) -> tuple[float, ...]:
            area = torch.trapezoid(error.mean(-1), dx=self.T / (self.points - 1), dim=0)
            return tuple(area.nan_to_num(nan=torch.inf, posinf=torch.inf).tolist())

        loss = "squared error of the rates, eq. (6), summed over coordinates, mean over test states"
        median = "the same, the median over test trajectories: without the few violent ones"
        by_path = self.test_loss(net)
        state = f"squared error of the states, {along}"
        energy = f"squared error of the true energy, {along}"
        rows: list[tuple] = [
            ("test loss", loss, of_paper[0], aim, tuple(by_path.mean(-1).tolist()), 1.1),
            ("median loss", median, None, None, tuple(by_path.median(-1).values.tolist()), 1.1),
            ("trajectory", state, of_paper[1], None, integrated(errors["trajectory"]), 1.5),
            ("energy", energy, of_paper[2], None, integrated(errors["energy"]), 1.5),
        ]
        for charge in self.system.phase_charge_expressions:
            meaning = f"squared error of the true {charge}, {along}"
            rows.append((charge, meaning, None, None, integrated(errors[charge]), 1.5))
        if self.models[name].n:
            rows += self._conservation(net)
        return [
            Figure(f"{name}: {what}", meaning, "1", "lower", paper, aim, ours, tolerance)
            for what, meaning, paper, aim, ours, tolerance in rows
        ]

    def _conservation(self, net: SymmetryControlNetwork) -> list[tuple]:
        """How well the momenta are conserved along true trajectories, and the brackets kept."""
        ratio = conservation_ratio(self.momenta(net).transpose(1, 2)).sort(-1).values
        z = self.test[::5, :ROLLED].flatten(0, 1).to(next(net.parameters()))
        with torch.no_grad():
            poisson = net.losses(z, self.system.flow(z)).poisson
        meaning = (
            "spread of a learned momentum along true trajectories, divided by its spread over all "
            "test states; 0 for a conserved one"
        )
        rows: list[tuple] = [
            (f"ratio of P, {word}", meaning, None, None, tuple(ratio[:, k].tolist()), 1.3)
            for word, k in (("best", 0), ("worst", -1))
        ]
        rows.append(
            (
                "brackets",
                "squared error of the brackets of the cyclic pairs, eq. (7), mean over test states",
                None,
                None,
                tuple(poisson.double().tolist()),
                1.3,
            )
        )
        return rows
