r"""What the two experiments on real machines share: readings, units, models, training, forecasts.

A *reading* turns the file into states and rates. `file` is that of Greydanus et al. (2019) and
Syväri et al. (2021, B.7 and B.8): the file's positions and velocities, rates by central
differences of both. `smooth` uses positions alone, with polynomials through their neighbours.
Either way the file is cut in time first, so that no test point helps to make a training rate.

Networks see natural units: lengths in `Study.length`, times in `Study.time`. The same factor for
every position and the same for every velocity multiplies Omega by a number, so the map is
canonical up to the unit of the energy.

The length of the training is chosen for each model on the last fifth of the training part; then
the model is trained anew on all of it. The test part is touched by `evaluate` alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from companion import artifacts, datasets, measurements, training
from companion.canonical import SymmetryControlNetwork, Transformation
from companion.dissipation import DissipativeNetwork
from companion.experiments._lagrangian import described
from companion.measurements import Measurement
from companion.phase_space import Coordinates
from companion.smoothing import differences, local_polynomial
from companion.vectorfield import VectorField

ACTIVATION = "silu"
SHUFFLES = 8  # pairings of the test points


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: models, widths, the training lengths to choose from, learning rate.

    `alpha` weighs both losses that a symmetry control network adds, eqs. (7) and (8).
    """

    models: tuple[str, ...]
    lengths: tuple[int, ...] = (100, 300, 600)
    hidden: tuple[int, ...] = (32, 32)
    lr: float = 2e-2
    alpha: float = 1e-2

    @property
    def steps(self) -> int:
        """The most that a model is trained."""
        return max(self.lengths)


@dataclass(frozen=True)
class Model:
    """A model: its kind, its reading, whether it sees pairs, and the test loss of table 1.

    `kind` is `field`, `scnn` (with `n` cyclic coordinates), or the `damping` of a
    `DissipativeNetwork`: `none`, `constant`, `network`, with learned `masses` or without. Pairs of
    a trajectory's points are the states of two machines at once (B.8).
    """

    kind: str
    reading: str = "smooth"
    masses: bool = False
    pairs: bool = False
    n: int = 0
    paper: float | None = None


@dataclass(frozen=True)
class Points:
    """States and rates `(N, 2 d)` at times `t` `(N,)`, in natural units, float64."""

    t: Tensor
    z: Tensor
    zdot: Tensor


@dataclass(frozen=True)
class Study:
    """A machine, its units, its smoothing and its models; `angle` says that positions are angles.

    `window` is the half-width in s of the local polynomials, `degree` theirs. `law` fits the
    machine's textbook law to points. `relative` says in which of its two readings the paper's
    test loss is taken: relative to the variances, or in the file's units. `aim` is the smaller
    test loss of the paper.
    """

    name: str
    data: str
    models: Mapping[str, Model]
    settings: Mapping[str, Settings]
    length: float
    time: float
    window: float
    degree: int
    law: Callable[[Points], Any]
    relative: bool
    aim: float
    angle: bool = False

    # Data -----------------------------------------------------------------------------------------

    def measured(self, stand_in: bool = False) -> Measurement:
        """The measurements. ValueError if only the stand-in is there and not `stand_in`."""
        data = measurements.load(self.data)
        if data.simulated and not stand_in:
            raise ValueError(
                f"the figures of {self.name} are about measurements, and these are not here: name "
                f"the folder with {measurements.SOURCES[self.data].file} in "
                f"{measurements.FOLDER}, or run with a network"
            )
        return data

    def points(self, data: Measurement, reading: str) -> Points:
        """States and rates of a part of the data. ValueError for an unknown reading."""
        if reading in ("file", "forward"):
            z = torch.cat([data.q, data.v], 1)
            t, z, zdot = differences(data.t, z, one_sided=reading == "forward")
        elif reading == "smooth":
            s = local_polynomial(data.t, data.q, self.window, self.degree)
            t, z, zdot = s.t, torch.cat([s.x, s.xdot], 1), torch.cat([s.xdot, s.xddot], 1)
        else:
            raise ValueError(f"reading = {reading!r}; expected 'file', 'forward' or 'smooth'")
        unit = self.units(data.d)
        return Points(t / self.time, z / unit, zdot / unit * self.time)

    def units(self, d: int) -> Float[Tensor, " two_d"]:
        """The natural units of a state, in the file's."""
        each = [self.length] * d + [self.length / self.time] * d
        return torch.tensor(each, dtype=torch.float64)

    # Networks -------------------------------------------------------------------------------------

    def network(
        self, name: str, settings: Settings, seeds: Sequence[int], device: torch.device | str
    ) -> Any:
        """An untrained network of a model."""
        model = self.models[name]
        d = len(measurements.SOURCES[self.data].columns) // 2 * (1 + model.pairs)
        angles = tuple(range(d)) if self.angle else ()
        same: dict[str, Any] = {"seeds": seeds, "device": device}
        if model.kind == "field":
            layer = Coordinates(d, angles)
            return VectorField(layer, d, settings.hidden, ACTIVATION, **same)
        if model.kind == "scnn":
            T = Transformation(d, settings.hidden, ACTIVATION, angles=angles, **same)
            return SymmetryControlNetwork(T, model.n, hidden=settings.hidden, activation=ACTIVATION)
        return DissipativeNetwork(
            d,
            settings.hidden,
            ACTIVATION,
            angles=angles,
            damping=model.kind,
            masses=model.masses,
            **same,
        )

    def fit(
        self,
        name: str,
        data: Measurement,
        settings: Settings,
        seeds: Sequence[int],
        steps: int,
        device: torch.device | str = "cpu",
        checkpoint: Path | None = None,
        progress: bool = False,
    ) -> tuple[Any, training.History]:
        """A model trained on this part of the data for `steps` steps, all seeds at once."""
        model = self.models[name]
        points = self.points(data, model.reading)
        net = self.network(name, settings, seeds, device)
        scale = points.zdot.std(0)
        batch = Batches(points, seeds, model.pairs, device)
        if model.pairs:
            scale = paired(scale, scale)
        net.standardise(batch(0)[0])
        scale = scale.to(device=device, dtype=torch.float32)

        def loss(net: Any, z: Tensor, zdot: Tensor) -> Tensor:
            error = ((net(z) - zdot) / scale).square().mean((-2, -1))
            if model.kind == "scnn":
                more = net.losses(z, zdot)
                error = error + settings.alpha * (more.poisson + more.cyclic)
            return error

        history = training.fit(
            net,
            loss,
            batch,
            steps=steps,
            lr=settings.lr,
            lr_end=settings.lr / 1000,
            warmup=min(50, steps // 10),
            checkpoint=checkpoint,
            progress=progress,
        )
        return net, history

    def choose(
        self,
        name: str,
        data: Measurement,
        settings: Settings,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        folder: Path | None = None,
    ) -> dict[int, float]:
        """The validation loss of each training length: trained on four fifths of `data`, judged on
        the last."""
        early, late = data.split()
        losses = {}
        for steps in settings.lengths:
            place = None if folder is None else folder / f"checkpoint-{name}-{steps}.safetensors"
            net, _ = self.fit(name, early, settings, seeds, steps, device, place)
            losses[steps] = self.relative_loss(name, net, late).mean().item()
        return losses

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
        settings, where = self.settings[budget], training.device(device)
        past, _ = self.measured().split()
        states, histories, chosen = {}, {}, {}
        for name in settings.models:
            losses = self.choose(name, past, settings, seeds, where, folder)
            steps = min(losses, key=lambda k: losses[k])
            if progress:
                tried = ", ".join(f"{k}: {x:.4f}" for k, x in losses.items())
                print(f"{name}: validation loss {tried}; {len(seeds)} seeds, {steps} steps")
            checkpoint = folder / f"checkpoint-{name}.safetensors"
            net, history = self.fit(name, past, settings, seeds, steps, where, checkpoint, progress)
            states[name], histories[name], chosen[name] = net.state_dict(), history, losses
        about = described(self.name, budget, settings, seeds, where, command, histories)
        about["validation"] = {
            name: {str(k): float(f"{x:.4g}") for k, x in losses.items()}
            for name, losses in chosen.items()
        }
        artifacts.save_weights(folder, states, about)

    def load(self, folder: Path | None = None) -> tuple[dict[str, Any], dict]:
        """The trained networks by model, and what is known about them. Needs no data.

        `folder` is a run's folder; None means the artifact in the package. Raises ValueError if
        the weights are missing, damaged, or not of this experiment.
        """

        def untrained(about: dict) -> Iterator[tuple[str, Any]]:
            settings = artifacts.as_settings(Settings, about["settings"])
            for name in settings.models:
                yield name, self.network(name, settings, about["provenance"]["seeds"], "cpu")

        return artifacts.load_networks(self.name, folder, untrained)

    # What a trained network does ------------------------------------------------------------------

    @torch.no_grad()
    def test_losses(
        self, name: str, net: Any, data: Measurement, reading: str
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
        """The mean square error of the rates, means over points and components: first each
        component over its variance, then as it is in the file's units (Greydanus et al. 2019)."""
        points = self.points(data, reading)
        z, zdot = points.z, points.zdot
        if name in self.models and self.models[name].pairs:  # each point beside `SHUFFLES` others
            draw = torch.Generator().manual_seed(0)
            rows = [torch.randperm(len(z), generator=draw) for _ in range(SHUFFLES)]
            z = torch.cat([paired(z, z[i]) for i in rows])
            zdot = torch.cat([paired(zdot, zdot[i]) for i in rows])
        like = next(net.parameters(), z)
        square = (net(z.to(like)).double() - zdot).square().mean(1)
        unit = self.units(z.shape[-1] // 2) / self.time
        relative = square / zdot.var(0, correction=0)
        return relative.mean(-1), (square * unit.square()).mean(-1)

    def relative_loss(self, name: str, net: Any, data: Measurement) -> Float[Tensor, " S"]:
        """The part of the variance of the rates that a model misses, mean over components."""
        return self.test_losses(name, net, data, self.models[name].reading)[0]


class Batches:
    """All points at every step; where `pairs`, each point beside another one, drawn anew."""

    def __init__(
        self, points: Points, seeds: Sequence[int], pairs: bool, device: torch.device | str
    ) -> None:
        S = len(seeds)
        self.z, self.zdot = (
            x.to(device=device, dtype=torch.float32).expand(S, *x.shape)
            for x in (points.z, points.zdot)
        )
        self.seeds, self.pairs = list(seeds), pairs

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """States and rates `(S, N, 2 d)` of a step, or of twice as many degrees of freedom."""
        if not self.pairs:
            return self.z, self.zdot
        rows = torch.stack(
            [
                torch.randperm(
                    self.z.shape[1],
                    generator=torch.Generator().manual_seed(datasets._mix(seed, step)),
                )
                for seed in self.seeds
            ]
        ).to(self.z.device)
        index = rows[..., None].expand(self.z.shape)
        z, zdot = (paired(x, x.gather(1, index)) for x in (self.z, self.zdot))
        return z, zdot


def paired(a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch n"]) -> Tensor:
    """The state of two machines at once: all positions, then all velocities."""
    (q, v), (r, w) = a.chunk(2, dim=-1), b.chunk(2, dim=-1)
    return torch.cat([q, r, v, w], dim=-1)
