r"""What the three experiments of Müller (2023) share: settings, loss, training, rollouts.

Each is a `Study`: a system, its data, and Lagrangian networks that differ in their first layer.

What differs from the paper, in all three: a fixed kinetic term beside the network and a small last
layer, so that the Hessian starts regular; features standardised; an error relative to the
acceleration instead of an absolute one, because input noise grows with the acceleration; SOAP
instead of Adam and a batch that grows. Data, network width and depth, activation and noise are the
paper's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from companion import artifacts, datasets, metrics, symbolic, training
from companion.invariants import Layer
from companion.lagrangian import LagrangianNetwork
from companion.systems.base import System

PERTURBATION = 1e-3  # of the starts whose distance figures 5, 8 and 11 follow


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: hidden widths, steps, batch, noise, learning rates, warm-up.

    From step `grow_at` on the batch is `batch_end`: early steps are limited by the optimiser, late
    ones by the noise of the data.
    """

    hidden: tuple[int, ...] = (128, 128)
    steps: int = 16_000
    batch: int = 128
    batch_end: int = 1024
    grow_at: int = 10_000
    sigma: float = 1e-3
    lr: float = 3e-3
    lr_end: float = 3e-6
    warmup: int = 1000


def relative_error(
    net: Any,
    q: Float[Tensor, "S B d"],
    qdot: Float[Tensor, "S B d"],
    qddot: Float[Tensor, "S B d"],
) -> Float[Tensor, "S B"]:
    r"""$\log(1 + e)$ of every measurement, $e = |\ddot q_{NN} - \ddot q|^2 / (|\ddot q|^2 + 0.01)$.

    For the small errors that matter it is the relative square error. The logarithm keeps a sample
    with a nearly singular Hessian, early in training, from ruling the step. `net` is any network
    with an `acceleration(q, qdot, check=False)`.
    """
    error = (net.acceleration(q, qdot, check=False) - qddot).square().sum(-1)
    return torch.log1p(error / (qddot.square().sum(-1) + 0.01))


def loss(
    net: LagrangianNetwork,
    q: Float[Tensor, "S B d"],
    qdot: Float[Tensor, "S B d"],
    qddot: Float[Tensor, "S B d"],
) -> Float[Tensor, " S"]:
    """The mean of `relative_error` over the batch."""
    return relative_error(net, q, qdot, qddot).mean(-1)


@dataclass(frozen=True)
class Study:
    """A system and the networks that learn it.

    `variants` make the first layers, `mass` the fixed kinetic term, `settings` belong to the
    budgets. Rollouts begin at `start` and go to time `T` in steps `dt`, every `keep` units of time
    kept. `states` makes the sampler of training states (None: the system's own).
    """

    name: str
    system: System
    variants: Mapping[str, Callable[[], Layer]]
    mass: Sequence[float]
    settings: Mapping[str, Settings]
    start: Callable[[], tuple[Tensor, Tensor]]
    dt: float
    T: float
    keep: float
    states: Callable[[], Callable[..., tuple[Tensor, Tensor]]] | None = None

    @cached_property
    def sampler(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """Draws states of the training data."""
        return self.system.sample if self.states is None else self.states()

    def measurements(
        self, seeds: Sequence[int], batch: int, sigma: float, device: torch.device | str = "cpu"
    ) -> datasets.NoisyMeasurements:
        """The training data of these seeds."""
        return datasets.NoisyMeasurements(
            self.system, seeds, batch, sigma, device=device, states=self.sampler
        )

    def network(
        self,
        variant: str,
        settings: Settings,
        seeds: int | Sequence[int] = 1,
        device: torch.device | str = "cpu",
    ) -> LagrangianNetwork:
        """An untrained network of a variant, its features standardised on noisy measurements."""
        layer = self.variants[variant]()
        net = LagrangianNetwork(
            layer, settings.hidden, seeds=seeds, mass=self.mass, output_scale=0.01, device=device
        )
        q, qdot, _ = self.measurements([2**20], 10_000, settings.sigma, device)(0)
        net.standardise(q[0], qdot[0])
        return net

    def train_variant(
        self,
        variant: str,
        budget: str = "demo",
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        device: str = "auto",
        checkpoint: Path | None = None,
        progress: bool = True,
        **changes,
    ) -> tuple[LagrangianNetwork, training.History]:
        """Trains one variant, all seeds at once; `changes` replace settings of the budget."""
        settings = replace(self.settings[budget], **changes)
        where = training.device(device)
        net = self.network(variant, settings, seeds, where)
        measure, measure_more = (
            self.measurements(seeds, batch, settings.sigma, where)
            for batch in (settings.batch, settings.batch_end)
        )
        history = training.fit(
            net,
            loss,
            lambda step: (measure if step < settings.grow_at else measure_more)(step),
            steps=settings.steps,
            lr=settings.lr,
            lr_end=settings.lr_end,
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
        """Trains every variant and writes the weights to `folder`; resumes a run that was
        stopped.
        """
        settings = self.settings[budget]
        steps = dict.fromkeys(self.variants, settings.steps)
        states, histories = trained(
            self.train_variant, steps, budget, seeds, device, folder, progress
        )
        where = training.device(device)
        about = described(self.name, budget, settings, seeds, where, command, histories)
        artifacts.save_weights(folder, states, about)

    def load(self, folder: Path | None = None) -> tuple[dict[str, LagrangianNetwork], dict]:
        """The trained networks by variant, and what is known about them.

        `folder` is a run's folder; None means the artifact in the package. Raises ValueError if
        the weights are missing, damaged, or not of this experiment.
        """

        def untrained(about: dict) -> Iterator[tuple[str, LagrangianNetwork]]:
            settings = artifacts.as_settings(Settings, about["settings"])
            for variant in self.variants:
                yield variant, self.network(variant, settings, about["provenance"]["seeds"])

        return artifacts.load_networks(self.name, folder, untrained)

    # What a trained network does ---------------------------------------------------------------

    def starts(self) -> tuple[Float[Tensor, "2 d"], Float[Tensor, "2 d"]]:
        """The start of the rollouts, and one that differs by noise of size `PERTURBATION`."""
        q, qdot = self.start()
        noise = torch.randn(2, len(q), generator=torch.Generator().manual_seed(7)).to(q)
        return torch.stack([q, q + PERTURBATION * noise[0]]), torch.stack(
            [qdot, qdot + PERTURBATION * noise[1]]
        )

    @torch.no_grad()
    def rollout(
        self,
        net: LagrangianNetwork | None,
        dtype: torch.dtype = torch.float64,
        *,
        dt: float | None = None,
        T: float | None = None,
        keep: float | None = None,
        compensated: bool = False,
        progress: bool = False,
    ) -> "Rollout":
        """RK4 trajectories of every member from `starts` to `T`, kept every `keep` units of time.

        Step, time and `keep` are the study's own where they are not given.

        `compensated` sums keep a float32 run from collecting a rounding error at every step. For
        `net=None` the trajectories are those of the true law: what the integrator alone does wrong.
        """
        dt = self.dt if dt is None else dt
        T = self.T if T is None else T
        keep = self.keep if keep is None else keep
        q, qdot = (x.to(dtype) for x in self.starts())
        steps, every = round(T / dt), round(keep / dt)
        if net is None:
            path = self.system.rollout(q[None], qdot[None], dt, steps, every)
        else:
            net = copy(net, dtype)
            path = net.rollout(
                q, qdot, dt, steps, every, compensated=compensated, progress=progress
            )
        return self.measured(path, net, keep)

    @torch.no_grad()
    def measured(
        self, path: Float[Tensor, "time S B two_d"], net: LagrangianNetwork | None, keep: float
    ) -> "Rollout":
        """The charges along trajectories, the true law's and the network's own."""
        q, qdot = path.chunk(2, dim=-1)
        true = self.system.charges(q, qdot)
        own = true
        if net is not None:  # time and start share the batch axis
            states, velocities = (x.movedim(0, 1).flatten(1, 2) for x in (q, qdot))
            p = net.momentum(states, velocities).unflatten(1, (len(path), -1)).movedim(1, 0)
            own = self.own_charges(q, p)
        t = keep * torch.arange(len(path), dtype=path.dtype)
        return Rollout(t, q, qdot, true, own)

    def own_charges(self, q: Tensor, p: Tensor) -> Tensor:
        r"""The Noether charges $p\cdot\xi(q)$ for the system's generators, eq. 2."""
        return torch.einsum("...d,...kd->...k", p, self._generators(q))

    @cached_property
    def _generators(self) -> Callable[[Tensor], Tensor]:
        rows = [list(xi) for xi in self.system.symmetries.values()]
        return symbolic.to_torch(rows, [self.system.q], self.system.values)


@dataclass(frozen=True)
class Rollout:
    """Trajectories from time 0 on, one a member.

    `t` `(time,)`; `q`, `qdot` `(time, S, B, d)`, B = 0 the unperturbed start and B = 1 the
    perturbed one; `true`, `own` `(time, S, B, k)` the charges of the true law and the network's, in
    the order of the system's `charge_names`.
    """

    t: Tensor
    q: Tensor
    qdot: Tensor
    true: Tensor
    own: Tensor

    def of(self, names: Sequence[str], all_names: Sequence[str]) -> "Rollout":
        """The same with these charges only."""
        index = [list(all_names).index(name) for name in names]
        return Rollout(self.t, self.q, self.qdot, self.true[..., index], self.own[..., index])

    @property
    def delta_true(self) -> Tensor:
        """Deviation of the true charges of the unperturbed start, eq. 35, `(time, S)`."""
        return metrics.relative_deviation(self.true[:, :, 0])

    @property
    def delta_own(self) -> Tensor:
        """The same for the network's own charges."""
        return metrics.relative_deviation(self.own[:, :, 0])

    @property
    def apart(self) -> Tensor:
        """Distance of the two trajectories, figures 5, 8 and 11, `(time, S)`."""
        return metrics.trajectory_distance(self.q[:, :, 0], self.q[:, :, 1])


def copy(net: LagrangianNetwork, dtype: torch.dtype) -> LagrangianNetwork:
    """The same network in another precision."""
    other = LagrangianNetwork(
        net.layer, net.hidden, activation=net.activation, seeds=net.seeds, dtype=dtype
    )
    other.load_state_dict(net.state_dict())
    return other


def max_per_seed(deviation: Float[Tensor, "time S"]) -> tuple[float, ...]:
    """The largest value of each member; inf for one that ran away."""
    return tuple(deviation.nan_to_num(nan=torch.inf, posinf=torch.inf).amax(0).tolist())


def time_to(t: Float[Tensor, " time"], deviation: Tensor, limit: float) -> tuple[float, ...]:
    """The first time at which each member's deviation exceeds `limit`; the last time if never."""
    within = deviation <= limit  # nan counts as beyond
    held = within.cumprod(0).sum(0).clamp(max=len(t) - 1)
    return tuple(t[held].tolist())


def trained(
    train_one: Callable[..., tuple[Any, training.History]],
    steps: Mapping[str, int],
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    progress: bool,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, training.History]]:
    """Weights and histories of all variants, one after the other, each with its checkpoint.

    `steps` says of each variant how many it takes, for the line that is printed.
    """
    states, histories = {}, {}
    for variant, many in steps.items():
        if progress:
            print(f"{variant}: {len(seeds)} seeds, {many} steps", flush=True)
        checkpoint = folder / f"checkpoint-{variant}.safetensors"
        net, histories[variant] = train_one(variant, budget, seeds, device, checkpoint, progress)
        states[variant] = net.state_dict()
    return states, histories


def train_and_save(
    name: str,
    train_one: Callable[..., tuple[Any, training.History]],
    settings: Any,
    steps: Mapping[str, int],
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool,
) -> None:
    """Trains all variants as `trained` does, and writes weights, settings and provenance."""
    states, histories = trained(train_one, steps, budget, seeds, device, folder, progress)
    where = training.device(device)
    about = described(name, budget, settings, seeds, where, command, histories)
    artifacts.save_weights(folder, states, about)


def described(
    name: str,
    budget: str,
    settings: Any,
    seeds: Sequence[int],
    device: torch.device,
    command: str,
    histories: Mapping[str, training.History],
) -> dict:
    """What is stored beside the weights: settings, provenance, and the losses to four digits."""
    seconds = sum(history.seconds for history in histories.values())
    return {
        "experiment": name,
        "budget": budget,
        "settings": artifacts.settings_dict(settings),
        "provenance": artifacts.provenance(device, list(seeds), settings.steps, seconds, command),
        "history": {
            variant: {
                "steps": history.steps,
                "loss": [[float(f"{x:.4g}") for x in row] for row in history.loss],
                "seconds": round(history.seconds, 1),
            }
            for variant, history in histories.items()
        },
    }
