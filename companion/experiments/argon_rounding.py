r"""How round a unit vector should be at zero: the epsilon of the modulus, for two networks.

The unit vectors of eq. 8 of Ma & Chan (2022) turn round at once where a hidden vector passes zero;
$e = u / \sqrt{|u|^2 + \epsilon^2}$ takes a length $\epsilon$ for it. Two small networks, one of the
paper's kind and one on ordered pairs, with the same data, steps and first weights for every
epsilon. Errors are on configurations that are kept for choices, not on the test set of `argon`.
"""

from dataclasses import replace
from functools import partial

from companion.experiments._argon import VALIDATION, Model, Settings, Task
from companion.force_models import RelativeForces
from companion.permutations import EdgeNetwork
from companion.systems.argon import Argon

NAME = "argon_rounding"
SUMMARY = "Argon: the kink of a unit vector at zero, rounded off more and more"
PAPER = "Ma & Chan (2022), eq. 8; the rounding is not theirs"

# of the modulus; a model is named by its epsilon in hundredths
EPSILONS = (1e-6, 0.1, 0.3, 1.0, 2.0, 4.0)
NETWORKS = {
    "plain": Model(partial(RelativeForces, 4, (32, 48, 32))),
    "s4": Model(partial(EdgeNetwork, (16, 16), powers=4), steps=0.5, batch=128),
}
MODELS = {
    # a point would end the variant's name in the files of weights
    f"{name}-{100 * epsilon:.0f}": replace(model, make=partial(model.make, epsilon=epsilon))
    for name, model in NETWORKS.items()
    for epsilon in EPSILONS
}
SETTINGS = {
    "ci": Settings(40, ("plain-0", "plain-100"), 500),
    "demo": Settings(500, tuple(MODELS), 20_000),
    "full": Settings(3000, tuple(MODELS)),
}
TASK = Task(NAME, Argon(4), MODELS, SETTINGS, dynamics=False, drawn=VALIDATION)
train, load, evaluate = TASK.train, TASK.load, TASK.evaluate
