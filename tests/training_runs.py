"""Small training runs for the tests; as a script, runs that are killed or whose disk is full.

python tests/training_runs.py FOLDER leaves in FOLDER, for each optimiser, the weights of a run that
nobody disturbed and of one that SIGKILL ended several times, and what a file-size limit did to a
third.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from companion import datasets, invariants, systems, training
from companion._checkpoint import load_tensors, save_tensors
from companion.lagrangian import LagrangianNetwork

OPTIMIZERS = {"soap": training.SOAP, "adam": torch.optim.Adam}
STEPS = 60


def network(seeds=(3, 4), dtype=torch.float32, hidden=(24, 24)) -> LagrangianNetwork:
    layer = invariants.Rotations(1, 3)
    return LagrangianNetwork(
        layer, hidden, seeds=seeds, mass=[1.0] * 3, output_scale=0.01, dtype=dtype
    )


def measurements(seeds=(3, 4), dtype=torch.float32) -> datasets.NoisyMeasurements:
    return datasets.NoisyMeasurements(systems.Kepler(), seeds, batch=8, dtype=dtype)


def loss(net, q, qdot, qddot):
    error = (net.acceleration(q, qdot, check=False) - qddot).square().sum(-1)
    return torch.log1p(error).mean(-1)


class Stopped(Exception):
    """A run that ends before its time."""


def train(
    name: str, checkpoint: Path | None, stop: int | None = None, pipe: int | None = None
) -> tuple[LagrangianNetwork, dict]:
    """A run with a checkpoint every third step; the network and its history without the time.

    Every request for a batch writes a byte to `pipe`.
    """
    measure = measurements()

    def batch(step):
        if step == stop:
            raise Stopped
        if pipe is not None:
            os.write(pipe, b".")
        return measure(step)

    net = network()
    history = training.fit(
        net,
        loss,
        batch,
        steps=STEPS,
        every=3,
        window=5,
        optimizer=OPTIMIZERS[name],
        checkpoint=checkpoint,
        progress=False,
    )
    return net, {"steps": history.steps, "loss": history.loss}


def _save(result: Path, name: str, checkpoint: Path | None, pipe: int | None) -> None:
    net, history = train(name, checkpoint, pipe=pipe)
    save_tensors(result, net.state_dict(), history)


def _fork(task, *arguments) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            task(*arguments)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def _killed_five_times(folder: Path, name: str) -> list[int]:
    """Kills the run five times, at random moments, then lets it end.

    Returns the step of the checkpoint after each kill.
    """
    moments = random.Random(name)
    checkpoint = folder / f"{name}-checkpoint"
    reached = []
    read, write = os.pipe()
    for _ in range(5):
        pid = _fork(_save, folder / f"{name}-killed", name, checkpoint, write)
        for _ in range(moments.randint(7, 14)):  # the first four come before the first step
            begun = time.perf_counter()
            os.read(read, 1)
        time.sleep((time.perf_counter() - begun) * moments.uniform(0, 2))
        os.kill(pid, signal.SIGKILL)
        _wait(pid, expect=-signal.SIGKILL)
        reached.append(load_tensors(checkpoint)[1]["step"])
        os.set_blocking(read, False)
        with suppress(BlockingIOError):
            while os.read(read, 4096):
                pass
        os.set_blocking(read, True)
    _wait(_fork(_save, folder / f"{name}-killed", name, checkpoint, write))
    return reached


def _wait(pid: int, expect: int = 0) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != expect:
        raise SystemExit(f"expected the status {expect} of a run, got {code}")


def _limited(folder: Path) -> None:
    """Trains on with files limited to a size that the checkpoint exceeds: a real full disk."""
    checkpoint = folder / "limited-checkpoint"
    with suppress(Stopped):
        train("soap", checkpoint, stop=30)
    before = checkpoint.read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))
    try:
        train("soap", checkpoint)
        message = "no error"
    except OSError as error:
        message = str(error)
    kept = checkpoint.read_bytes() == before
    left = sorted(path.name for path in folder.iterdir() if "limited" in path.name)
    (folder / "limited.json").write_text(
        json.dumps({"message": message, "kept": kept, "left": left})
    )


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
    # every child inherits the solved equations of motion and what optimisers import
    measurements()(0)
    torch.optim.SGD(network().parameters()).step()
    for name in OPTIMIZERS:
        _wait(_fork(_save, folder / f"{name}-whole", name, None, None))
        (folder / f"{name}-reached.json").write_text(json.dumps(_killed_five_times(folder, name)))
    _wait(_fork(_limited, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
