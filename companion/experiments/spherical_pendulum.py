"""The spherical pendulum (Syväri et al. 2021, A.1)."""

from companion import systems
from companion.experiments._canonical import Model, Settings, Task
from companion.experiments.coupled_oscillators import modes

NAME = "spherical_pendulum"
SUMMARY = "The spherical pendulum of the paper"
PAPER = "Syväri et al. (2021), appendix A.1, eqs. 19 to 22"


MODELS = {
    "hnn": Model("hnn"),
    "scnn": Model("scnn", n=2, circular=(0, 1)),
    "exact": Model("exact", n=2, circular=(0, 1), make=modes),
    "scnn-straight": Model("scnn", n=2, alpha_1=1e-3, alpha_2=1e-3),
}
TASK = Task(
    name=NAME,
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
