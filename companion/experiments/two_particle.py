r"""The two-particle experiment of Müller (2023), sections 2.3.3 and 3.1.3: tables 1 and 2, figures
9, 10, 11 and 14.

Four Lagrangian networks learn two particles in four dimensions from noisy measurements of one
trajectory: without symmetry, with rotations, with translations, with both. They are judged by a
rollout to T = 8, as in the paper, and by one that is ten times as long. `_lagrangian` says what
differs from the paper.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from companion import artifacts, datasets, invariants, metrics, systems
from companion.artifacts import Figure
from companion.experiments._lagrangian import Rollout, Settings, Study, copy, max_per_seed
from companion.lagrangian import LagrangianNetwork

NAME = "two_particle"
SUMMARY = "Two particles in four dimensions: rotations, translations, both, or none"
PAPER = "Müller (2023), section 3.1.3, tables 1-2, figures 9-11 and 14"

D = 4
VARIANTS = {
    "unconstrained": partial(invariants.Unconstrained, 2, D),
    "rotations": partial(invariants.Rotations, 2, D),
    "translations": partial(invariants.Translations, 2, D),
    "both": partial(invariants.RotationsTranslations, 2, D),
}
T = 8.0  # the rollout of figures 9 to 11
LONG = 80.0
DT = 0.002  # a fifth of the paper's: what the integrator does wrong stays below 1e-9
SETTINGS = {
    "ci": Settings(
        hidden=(32, 32), steps=400, batch=64, grow_at=400, warmup=100, lr=1e-2, lr_end=1e-4
    ),
    "demo": Settings(steps=3000, grow_at=3000),
    "full": Settings(steps=6000, grow_at=4500, batch_end=256),
}


def trajectory() -> datasets.Trajectory:
    """The training data's states: one trajectory, a state every 0.1."""
    pair = systems.TwoParticle(D)
    return datasets.Trajectory(pair, *pair.initial(), dt=0.01, steps=320_000, every=10)


PAIR = systems.TwoParticle(D)
STUDY = Study(
    name=NAME,
    system=PAIR,
    variants=VARIANTS,
    mass=[1.0] * (2 * D),
    settings=SETTINGS,
    start=PAIR.initial,
    dt=DT,
    T=T,
    keep=0.1,
    states=trajectory,
)
network, train_variant, train, load = STUDY.network, STUDY.train_variant, STUDY.train, STUDY.load
starts, rollout = STUDY.starts, STUDY.rollout
LINEAR = tuple(name for name in STUDY.system.charge_names if name.startswith("P"))
ANGULAR = tuple(name for name in STUDY.system.charge_names if name.startswith("L"))


def delta_L(run: Rollout, own: bool) -> Tensor:
    """Deviation of the angular momentum, eq. 35, `(time, S)`; of the network's if `own`."""
    part = run.of(ANGULAR, STUDY.system.charge_names)
    return part.delta_own if own else part.delta_true


@torch.no_grad()
def delta_M(run: Rollout, net: LagrangianNetwork | None) -> Tensor:
    r"""Deviation of the linear momentum, eq. 36, `(time, S)`; the network's own if `net` is given.

    The total momentum starts at zero, so it is compared with the first particle's, eq. 37.
    """
    part = run.of(LINEAR, STUDY.system.charge_names)
    if net is None:
        first = PAIR.m1 * run.qdot[0, :, 0, :D]
        return metrics.relative_deviation(part.true[:, :, 0], reference=first)
    p = copy(net, run.q.dtype).momentum(run.q[0, :, :1], run.qdot[0, :, :1])
    return metrics.relative_deviation(part.own[:, :, 0], reference=p[:, 0, :D])


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves of figures 9 to 11 are written beside the weights.
    """
    networks, about = load(folder)
    runs = {name: rollout(net, progress=progress) for name, net in networks.items()}
    long = rollout(networks["both"], dt=0.01, T=LONG, progress=progress)
    single = rollout(networks["both"], torch.float32, dt=0.01, progress=progress)
    true, true_long = rollout(None), rollout(None, T=LONG)
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, _curves(runs, networks, true))
    paper = {"both": 1e-2, "rotations": 0.1}
    rows = []
    for name, run in runs.items():
        least, most = paper.get(name), 1e-3 if name == "both" else None
        rows += [
            (
                f"{name}: max delta L_true",
                "true angular momentum, largest relative deviation to T = 8, eq. 35",
                ("1", "lower", least, most, max_per_seed(delta_L(run, own=False))),
            ),
            (
                f"{name}: max delta M_true",
                "true linear momentum relative to the first particle's, to T = 8, eqs. 36 and 37",
                ("1", "lower", least, most, max_per_seed(delta_M(run, None))),
            ),
        ]
        if name in ("rotations", "both"):
            rows.append(
                (
                    f"{name}: max delta L_NN, float64",
                    "the network's angular momentum, eq. 32, RK4 with dt = 0.002",
                    ("1", "lower", None, 1e-9, max_per_seed(delta_L(run, own=True)), 3.0),
                )
            )
        if name in ("translations", "both"):
            rows.append(
                (
                    f"{name}: max delta M_NN, float64",
                    "the network's linear momentum, eq. 32, RK4 with dt = 0.002",
                    ("1", "lower", None, 1e-9, max_per_seed(delta_M(run, networks[name])), 3.0),
                )
            )
        rows.append(
            (
                f"{name}: error at T = 8",
                "distance of the state of both particles from the truth, figure 9",
                ("1", "lower", 1.0 if name == "both" else None, None, _miss(run, true)),
            )
        )
    both = networks["both"]
    rows += [
        (
            "both: max delta L_NN, float32",
            "the network's angular momentum by the paper's protocol, in single precision",
            ("1", "lower", None, None, max_per_seed(delta_L(single, own=True)), 3.0),
        ),
        (
            "both: max delta M_NN, float32",
            "the network's linear momentum by the paper's protocol, in single precision",
            ("1", "lower", None, None, max_per_seed(delta_M(single, both)), 3.0),
        ),
        (
            "both: max delta L_true to T = 80",
            "ten times the paper's time",
            ("1", "lower", None, None, max_per_seed(delta_L(long, own=False))),
        ),
        (
            "both: max delta M_true to T = 80",
            "ten times the paper's time",
            ("1", "lower", None, None, max_per_seed(delta_M(long, None))),
        ),
        (
            "both: error at T = 80",
            "distance from the truth after ten times the paper's time",
            ("1", "lower", None, None, _miss(long, true_long)),
        ),
    ]
    for name, run in (*runs.items(), ("true law", true)):
        rows.append(
            (
                f"{name}: delta q at T = 8",
                "distance of two trajectories that start 1e-3 apart, figure 11; to be read beside "
                "the true law's",
                ("1", "lower", None, None, tuple(run.apart[-1].tolist()), 1.5),
            )
        )
    return [Figure(name, meaning, *rest) for name, meaning, rest in rows], about


def _curves(
    runs: dict[str, Rollout], networks: dict[str, LagrangianNetwork], true: Rollout
) -> dict[str, Tensor]:
    """What figures 9 to 11 draw, in float32: positions of member 0, deviations of all."""
    curves = {"t": true.t, "true.q": true.q[:, 0, 0], "true.delta_q": true.apart}
    for name, run in runs.items():
        curves[f"{name}.q"] = run.q[:, 0, 0]
        curves[f"{name}.delta_q"] = run.apart
        curves[f"{name}.delta_L_true"] = delta_L(run, own=False)
        curves[f"{name}.delta_L_NN"] = delta_L(run, own=True)
        curves[f"{name}.delta_M_true"] = delta_M(run, None)
        curves[f"{name}.delta_M_NN"] = delta_M(run, networks[name])
    return {name: curve.float() for name, curve in curves.items()}


def _miss(run: Rollout, true: Rollout) -> tuple[float, ...]:
    """Distance of the positions from the truth at the end, per member."""
    return tuple(metrics.trajectory_distance(run.q[-1, :, 0], true.q[-1, :, 0]).tolist())
