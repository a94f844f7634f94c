"""Two bodies under gravity: the symmetry control network's first system (Syväri et al. 2021)."""

from collections.abc import Sequence

from companion import systems
from companion.experiments._canonical import Model, Paper, Settings, Task
from companion.symplectic import Composition, LinearPoint, Polar

NAME = "two_body"
SUMMARY = "Two bodies: Hamiltonian networks against symmetry control networks"
PAPER = "Syväri et al. (2021), section 3.2.1, figure 3 and table 1"


def centred(seeds: Sequence[int], width: int) -> Composition:
    """An exactly canonical map: a linear point transformation, then polar coordinates of the last
    two positions. It can reach the centre of mass and the relative motion; `width` has no part."""
    return Composition([LinearPoint(4, seeds), Polar(4, (2, 3), seeds=seeds)])


MODELS = {
    "baseline": Model("baseline"),
    "hnn": Model("hnn"),
    "hnn-longer": Model("hnn", steps=3.0),
    "scnn": Model("scnn", n=3, circular=(2,)),
    "scnn-2": Model("scnn", n=2),
    "scnn-4": Model("scnn", n=4, alpha_1=1e-3, alpha_2=1e-3),
    "exact": Model("exact", n=3, make=centred),
    "constraint-p": Model("hnn", imposed=("P_x", "P_y")),
    "constraint-pl": Model("hnn", imposed=("P_x", "P_y", "L")),
}
TASK = Task(
    name=NAME,
    system=systems.TwoBody(),
    models=MODELS,
    settings={
        "ci": Settings(steps=300, models=("hnn", "scnn-2"), width=32, warmup=15, lr=2e-2),
        "demo": Settings(steps=2000, models=("baseline", "hnn", "scnn-2", "exact"), lr=2e-2),
        "full": Settings(steps=6000, models=tuple(MODELS), lr=2e-2, warmup=300),
    },
    trajectories=800,
    tested=200,
    points=50,
    T=20.0,
    paper=Paper(scnn=(5.25e-6, 8.2e-3, 1.479e-5), hnn=(2.13e-6, 0.114, 1.912e-5)),
    aim=1e-6,
)
SYSTEM, SETTINGS = TASK.system, TASK.settings
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
