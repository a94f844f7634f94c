"""Runs inside the interpreter that has TensorFlow; started by `benchmarks.paper`.

Every line of input is a JSON list [case, kind, n]; the answer is the time in seconds of n training
steps of the paper's code, set up as its `train_model.py` sets it up: 2 x 128 softplus, Adam, batch
128, noise 1e-3. "bare" steps repeat one batch; "fit" steps are those of `model.fit` on its own data
pipeline, counted from the end of the first (before it the shuffle buffer fills).
"""

import json
import sys
import time

sys.path.insert(0, sys.argv[1])

import numpy as np
import tensorflow as tf
import tf_keras
from conservative_nn import data_generator, dynamical_system, initializer, kepler
from conservative_nn.nn_lagrangian import SingleParticleNNLagrangian, TwoParticleNNLagrangian
from conservative_nn.nn_lagrangian_model import NNLagrangianModel

WIDTH, BATCH, SIGMA = 128, 128, 1e-3


def dense(stddev):
    start = tf.keras.initializers.RandomNormal(stddev=stddev, seed=1)
    return tf.keras.layers.Dense(WIDTH, activation="softplus", kernel_initializer=start)


def problem(case):
    layers = [dense(2 / WIDTH**0.5), dense(1 / WIDTH**0.5)]
    if case == "kepler":
        data = data_generator.KeplerDataGenerator(
            kepler.KeplerSolution(mass=1.0, alpha=1.0, excentricity=0.8, angular_momentum=1.0),
            sigma=SIGMA,
        )
        lagrangian = SingleParticleNNLagrangian(3, layers, rotation_invariant=True)
    else:
        masses = {"mass1": 1.0, "mass2": 0.8}
        data = data_generator.DynamicalSystemDataGenerator(
            dynamical_system.TwoParticleSystem(4, mu=1.0, kappa=1.0, **masses),
            initializer.TwoParticleConstantInitializer(8, **masses),
            sigma=SIGMA,
        )
        symmetry = dict.fromkeys(
            ("rotation_invariant", "translation_invariant", "reflection_invariant"), True
        )
        lagrangian = TwoParticleNNLagrangian(4, layers, **symmetry)
    model = NNLagrangianModel(lagrangian)
    optimizer = tf.keras.optimizers.Adam(learning_rate=1e-4)
    model.compile(loss="mse", metrics=[], optimizer=optimizer)
    shuffled = data.dataset.shuffle(128 * BATCH).prefetch(tf.data.AUTOTUNE)
    return model, shuffled.batch(BATCH, drop_remainder=True), data.dataset.batch(BATCH)


class Clock(tf.keras.callbacks.Callback):
    """Times of the ends of the steps."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def main():
    threads = int(sys.argv[2])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    np.random.seed(0)  # noqa: NPY002 -- their data generators draw from it
    versions = {"tensorflow": tf.__version__, "tf-keras": tf_keras.__version__}
    print(">", json.dumps(versions), flush=True)
    problems, batches = {}, {}
    for line in sys.stdin:
        case, kind, n = json.loads(line)
        if case not in problems:
            problems[case] = problem(case)
            batches[case] = next(iter(problems[case][2]))
        model, stream, _ = problems[case]
        if kind == "bare":
            step = model.make_train_function()
            again = iter(tf.data.Dataset.from_tensors(batches[case]).repeat())
            begun = time.perf_counter()
            for _ in range(n):
                step(again)
            seconds = time.perf_counter() - begun
        else:
            clock = Clock()
            model.fit(stream, epochs=1, steps_per_epoch=n + 1, callbacks=[clock], verbose=0)
            seconds = clock.ends[-1] - clock.ends[0]
        print(">", seconds, flush=True)


if __name__ == "__main__":
    main()
