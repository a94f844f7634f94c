"""Three bodies under gravity (Syväri et al. 2021, section 3.2.2)."""

from collections.abc import Sequence

from companion import systems
from companion.experiments._canonical import Model, Paper, Settings, Task
from companion.symplectic import Composition, LinearPoint, Polar

NAME = "three_body"
SUMMARY = "Three bodies: Hamiltonian networks against symmetry control networks"
PAPER = "Syväri et al. (2021), section 3.2.2 and table 1"


def centred(seeds: Sequence[int], width: int) -> Composition:
    """An exactly canonical map: a linear point transformation, then a frame that turns with the
    third and fourth position. It can reach the centre of mass; `width` has no part."""
    return Composition([LinearPoint(6, seeds), Polar(6, (2, 3), [(4, 5)], seeds)])


MODELS = {
    "baseline": Model("baseline"),
    "hnn": Model("hnn"),
    "hnn-longer": Model("hnn", steps=3.0),
    "scnn": Model("scnn", n=3, circular=(2,)),
    "exact": Model("exact", n=3, make=centred),
    "constraint-p": Model("hnn", imposed=("P_x", "P_y")),
    "constraint-pl": Model("hnn", imposed=("P_x", "P_y", "L")),
}
TASK = Task(
    name=NAME,
    system=systems.ThreeBody(),
    models=MODELS,
    settings={
        "ci": Settings(steps=300, models=("hnn", "scnn"), width=32, warmup=15),
        "demo": Settings(steps=2000, models=("hnn", "scnn")),
        "full": Settings(steps=10000, models=tuple(MODELS), width=96, warmup=500),
    },
    trajectories=4000,
    tested=1000,
    points=20,
    T=5.0,
    paper=Paper(scnn=(6.85e-5, 1.40e-2, 7.71e-2), hnn=(3.252e-4, 6.00e-2, 1.35e-4)),
)
SYSTEM, SETTINGS = TASK.system, TASK.settings
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
