"""The double pendulum (Syväri et al. 2021, section 3.2.4)."""

from companion import systems
from companion.experiments._canonical import Model, Paper, Settings, Task

NAME = "double_pendulum"
SUMMARY = "The double pendulum, with one and two cyclic coordinates"
PAPER = "Syväri et al. (2021), section 3.2.4 and table 1"

MODELS = {
    "hnn": Model("hnn"),
    "scnn": Model("scnn", n=1, beta=0.0),
    "scnn-2": Model("scnn", n=2, beta=0.0),
}
TASK = Task(
    name=NAME,
    system=systems.DoublePendulum(),
    models=MODELS,
    settings={
        "ci": Settings(steps=300, models=("hnn", "scnn"), width=32, warmup=15),
        "demo": Settings(steps=2000, models=("hnn", "scnn")),
        "full": Settings(steps=4000, models=tuple(MODELS), warmup=200),
    },
    trajectories=80,
    tested=20,
    points=500,
    T=10.0,
    angles=(0, 1),
    paper=Paper(scnn=(2.446e-2, 1.32, 1.86e-2), hnn=(4.701e-2, 1.80, 0.2293)),
)
SYSTEM, SETTINGS = TASK.system, TASK.settings
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
