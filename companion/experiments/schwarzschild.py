r"""The Schwarzschild experiment of Müller (2023), sections 2.3.2 and 3.1.2: figures 6, 7, 8 and 13.

Two Lagrangian networks learn a strongly precessing orbit around a black hole from noisy
measurements, one from coordinates and velocities, the other from the rotation-invariant scalars;
neither sees the clock's reading tau. They are judged by a rollout to T = 1000, some nine radial
periods. `_lagrangian` says what differs from the paper. The fixed kinetic term is that of flat
space-time.
"""

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from companion import artifacts, datasets, invariants, metrics, systems
from companion.artifacts import Figure
from companion.experiments._lagrangian import Rollout, Settings, Study, max_per_seed, time_to

NAME = "schwarzschild"
SUMMARY = "An orbit around a black hole: geodesics with and without rotation invariance"
PAPER = "Müller (2023), section 3.1.2, figures 6-8 and 13"

VARIANTS = {
    "invariant": invariants.SchwarzschildRotations,
    "unconstrained": partial(invariants.Unconstrained, 1, 4, cyclic=[3]),
}
T = 1000.0  # the rollout of figures 6 to 8
DT = 0.05  # five times the paper's; the drift of the own charge shows that it is small enough
SETTINGS = {
    "ci": Settings(
        hidden=(32, 32), steps=400, batch=64, grow_at=400, warmup=100, lr=1e-2, lr_end=1e-4
    ),
    "demo": Settings(steps=3000, grow_at=3000),
    # Half the paper's width, and some twenty million samples: noise limits what is learned here,
    # for the accelerations are only 4 to 60 times as large as it, and width does not.
    "full": Settings(hidden=(64, 64), steps=12_000, batch=256, grow_at=6000, batch_end=3072),
}


def trajectory() -> datasets.Trajectory:
    """The training data's states: one trajectory, a state every 0.1, for thirty radial periods."""
    black_hole = systems.Schwarzschild()
    return datasets.Trajectory(black_hole, *black_hole.initial(), dt=0.01, steps=320_000, every=10)


HOLE = systems.Schwarzschild()
STUDY = Study(
    name=NAME,
    system=HOLE,
    variants=VARIANTS,
    mass=[1.0, 1.0, 1.0, -1.0],
    settings=SETTINGS,
    start=HOLE.initial,
    dt=DT,
    T=T,
    keep=0.5,
    states=trajectory,
)
network, train_variant, train, load = STUDY.network, STUDY.train_variant, STUDY.train, STUDY.load
starts, rollout = STUDY.starts, STUDY.rollout
ANGULAR = ("L_x", "L_y", "L_z")


def angular(run: Rollout) -> Rollout:
    """A rollout with the angular momentum as its only charge, eqs. 20 and 21."""
    return run.of(ANGULAR, STUDY.system.charge_names)


def precession(run: Rollout) -> tuple[float, ...]:
    """The mean advance of the closest approach in one radial period, in radians, per member.

    nan for a member without two closest approaches.
    """
    keep = (run.t[1] - run.t[0]).item()
    means = []
    for s in range(run.q.shape[1]):
        angles = metrics.apsidal_angles(run.q[:, s, 0, :3], run.qdot[:, s, 0, :3], keep)
        means.append(torch.remainder(angles.diff(), 2 * math.pi).mean().item())
    return tuple(means)


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves of figures 6 to 8 are written beside the weights.
    """
    networks, about = load(folder)
    invariant, unconstrained = networks["invariant"], networks["unconstrained"]
    own = rollout(invariant, progress=progress)
    plain = rollout(unconstrained, progress=progress)
    single = rollout(invariant, torch.float32, dt=0.01, progress=progress)
    true = rollout(None)
    if keep_curves:
        artifacts.save_curves(folder or artifacts.folder(NAME), _curves(own, plain, single, true))
    advance = HOLE.precession(*STUDY.start())
    off = {
        name: tuple(abs(x / advance - 1) if math.isfinite(x) else math.inf for x in precession(run))
        for name, run in (("invariant", own), ("unconstrained", plain), ("true", true))
    }
    drift = max_per_seed(angular(own).delta_true)
    rows = [
        (
            "invariant: max delta L_true",
            "true angular momentum, largest relative deviation to T = 1000, eq. 35",
            ("1", "lower", 1e-3, 1e-4, drift),
        ),
        (
            "invariant: max delta L_NN, float32",
            "the network's angular momentum, eq. 21, by the paper's protocol: RK4 with dt = 0.01, "
            "everything in single precision",
            ("1", "lower", 1e-5, None, max_per_seed(angular(single).delta_own), 3.0),
        ),
        (
            "invariant: max delta L_NN, float64",
            "the same in double precision, RK4 with dt = 0.05",
            ("1", "lower", None, 1e-9, max_per_seed(angular(own).delta_own), 3.0),
        ),
        (
            "invariant: error of the precession",
            "relative error of the mean advance of the closest approach, against the closed form",
            ("1", "lower", None, 1e-2, off["invariant"]),
        ),
        (
            "invariant: error of the orbit",
            "largest distance from the true position to T = 1000",
            ("1", "lower", None, None, max_per_seed(_from_truth(own, true))),
        ),
        (
            "invariant: max delta q",
            "distance of two trajectories that start 1e-3 apart, figure 8; to be read beside the "
            "true law's",
            ("1", "higher", None, None, max_per_seed(_apart(own))),
        ),
        (
            "invariant: max deviation of the norm",
            "largest deviation of g(qdot, qdot) from -1",
            ("1", "lower", None, None, _norm(own)),
        ),
        (
            "unconstrained: max delta L_true",
            "true angular momentum, largest relative deviation to T = 1000",
            ("1", "lower", 0.1, None, max_per_seed(angular(plain).delta_true), 1.5),
        ),
        (
            "unconstrained: time to 1 % error in L_true",
            "first time at which delta L_true exceeds 0.01 (1000: never)",
            ("1", "higher", None, None, time_to(plain.t, angular(plain).delta_true, 0.01), 1.5),
        ),
        (
            "unconstrained: time to 10 % error in L_true",
            "first time at which delta L_true exceeds 0.1 (1000: never)",
            ("1", "higher", None, None, time_to(plain.t, angular(plain).delta_true, 0.1), 1.5),
        ),
        (
            "unconstrained: error of the precession",
            "relative error of the mean advance; inf: no closest approaches",
            ("1", "lower", None, None, off["unconstrained"], 1.5),
        ),
        (
            "unconstrained: error of the orbit",
            "largest distance from the true position to T = 1000",
            ("1", "lower", None, None, max_per_seed(_from_truth(plain, true)), 1.5),
        ),
        (
            "unconstrained: max delta q",
            "distance of two trajectories that start 1e-3 apart",
            ("1", "higher", None, None, max_per_seed(_apart(plain)), 1.5),
        ),
        (
            "true law: max delta q",
            "the same two starts under the true law",
            ("1", "higher", None, None, max_per_seed(_apart(true))),
        ),
        (
            "true law: error of the precession",
            "what the measurement of the advance itself does wrong",
            ("1", "lower", None, 1e-3, off["true"]),
        ),
        (
            "stuck seeds",
            "members of the invariant network whose delta L_true exceeds 0.01",
            ("count", "lower", None, 0.0, (float(sum(x > 0.01 for x in drift)),)),
        ),
    ]
    return [Figure(name, meaning, *rest) for name, meaning, rest in rows], about


def _curves(own: Rollout, plain: Rollout, single: Rollout, true: Rollout) -> dict[str, Tensor]:
    """What figures 6 to 8 draw, in float32: positions of member 0, deviations of all."""
    curves = {"t": own.t, "true.x": true.q[:, 0, :, :3], "true.delta_q": _apart(true)}
    for name, run in (("invariant", own), ("unconstrained", plain)):
        curves[f"{name}.x"] = run.q[:, 0, :, :3]
        curves[f"{name}.delta_L_true"] = angular(run).delta_true
        curves[f"{name}.delta_L_NN"] = angular(run).delta_own
        curves[f"{name}.delta_q"] = _apart(run)
    curves["invariant.delta_L_NN.float32"] = angular(single).delta_own
    return {
        name: curve[:: 1 if name.endswith((".x", "t")) else 4].float()
        for name, curve in curves.items()
    }


def _apart(run: Rollout) -> Tensor:
    """Distance in space of the two trajectories, `(time, S)`."""
    return metrics.trajectory_distance(run.q[:, :, 0, :3], run.q[:, :, 1, :3])


def _from_truth(run: Rollout, true: Rollout) -> Tensor:
    """Distance in space from the true law's trajectory, `(time, S)`."""
    return metrics.trajectory_distance(run.q[:, :, 0, :3], true.q[:, :, 0, :3])


def _norm(run: Rollout) -> tuple[float, ...]:
    g = STUDY.system.lagrangian_value(run.q[:, :, 0], run.qdot[:, :, 0])
    return max_per_seed((g + 1).abs())
