r"""What the experiments on argon share: data, models, training, test error, molecular dynamics.

The system, the network and the split of the data are those of Ma & Chan (2022), section 4. What
differs, in every model alike: minibatches and SOAP instead of full batches and FIRE, a residue
a = 1 of the activation (the paper does not give its own), a member's 60,000 configurations are its
own, and the 20,000 of the test set are the same for all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, training
from companion.artifacts import Figure
from companion.configurations import Configurations
from companion.experiments._lagrangian import train_and_save
from companion.systems import argon
from companion.systems.argon import Argon

TRAINED, TESTED = 60_000, 20_000  # configurations: of each member, common to all
SAMPLES, TEMPERATURE, STEPS = 10, 10.0, 4000  # of molecular dynamics, section 4.3
VALIDATION, TEST = 2**21, 2**21 + 1  # seeds of the configurations that choices and results rest on
EARLY = 1500  # steps after which figure 5 is still "fairly good"
EVERY = 10  # fs between two states that are compared


@dataclass(frozen=True)
class Model:
    """One model of a task: `make(seeds=...)` is the untrained network; with `permute` it is trained
    on minibatches with renamed atoms. `steps` and `data` multiply the budget's steps and
    configurations, `lr` is the highest rate. `paper` and `aim` are of its test error in
    eV/angstrom.
    """

    make: Callable[..., Any]
    permute: bool = False
    steps: float = 1.0
    data: float = 1.0
    lr: float = 1e-2
    batch: int = 256
    paper: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: steps, configurations of a member, models."""

    steps: int
    models: tuple[str, ...]
    configurations: int = TRAINED


def loss(
    net: Any,
    r: Float[Tensor, "S B N 3"],
    F: Float[Tensor, "S B N 3"],
    w: Float[Tensor, "S B"],
) -> Float[Tensor, " S"]:
    """Weighted mean square error of a component of the force, in units of (0.1 eV/angstrom)^2."""
    return 100 * ((net.forces(r) - F).square().mean((2, 3)) * w).mean(1)


@dataclass(frozen=True)
class Task:
    """A system of atoms and the models that learn its forces.

    `dynamics` says whether `evaluate` runs molecular dynamics with every model, `drawn` which
    configurations it is tested on: recipes were chosen on those of `VALIDATION`.
    """

    name: str
    system: Argon
    models: Mapping[str, Model]
    settings: Mapping[str, Settings]
    dynamics: bool = True
    drawn: int = TEST

    # Networks and their training ------------------------------------------------------------------

    @cached_property
    def sample(self) -> Configurations:
        """Configurations that every network is standardised on."""
        return Configurations(self.system, [2**20], 10_000)

    def network(self, name: str, seeds: Sequence[int], device: torch.device | str = "cpu") -> Any:
        """An untrained network of a model, its units set."""
        net = self.models[name].make(seeds=seeds)
        net.standardise(self.sample.r, self.sample.F)
        return net.to(device)

    def train_model(
        self,
        name: str,
        budget: str = "demo",
        seeds: Sequence[int] = (0, 1, 2),
        device: str = "auto",
        checkpoint: Path | None = None,
        progress: bool = True,
        **changes: Any,
    ) -> tuple[Any, training.History]:
        """Trains a model, all seeds at once; `changes` replace settings of the budget."""
        settings, model = replace(self.settings[budget], **changes), self.models[name]
        where = training.device(device)
        steps = max(1, round(settings.steps * model.steps))
        net, many = self.network(name, seeds, where), round(settings.configurations * model.data)
        data = Configurations(self.system, seeds, many, model.batch, model.permute, device=where)
        history = training.fit(
            net,
            loss,
            data,
            steps=steps,
            lr=model.lr,
            lr_end=model.lr / 1000,
            warmup=steps // 20,
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
                yield name, self.network(name, seeds)

        return artifacts.load_networks(self.name, folder, untrained)

    # What a trained network does ------------------------------------------------------------------

    @cached_property
    def test(self) -> tuple[Float[Tensor, "n N 3"], Float[Tensor, "n N 3"]]:
        """The test configurations and their forces, the same for all models, in float64."""
        r = self.system.sample(TESTED, torch.Generator().manual_seed(self.drawn))
        return r, self.system.forces(r)

    @cached_property
    def path(self) -> argon.Path:
        """The exact trajectories of section 4.3, `(T, SAMPLES, N, 3)`, in float64."""
        return self.rollout(self.system.forces)

    def rollout(self, forces: Callable[[Tensor], Tensor]) -> argon.Path:
        """4000 steps of 1 fs from the paper's positions, ten draws of velocities at 10 K."""
        r = self.system.start.double().expand(SAMPLES, -1, -1)
        generator = torch.Generator().manual_seed(2**22)
        v = self.system.velocities(SAMPLES, TEMPERATURE, generator)
        return self.system.rollout(forces, r, v, steps=STEPS, every=EVERY)

    @torch.no_grad()
    def errors(
        self, net: Any, r: Float[Tensor, "n N 3"], F: Float[Tensor, "n N 3"]
    ) -> Float[Tensor, "S n N 3"]:
        """Errors of the forces at these configurations, in eV/angstrom."""
        like = next(net.parameters())
        parts = zip(r.split(2000), F.split(2000), strict=True)
        return torch.cat([net.forces(r.to(like)) - F.to(like) for r, F in parts], dim=1).double()

    def evaluate(
        self, folder: Path | None = None, progress: bool = False, keep_curves: bool = False
    ) -> tuple[list[Figure], dict]:
        """Recomputes every figure from the stored weights; returns them and the facts of the run.

        With `keep_curves` the curves of figures 4 to 7 are written beside the weights.
        """
        networks, about = self.load(folder)
        rows: list[Figure] = []
        curves: dict[str, Tensor] = {}
        if self.dynamics:
            true = self.path
            curves = {"t": true.t, "true.x": true.r[:, 0, 0, 0]}
            curves["true.energy"] = self.system.total_energy(true.r, true.v)[:, 0]
        for name, net in tqdm(networks.items(), desc="models", disable=not progress):
            rows += self._accuracy(name, net)
            if self.dynamics:
                rows += self._dynamics(name, net, curves)
        if keep_curves and curves:
            place = folder or artifacts.folder(self.name)
            artifacts.save_curves(place, {k: x.float() for k, x in curves.items()})
        return rows, about

    def _accuracy(self, name: str, net: Any) -> list[Figure]:
        """The test error of one model, and its size."""
        model = self.models[name]
        error = self.errors(net, *self.test)
        meaning = (
            f"root mean square error of a component of the force, {TESTED:,} test sets of atoms"
        )
        values = rms(error, (1, 2, 3))
        size = Figure(
            f"{name}: parameters",
            "trained parameters of one network",
            "count",
            "lower",
            None,
            None,
            (float(net.size),),
            1.0,
        )
        test = Figure(
            f"{name}: test RMSD", meaning, "eV/A", "lower", model.paper, model.aim, values, 1.1
        )
        return [test, size]

    def _dynamics(self, name: str, net: Any, curves: dict[str, Tensor]) -> list[Figure]:
        """Molecular dynamics with one model, beside the exact trajectories."""
        net, true = net.double(), self.path
        on_path = self.errors(net, true.r.flatten(0, 1), self.system.forces(true.r).flatten(0, 1))
        path = self.rollout(net.forces)
        away = (path.r - true.r[:, None]).square().sum(-1).mean((-2, -1)).sqrt()  # (T, S), eq. 47
        energy = self.system.total_energy(path.r, path.v)
        exact = self.system.total_energy(true.r, true.v)
        wrong = (energy - exact[:, None]).square().mean(-1).sqrt()  # (T, S), eq. 48
        drift = (energy - energy[0]).abs().amax((0, 2))
        momentum = self.system.momentum(path.v).norm(dim=-1).amax((0, 2))
        curves |= {
            f"{name}.position": away,
            f"{name}.energy": wrong,
            f"{name}.x": path.r[:, :, 0, 0, 0],
            f"{name}.energy of sample 1": energy[:, :, 0],
        }
        late = f"after {STEPS} fs"
        rows: list[tuple] = [
            (
                "on-path RMSD",
                "root mean square error of a component of the force along the exact trajectories",
                "eV/A",
                None,
                None,
                rms(on_path, (1, 2, 3)),
                1.1,
            ),
            (
                f"position RMSD at {EARLY}",
                f"deviation of an atom from the exact trajectory after {EARLY} fs, eq. (47)",
                "A",
                None,
                None,
                away[EARLY // EVERY],
                1.5,
            ),
            (
                f"position RMSD at {STEPS}",
                f"deviation of an atom from the exact trajectory {late}, eq. (47)",
                "A",
                None,
                None,
                away[-1],
                1.5,
            ),
            (
                f"energy RMSD at {STEPS}",
                f"deviation of the true energy {late}, eq. (48)",
                "eV",
                4e-4,
                1e-4,
                wrong[-1],
                1.5,
            ),
            (
                "energy drift",
                f"largest change of the true energy within {STEPS} fs, over ten samples",
                "eV",
                None,
                None,
                drift,
                1.5,
            ),
        ]
        if float(momentum.max()) > 1e-9:  # else it is rounding, and its sum of forces is zero
            rows.append(
                (
                    "momentum drift",
                    f"largest total momentum within {STEPS} fs, ten samples that start at rest",
                    "u A/fs",
                    None,
                    None,
                    momentum,
                    1.5,
                )
            )
        if hasattr(net, "energy"):
            with torch.no_grad():
                kinetic = self.system.kinetic(path.v)
                own = kinetic + torch.stack([net.energy(r) for r in path.r])
            rows.append(
                (
                    "own energy drift",
                    f"largest change of kinetic plus learned energy within {STEPS} fs, ten samples",
                    "eV",
                    None,
                    1e-6,
                    (own - own[0]).abs().amax((0, 2)),
                    1.5,
                )
            )
        return [
            Figure(
                f"{name}: {what}",
                meaning,
                unit,
                "lower",
                paper,
                aim,
                tuple(float(x) for x in ours),
                tolerance,
            )
            for what, meaning, unit, paper, aim, ours, tolerance in rows
        ]


def rms(x: Tensor, dim: tuple[int, ...]) -> tuple[float, ...]:
    """Root mean squares over `dim`, as a figure wants them."""
    return tuple(x.square().mean(dim).sqrt().tolist())
