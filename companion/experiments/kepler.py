r"""The Kepler experiment of Müller (2023), sections 2.3.1 and 3.1.1: figures 3, 4, 5 and 12.

Two Lagrangian networks learn the motion on an ellipse of eccentricity 0.8 from noisy measurements:
one sees coordinates and velocities, the other only their rotation-invariant scalars. They are
judged by what they do in a rollout to T = 128, not by their loss. `_lagrangian` says what differs
from the paper; here it is also 16,000 steps instead of 250,000.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from companion import artifacts, invariants, metrics, systems
from companion.artifacts import Figure
from companion.experiments import _lagrangian
from companion.experiments._lagrangian import Rollout, Settings, Study, copy, max_per_seed, time_to
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
SETTINGS = {
    "ci": Settings(
        hidden=(32, 32), steps=400, batch=64, grow_at=400, warmup=100, lr=1e-2, lr_end=1e-4
    ),
    "demo": Settings(steps=4000, grow_at=4000),
    "full": Settings(),
}
STUDY = Study(
    name=NAME,
    system=systems.Kepler(),
    variants=VARIANTS,
    mass=[1.0] * 3,
    settings=SETTINGS,
    start=systems.Kepler().perihelion,
    dt=DT,
    T=T,
    keep=0.1,
)
loss = _lagrangian.loss
network, train_variant, train, load = STUDY.network, STUDY.train_variant, STUDY.train, STUDY.load
start, rollout = STUDY.starts, STUDY.rollout


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
    weighed = STUDY.measured(
        torch.cat([single.q, single.qdot], dim=-1).double(), copy(invariant, torch.float64), 0.1
    )
    double = rollout(invariant, dt=DT / 2, progress=progress)
    plain = rollout(unconstrained, progress=progress)
    true = rollout(None, dt=DT / 2)
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, _curves(weighed, double, plain, true))
    drift = max_per_seed(double.delta_true)
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
            ("1", "lower", 1.6e-6, 5e-6, max_per_seed(bare.delta_own), 3.0),
        ),
        (
            "invariant: the same, compensated sums",
            "RK4 with compensated sums, everything in single precision",
            ("1", "lower", None, 5e-6, max_per_seed(single.delta_own), 3.0),
        ),
        (
            "invariant: the same, measured in float64",
            "the compensated trajectory, its angular momentum measured in double precision",
            ("1", "lower", None, 5e-6, max_per_seed(weighed.delta_own), 3.0),
        ),
        (
            "invariant: max delta L_NN, float64",
            "the same in double precision, RK4 with dt = 0.005",
            ("1", "lower", None, 1e-9, max_per_seed(double.delta_own), 3.0),
        ),
        (
            "invariant: max delta q",
            "distance of two trajectories that start 1e-3 apart, figure 5; to be read beside the "
            "true law's, which is larger: the network has learned to return to its training orbit",
            ("1", "higher", 0.1, None, max_per_seed(double.apart)),
        ),
        (
            "true law: max delta q",
            "the same two starts under the true law",
            ("1", "higher", None, None, max_per_seed(true.apart)),
        ),
        (
            "invariant: error of the kicked orbit",
            "largest distance from the kicked trajectory of the true law",
            ("1", "lower", None, None, max_per_seed(_from_truth(double, true, 1))),
        ),
        (
            "invariant: error of the orbit",
            "largest distance from the trajectory of the true law, unperturbed start",
            ("1", "lower", None, None, max_per_seed(_from_truth(double, true, 0))),
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
            ("1", "higher", None, None, time_to(plain.t, plain.delta_true, 0.01), 1.5),
        ),
        (
            "unconstrained: time to 10 % error in L_true",
            "first time at which delta L_true exceeds 0.1 (128: never)",
            ("1", "higher", None, None, time_to(plain.t, plain.delta_true, 0.1), 1.5),
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
    curves = {"t": double.t, "true.delta_L": true.delta_true, "true.delta_q": true.apart}
    for variant, run in [("invariant", double), ("unconstrained", plain)]:
        curves[f"{variant}.q"] = run.q[:, 0]  # member 0, both starts
        curves[f"{variant}.delta_L_true"] = run.delta_true
        curves[f"{variant}.delta_L_NN"] = run.delta_own
        curves[f"{variant}.delta_q"] = run.apart
    curves["invariant.delta_L_NN.float32"] = single.delta_own
    return {name: curve[::2].float() for name, curve in curves.items()}


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
    error = copy(net, torch.float64).acceleration(q, qdot, check=False) - kepler.acceleration(
        q, qdot
    )
    return tuple(error.square().sum(-1).mean(-1).sqrt().tolist())
