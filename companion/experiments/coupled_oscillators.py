"""Two coupled oscillators (Syväri et al. 2021, section 3.2.3)."""

from collections.abc import Sequence

from companion import systems
from companion.experiments._canonical import Model, Paper, Settings, Task
from companion.symplectic import LinearSymplectic

NAME = "coupled_oscillators"
SUMMARY = "Two coupled oscillators and their normal modes"
PAPER = "Syväri et al. (2021), section 3.2.3 and table 1"


def modes(seeds: Sequence[int], width: int) -> LinearSymplectic:
    """An exactly canonical map: any linear one. It can reach the normal modes; `width` has no
    part."""
    return LinearSymplectic(2, seeds)


MODELS = {
    "hnn": Model("hnn"),
    "hnn-longer": Model("hnn", steps=3.0),
    "scnn": Model("scnn", n=2, circular=(0, 1)),
    "exact": Model("exact", n=2, circular=(0, 1), make=modes),
    "scnn-straight": Model("scnn", n=2),
}
TASK = Task(
    name=NAME,
    system=systems.CoupledOscillators(),
    models=MODELS,
    settings={
        "ci": Settings(steps=300, models=("hnn", "scnn"), width=32, warmup=15),
        "demo": Settings(steps=2000, models=("hnn", "scnn", "exact")),
        "full": Settings(steps=3000, models=tuple(MODELS), warmup=150),
    },
    trajectories=50,
    tested=50,
    points=500,
    T=10.0,
    paper=Paper(scnn=(4.223e-5, 1.15e-3, 3.239e-5), hnn=(8.49e-6, 2.29e-4, 8.75e-6)),
)
SYSTEM, SETTINGS = TASK.system, TASK.settings
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
