r"""How round a unit vector should be at zero: the epsilon of the modulus, for two networks.

The unit vectors of eq. 8 of Ma & Chan (2022) turn round at once where a hidden vector passes zero.
With $e = u / \sqrt{|u|^2 + \epsilon^2}$ they do so within a length $\epsilon$. Same data, same steps,
same first weights; the errors are on configurations that are kept for choices, not on the test set.
"""

from functools import partial

from companion.experiments._argon import VALIDATION, Model, Settings, Task
from companion.experiments.argon import PLAIN, S4
from companion.systems.argon import Argon

NAME = "argon_rounding"
SUMMARY = "Argon: the kink of a unit vector at zero, rounded off more and more"
PAPER = "Ma & Chan (2022), eq. 8; the rounding is not theirs"

EPSILONS = (1e-6, 0.1, 0.3, 1.0, 2.0, 4.0)
MODELS = {
    f"{name}-{epsilon:g}": Model(partial(make, epsilon=epsilon), steps=steps, batch=batch)
    for name, make, steps, batch in (("plain", PLAIN, 1.0, 256), ("s4", S4, 0.5, 128))
    for epsilon in EPSILONS
}
SETTINGS = {
    "ci": Settings(40, ("plain-1e-06", "plain-1"), 500),
    "demo": Settings(500, tuple(MODELS), 20_000),
    "full": Settings(3000, tuple(MODELS)),
}
TASK = Task(NAME, Argon(4), MODELS, SETTINGS, dynamics=False, drawn=VALIDATION)
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
