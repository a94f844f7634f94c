"""Runs inside the interpreter that has JAX and objax; started by `benchmarks.scalars_paper`.

It trains the networks of Yao et al. (2021) with their own code: their networks, their trainers,
their solver and its adjoint. What their programs import and a training step does not use (loggers,
plots, torch's loaders) are empty modules here; jax has lost one name that objax asks for. The
variants after theirs change one thing after the other, still in JAX. Questions are
lines of JSON, so are answers, after "> ":

    ["steps", kind, name, n]        n more training steps; their processor time in seconds
    ["compile", kind, name]         what the first step would; nothing moves
    ["loss", kind, name]            of the training data, before the next step
    ["predict", kind, name, path]   trajectories from the test states of the data, into path
"""

import json
import os
import sys
import time
import types
from functools import partial
from importlib.metadata import version

SOURCE, EMLP, DATA, THREADS = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(THREADS)])  # JAX takes what is there


class Unused:
    """Anything that is imported, made or inherited, and never asked to do something."""

    def __init__(self, *_, **__):
        pass


def export(thing):
    sys.modules[thing.__module__].__dict__.setdefault("__all__", []).append(thing.__name__)
    return thing


class Absent(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return {"export": export, "Named": type}.get(name, Unused)


for absent in (
    *("dill", "sklearn", "sklearn.cluster", "torch", "torch.nn", "torch.utils", "torch.utils.data"),
    *("matplotlib", "matplotlib.animation", "matplotlib.pyplot", "mpl_toolkits"),
    *("mpl_toolkits.mplot3d", "oil", "oil.logging", "oil.logging.lazyLogger", "oil.tuning"),
    *("oil.tuning.configGenerator", "oil.tuning.study", "oil.utils", "oil.utils.mytqdm"),
    "oil.utils.utils",
):
    sys.modules[absent] = Absent(absent)

# ruff: noqa: E402 -- what is absent must be there before their modules ask for it
import jax
import jax.numpy as jnp
import numpy as np

if not hasattr(jax.sharding, "PmapSharding"):
    jax.sharding.PmapSharding = Unused  # objax asks whether an array has it
import objax

sys.path[:0] = [SOURCE, SOURCE + "/experiments", EMLP]
from scalaremlp import nn
from trainer import hamiltonian_dynamics as theirs

# emlp after its copy in scalaremlp: of overloads with one name plum keeps the last
# isort: split
from emlp.groups import O2eR3
from emlp.nn import EMLPH, MLPH, EMLPode, MLPode
from emlp.reps import Scalar, T

POINTS, DT = 150, 0.2
FLOW = {"node": theirs.BOdeFlow, "hnn": theirs.BHamiltonianFlow}
TRAINER = {"node": theirs.IntegratedODETrainer, "hnn": theirs.IntegratedDynamicsTrainer}
# Their learning rates: (first, then from an epoch on times a factor); an epoch is a step.
SCHEDULE = {"node": (5e-3, (300, 0.5), (1200, 0.2)), "hnn": (5e-3, (200, 0.4), (1000, 0.1))}
BASELINES = {"MLP": (MLPode, MLPH), "EMLP": (EMLPode, EMLPH)}


def learning_rate(kind, name):
    if name in BASELINES:
        return lambda step: 3e-3
    first, *changes = SCHEDULE[kind]
    return lambda step: first * next((f for e, f in reversed(changes) if step >= e), 1.0)


def their_network(kind, name, z):
    if name in BASELINES:
        ode, energy = BASELINES[name]
        state, group = 4 * T(1), O2eR3()
        return (ode if kind == "node" else energy)(
            state, state if kind == "node" else Scalar, group, ch=128, num_layers=3
        )
    if kind == "hnn":
        return nn.InvarianceLayer_objax(n_layers=3, n_hidden=100)
    mu, gamma = nn.radial_basis_transform(nn.compute_scalars(z[:, 0].reshape(-1, 4, 3)), nrad=200)
    return nn.EquivarianceLayer_objax(n_layers=3, n_hidden=100, mu=mu, gamma=gamma)


class OnOurFeatures(objax.Module):
    """A network on the features of `companion.scalars.Scalars`; H, or the rates by eq. (9)."""

    def __init__(self, kind, data, mlp):
        super().__init__()
        self.kind, self.mlp = kind, mlp
        self.B, self.given = jnp.asarray(data["B"]), jnp.asarray(data["given"])
        self.lengths = tuple(int(i) for i in data["lengths"])
        self.centre, self.scale = jnp.asarray(data["centre"]), jnp.asarray(data["scale"])

    def __call__(self, z, t=None):
        a = self.B @ jnp.concatenate([z.reshape(4, 3), self.given])
        products = (a @ a.T)[jnp.triu_indices(len(a))]
        lengths = jnp.stack([jnp.sqrt(a[i] @ a[i]) for i in self.lengths])
        phi = jnp.concatenate([lengths, products])
        f = self.mlp((phi - self.centre) / self.scale)
        return f.sum() if self.kind == "hnn" else (f.reshape(4, -1) @ a).reshape(-1)


class OurNetwork(objax.Module):
    """The network of `companion`, with the weights that it starts from."""

    def __init__(self, data):
        super().__init__()
        layers = range(len([name for name in data if name.startswith("W")]))
        variables = [(data[f"W{i}"], data[f"b{i}"]) for i in layers]
        self.layers = objax.ModuleList(
            [objax.ModuleList(objax.TrainVar(jnp.asarray(x)) for x in pair) for pair in variables]
        )
        self.output = objax.TrainVar(jnp.asarray(data["C"]))

    def __call__(self, x):
        for W, b in self.layers:
            x = jax.nn.silu(W.value @ x + b.value)
        return self.output.value @ x


def fixed_steps(Trainer, kind, one_interval):
    """Their trainer, with two RK4 steps an interval that are differentiated as they are."""

    class Fixed(Trainer):
        def loss(self, minibatch):
            (z0, _), z = minibatch
            if kind == "node":
                field = jax.vmap(lambda z: self.model(z, 0.0).reshape(-1))
            else:
                field = jax.vmap(lambda z: theirs.hamiltonian_dynamics(self.model, z, 0.0))
            if one_interval:
                ends = interval(field, z[:, :-1].reshape(-1, 12)).reshape(z[:, 1:].shape)
                return jnp.mean((ends - z[:, 1:]) ** 2)
            path = [z0]
            for _ in range(z.shape[1] - 1):
                path.append(interval(field, path[-1]))
            return jnp.mean((jnp.stack(path, axis=1) - z) ** 2)

    return Fixed


def interval(field, z, h=DT / 2):
    for _ in range(2):
        k1 = field(z)
        k2 = field(z + h / 2 * k1)
        k3 = field(z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(z + h * k3))
    return z


class Variant:
    """One way to train: `kind` is node or hnn; `name` one of theirs or of `changes`."""

    def __init__(self, kind, name, data):
        z = np.asarray(data["z"])
        times = np.tile(np.arange(z.shape[1], dtype=np.float32) * DT, (len(z), 1))
        self.batch = jax.device_put(((z[:, 0], times), z))
        changes = ["fixed steps", "one interval", "our features", "our network", "compiled step"]
        done = changes[: changes.index(name) + 1] if name in changes else []
        if "our features" in done:
            own = kind + "_"
            data = {key.removeprefix(own): value for key, value in data.items()}
            width, outputs = len(data["centre"]), len(data["C"])
            mlp = OurNetwork(data) if "our network" in done else None
            mlp = mlp or nn.BasicMLP_objax(width, outputs, n_hidden=100, n_layers=3)
            model = OnOurFeatures(kind, data, mlp)
        else:
            model = their_network(kind, name, z)
        Trainer = TRAINER[kind]
        if done:
            Trainer = fixed_steps(Trainer, kind, "one interval" in done)
        self.kind, self.model = kind, model
        self.trainer = Trainer(model, {}, objax.optimizer.Adam)
        self.rate = learning_rate(kind, name)
        self.taken = 0
        self.step = self._step
        if "compiled step" in done:
            self.step = objax.Jit(self._step, model.vars() + self.trainer.optimizer.vars())

    def _step(self, rate, batch):  # their Trainer.step; only the rate comes from outside
        gradient, _ = self.trainer.gradvals(batch)
        self.trainer.optimizer(rate, gradient)

    def steps(self, n):
        begun = time.process_time()
        for _ in range(n):
            self.step(self.rate(self.taken), self.batch)
            self.taken += 1
        jax.block_until_ready([x.value for x in self.model.vars().values()])
        return time.process_time() - begun

    def compile(self):
        jax.block_until_ready(self.trainer.gradvals(self.batch))

    def loss(self):
        return float(self.trainer.loss(self.batch))

    def predict(self, path):
        """With the tolerance of the rollout error that their training prints."""
        z0 = jnp.asarray(np.load(DATA)["test"])
        times = jnp.arange(POINTS) * DT
        flow = objax.Jit(partial(FLOW[self.kind], self.model), self.model.vars())
        np.save(path, np.asarray(flow(z0, times)))


def main():
    data = dict(np.load(DATA))
    about = {"jax": jax.__version__, "objax": version("objax")}
    print(">", json.dumps(about), flush=True)
    variants = {}
    for line in sys.stdin:
        verb, kind, name, *rest = json.loads(line)
        if (kind, name) not in variants:
            variants[kind, name] = Variant(kind, name, data)
        print(">", json.dumps(getattr(variants[kind, name], verb)(*rest)), flush=True)


if __name__ == "__main__":
    main()
