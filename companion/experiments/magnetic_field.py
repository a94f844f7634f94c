"""A charged particle in a magnetic and an electric field (Syväri et al. 2021, A.2)."""

from companion import systems
from companion.experiments._canonical import Model, Settings, Task
from companion.experiments.coupled_oscillators import modes

NAME = "magnetic_field"
SUMMARY = "A charged particle in a magnetic field and a trap"
PAPER = "Syväri et al. (2021), appendix A.2, eqs. 23 to 25"


MODELS = {
    "hnn": Model("hnn"),
    "scnn": Model("scnn", n=2, circular=(0, 1)),
    "exact": Model("exact", n=2, circular=(0, 1), make=modes),
    "scnn-straight": Model("scnn", n=2, alpha_1=1e-2, alpha_2=1e-2),
}
TASK = Task(
    name=NAME,
    system=systems.MagneticField(),
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
