"""The spherical pendulum (Syväri et al. 2021, A.1)."""

from collections.abc import Sequence

from companion import systems
from companion.experiments._canonical import Model, Settings, Task
from companion.symplectic import LinearSymplectic

NAME = "spherical_pendulum"
SUMMARY = "The spherical pendulum of the paper"
PAPER = "Syväri et al. (2021), section A.1 and table 1"


def modes(seeds: Sequence[int], width: int) -> LinearSymplectic:
    """An exactly canonical map: any linear one. It can reach the normal modes; `width` has no
    part."""
    return LinearSymplectic(2, seeds)


MODELS = {
    "hnn": Model("hnn"),
    "scnn": Model("scnn", n=2, circular=(0, 1)),
    "exact": Model("exact", n=2, circular=(0, 1), make=modes),
    "scnn-straight": Model("scnn", n=2, alpha_1=1e-3, alpha_2=1e-3),
}
TASK = Task(
    name=NAME,
    summary=SUMMARY,
    section="A.1",
    system=systems.SphericalPendulum(margin=0.05),  # nearer to the equator no fixed step follows
    models=MODELS,
    settings={
        "ci": Settings(steps=300, models=("hnn", "scnn"), width=32, warmup=15),
        "demo": Settings(steps=2000, models=("hnn", "scnn", "exact")),
        "full": Settings(steps=3000, models=tuple(MODELS), warmup=150),
    },
    trajectories=80,
    tested=20,
    points=500,
    T=10.0,
)
SYSTEM, SETTINGS = TASK.system, TASK.settings
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
