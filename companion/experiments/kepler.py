r"""The Kepler experiment of Müller (2023), sections 2.3.1 and 3.1.1: figures 3, 4, 5 and 12.

Two Lagrangian networks learn the motion on an ellipse of eccentricity 0.8 from noisy measurements:
one sees coordinates and velocities, the other only their rotation-invariant scalars. They are
judged by what they do in a rollout to T = 128, not by their loss.

What differs from the paper: a fixed kinetic term 1/2 qdot^2 beside the network and a small last
layer, so that the Hessian starts regular; features standardised; an error relative to the
acceleration instead of an absolute one, because input noise grows with the acceleration; SOAP
instead of Adam and a batch that grows, 16,000 steps instead of 250,000. Data, network width and
depth, activation and noise are the paper's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from companion import (
    artifacts,
    datasets,
    groups,
    integrators,
    invariants,
    metrics,
    systems,
    training,
)
from companion.artifacts import Figure
from companion.lagrangian import LagrangianNetwork

NAME = "kepler"
SUMMARY = "A planet on an ellipse: Lagrangian networks with and without rotation invariance"
PAPER = "Müller (2023), section 3.1.1, figures 3-5 and 12"

VARIANTS = {
    "invariant": partial(invariants.Rotations, 1, 3),
    "unconstrained": partial(invariants.Unconstrained, 1, 3),
}
T = 128.0  # the rollout of figures 3 to 5
DT = 0.01
PERTURBATION = 1e-3


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


SETTINGS = {
    "ci": Settings(
        hidden=(32, 32), steps=400, batch=64, grow_at=400, warmup=100, lr=1e-2, lr_end=1e-4
    ),
    "demo": Settings(steps=4000, grow_at=4000),
    "full": Settings(),
}


def network(
    variant: str,
    settings: Settings,
    seeds: int | Sequence[int] = 1,
    device: torch.device | str = "cpu",
) -> LagrangianNetwork:
    """An untrained network of a variant, its features standardised on noisy measurements."""
    layer = VARIANTS[variant]()
    net = LagrangianNetwork(
        layer, settings.hidden, seeds=seeds, mass=[1.0] * 3, output_scale=0.01, device=device
    )
    measure = datasets.NoisyMeasurements(
        systems.Kepler(), [2**20], batch=10_000, sigma=settings.sigma, device=device
    )
    q, qdot, _ = measure(0)
    net.standardise(q[0], qdot[0])
    return net


def loss(
    net: LagrangianNetwork,
    q: Float[Tensor, "S B d"],
    qdot: Float[Tensor, "S B d"],
    qddot: Float[Tensor, "S B d"],
) -> Float[Tensor, " S"]:
    r"""The mean over the batch of $\log(1 + e)$, $e = |\ddot q_{NN} - \ddot q|^2 / (|\ddot q|^2 +
    0.01)$.

    For the small errors that matter it is the relative square error. The logarithm keeps a sample
    with a nearly singular Hessian, early in training, from ruling the step.
    """
    error = (net.acceleration(q, qdot, check=False) - qddot).square().sum(-1)
    return torch.log1p(error / (qddot.square().sum(-1) + 0.01)).mean(-1)


def train_variant(
    variant: str,
    budget: str = "demo",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: bool = True,
    **changes,
) -> tuple[LagrangianNetwork, training.History]:
    """Trains one variant, all seeds at once; `changes` replace settings of the budget."""
    settings = replace(SETTINGS[budget], **changes)
    where = training.device(device)
    net = network(variant, settings, seeds, where)
    measure, measure_more = (
        datasets.NoisyMeasurements(systems.Kepler(), seeds, batch, settings.sigma, device=where)
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
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains both variants and writes the weights to `folder`; resumes a run that was stopped."""
    settings = SETTINGS[budget]
    states, histories = {}, {}
    for variant in VARIANTS:
        if progress:
            print(f"{variant}: {len(seeds)} seeds, {settings.steps} steps")
        net, history = train_variant(
            variant, budget, seeds, device, folder / f"checkpoint-{variant}.safetensors", progress
        )
        states[variant], histories[variant] = net.state_dict(), history
    seconds = sum(history.seconds for history in histories.values())
    about = {
        "experiment": NAME,
        "budget": budget,
        "settings": artifacts.settings_dict(settings),
        "provenance": artifacts.provenance(
            training.device(device), list(seeds), settings.steps, seconds, command
        ),
        "history": {
            variant: {"steps": history.steps, "loss": _rounded(history.loss)}
            for variant, history in histories.items()
        },
    }
    artifacts.save_weights(folder, states, about)


def load(folder: Path | None = None) -> tuple[dict[str, LagrangianNetwork], dict]:
    """The trained networks by variant, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """
    states, about = artifacts.load_weights(folder or artifacts.folder(NAME))
    if about.get("experiment") != NAME:
        raise ValueError(f"these are weights of {about.get('experiment')!r}, not of {NAME!r}")
    try:
        settings = Settings(**{**about["settings"], "hidden": tuple(about["settings"]["hidden"])})
        networks = {}
        for variant in VARIANTS:
            networks[variant] = network(variant, settings, about["provenance"]["seeds"])
            networks[variant].load_state_dict(states[variant])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"the weights in {folder or artifacts.folder(NAME)} do not fit this version of the "
            f"experiment ({error}); train them again"
        ) from error
    return networks, about


@dataclass(frozen=True)
class Rollout:
    """Trajectories from the perihelion to time T, one a member.

    `t` `(time,)`; `q`, `qdot` `(time, S, B, 3)`, B = 0 the unperturbed start and B = 1 the
    perturbed one; `L_true`, `L_NN` `(time, S, B, 3)` the true angular momentum (eq. 15) and the
    network's (eq. 14).
    """

    t: Tensor
    q: Tensor
    qdot: Tensor
    L_true: Tensor
    L_NN: Tensor


def start(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """The perihelion and a start 1e-3 away from it (section 3.1.1), each `(2, 3)`."""
    q, qdot = systems.Kepler().perihelion()
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    kicked = torch.stack([q, qdot]) + PERTURBATION * noise
    return torch.stack([q, kicked[0]]).to(dtype), torch.stack([qdot, kicked[1]]).to(dtype)


@torch.no_grad()
def rollout(
    net: LagrangianNetwork | None,
    dtype: torch.dtype = torch.float64,
    dt: float = DT,
    T: float = T,
    keep: float = 0.1,
    compensated: bool = False,
    progress: bool = False,
) -> Rollout:
    """RK4 trajectories of every member from `start`, kept every `keep` units of time.

    `compensated` sums keep a float32 run from collecting a rounding error at every step. For
    `net=None` the trajectories are those of the true law: what the integrator alone does wrong.
    """
    y = torch.cat(start(dtype), -1)[None]
    law = systems.Kepler().rhs
    if net is not None:
        net = _copy(net, dtype)
        law, y = net.rhs, y.expand(net.S, 2, 6)
    path = integrators.solve(
        law,
        y,
        dt,
        round(T / dt),
        every=round(keep / dt),
        progress=progress,
        compensated=compensated,
    )
    return _measured(path, net, keep)


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves of figures 3 to 5 are written beside the weights.
    """
    networks, about = load(folder)
    invariant, unconstrained = networks["invariant"], networks["unconstrained"]
    bare = rollout(invariant, torch.float32, progress=progress)
    single = rollout(invariant, torch.float32, compensated=True, progress=progress)
    weighed = _measured(
        torch.cat([single.q, single.qdot], dim=-1).double(), _copy(invariant, torch.float64), 0.1
    )
    double = rollout(invariant, dt=DT / 2, progress=progress)
    plain = rollout(unconstrained, progress=progress)
    true = rollout(None, dt=DT / 2)
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, _curves(weighed, double, plain, true))
    drift = _max_per_seed(_drift(double.L_true))
    rows = [
        (
            "invariant: max delta L_true",
            "true angular momentum, largest relative deviation to T = 128, eq. 35",
            ("1", "lower", 6.05e-4, 1e-4, drift),
        ),
        (
            "invariant: max delta L_NN, float32",
            "the network's angular momentum, eq. 14, by the paper's protocol: RK4 with dt = 0.01, "
            "everything in single precision",
            ("1", "lower", 1.6e-6, 5e-6, _max_per_seed(_drift(bare.L_NN)), 3.0),
        ),
        (
            "invariant: the same, compensated sums",
            "RK4 with compensated sums, everything in single precision",
            ("1", "lower", None, 5e-6, _max_per_seed(_drift(single.L_NN)), 3.0),
        ),
        (
            "invariant: the same, measured in float64",
            "the compensated trajectory, its angular momentum measured in double precision",
            ("1", "lower", None, 5e-6, _max_per_seed(_drift(weighed.L_NN)), 3.0),
        ),
        (
            "invariant: max delta L_NN, float64",
            "the same in double precision, RK4 with dt = 0.005",
            ("1", "lower", None, 1e-9, _max_per_seed(_drift(double.L_NN)), 3.0),
        ),
        (
            "invariant: max delta q",
            "distance of two trajectories that start 1e-3 apart, figure 5; to be read beside the "
            "true law's, which is larger: the network has learned to return to its training orbit",
            ("1", "higher", 0.1, None, _max_per_seed(_apart(double))),
        ),
        (
            "true law: max delta q",
            "the same two starts under the true law",
            ("1", "higher", None, None, _max_per_seed(_apart(true))),
        ),
        (
            "invariant: error of the kicked orbit",
            "largest distance from the kicked trajectory of the true law",
            ("1", "lower", None, None, _max_per_seed(_from_truth(double, true, 1))),
        ),
        (
            "invariant: error of the orbit",
            "largest distance from the trajectory of the true law, unperturbed start",
            ("1", "lower", None, None, _max_per_seed(_from_truth(double, true, 0))),
        ),
        (
            "invariant: error on the orbit",
            "root mean square error of the acceleration on the noiseless orbit",
            ("1", "lower", None, None, orbit_error(invariant)),
        ),
        (
            "unconstrained: error on the orbit",
            "the same for the network without symmetry",
            ("1", "lower", None, None, orbit_error(unconstrained)),
        ),
        (
            "unconstrained: time to 1 % error in L_true",
            "first time at which delta L_true exceeds 0.01 (128: never)",
            ("1", "higher", None, None, _time_to(plain, 0.01), 1.5),
        ),
        (
            "unconstrained: time to 10 % error in L_true",
            "first time at which delta L_true exceeds 0.1 (128: never)",
            ("1", "higher", None, None, _time_to(plain, 0.1), 1.5),
        ),
        (
            "stuck seeds",
            "members of the invariant network whose delta L_true exceeds 0.01",
            ("count", "lower", None, 0.0, (float(sum(x > 0.01 for x in drift)),)),
        ),
    ]
    return [Figure(name, meaning, *rest) for name, meaning, rest in rows], about


def _curves(single: Rollout, double: Rollout, plain: Rollout, true: Rollout) -> dict[str, Tensor]:
    """What figures 3 to 5 draw, thinned to every 0.2 units of time, in float32."""
    curves = {"t": double.t, "true.delta_L": _drift(true.L_true), "true.delta_q": _apart(true)}
    for variant, run in [("invariant", double), ("unconstrained", plain)]:
        curves[f"{variant}.q"] = run.q[:, 0]  # member 0, both starts
        curves[f"{variant}.delta_L_true"] = _drift(run.L_true)
        curves[f"{variant}.delta_L_NN"] = _drift(run.L_NN)
        curves[f"{variant}.delta_q"] = _apart(run)
    curves["invariant.delta_L_NN.float32"] = _drift(single.L_NN)
    return {name: curve[::2].float() for name, curve in curves.items()}


def _drift(L: Tensor) -> Tensor:
    """delta L(t) of eq. 35 for the unperturbed start of every member, `(time, S)`."""
    return metrics.relative_deviation(L[:, :, 0])


def _apart(run: Rollout) -> Tensor:
    """delta q(t) of figure 5 for every member, `(time, S)`."""
    return metrics.trajectory_distance(run.q[:, :, 0], run.q[:, :, 1])


def _from_truth(run: Rollout, true: Rollout, start: int) -> Tensor:
    """Distance from the true law's trajectory of the same start, `(time, S)`."""
    return metrics.trajectory_distance(
        run.q[:, :, start], true.q[:, :, start].expand_as(run.q[:, :, start])
    )


@torch.no_grad()
def orbit_error(net: LagrangianNetwork) -> tuple[float, ...]:
    """Root mean square error of the acceleration on the noiseless orbit, per member."""
    kepler = systems.Kepler()
    phi = torch.linspace(-torch.pi, torch.pi, 2001, dtype=torch.float64)[:-1]
    q, qdot = kepler.orbit(phi)
    error = _copy(net, torch.float64).acceleration(q, qdot, check=False) - kepler.acceleration(
        q, qdot
    )
    return tuple(error.square().sum(-1).mean(-1).sqrt().tolist())


def _measured(path: Tensor, net: LagrangianNetwork | None, keep: float) -> Rollout:
    q, qdot = path.split(3, dim=-1)
    L_true = systems.Kepler().charges(q, qdot)
    L_NN = L_true
    if net is not None:  # time and start share the batch axis
        states, velocities = (x.movedim(0, 1).flatten(1, 2) for x in (q, qdot))
        charges = net.charges(states, velocities, groups.SO(3).generators(q.dtype))
        L_NN = charges.unflatten(1, (len(path), -1)).movedim(1, 0)
    t = keep * torch.arange(len(path), dtype=path.dtype)
    return Rollout(t, q, qdot, L_true, L_NN)


def _copy(net: LagrangianNetwork, dtype: torch.dtype) -> LagrangianNetwork:
    other = LagrangianNetwork(
        net.layer, net.hidden, activation=net.activation, seeds=net.seeds, dtype=dtype
    )
    other.load_state_dict(net.state_dict())
    return other


def _max_per_seed(deviation: Tensor) -> tuple[float, ...]:
    return tuple(deviation.nan_to_num(nan=torch.inf).amax(0).tolist())


def _time_to(run: Rollout, limit: float) -> tuple[float, ...]:
    within = _drift(run.L_true) <= limit  # nan counts as beyond
    held = within.cumprod(0).sum(0).clamp(max=len(run.t) - 1)
    return tuple(run.t[held].tolist())


def _rounded(loss: list[list[float]]) -> list[list[float]]:
    return [[float(f"{x:.4g}") for x in row] for row in loss]
