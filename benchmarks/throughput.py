"""Training throughput: members of an ensemble at once, eager and as a CUDA graph, and the paper's.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --paper-code DIR --paper-python PYTHON --threads 2

Milliseconds are for a *seed-step*, one training step of one member: an ensemble of S that takes T
ms a step needs T / S for each. A step is that of `companion.training.fit`, with everything that a
user gets. On a GPU the table ends with the floor: what launching the kernels of an eager step costs
alone.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import paper as paper_code
from benchmarks import timing
from benchmarks.paper import PaperCode
from benchmarks.step_time import BATCH, CASES, network
from companion import datasets, training

MEMBERS = (1, 8, 64)
OPTIMIZERS = {"Adam": torch.optim.Adam, "SOAP": training.SOAP}


def seed_steps(case: str, S: int, optimizer: str, device: torch.device, graph: bool) -> timing.Task:
    """`fit` of S members at once; the seconds returned are divided by S."""
    net = network(case, S).to(device)
    measure = datasets.NoisyMeasurements(CASES[case][0](), range(S), batch=BATCH, device=device)

    def loss(net, q, qdot, qddot):
        return (net.acceleration(q, qdot, check=False) - qddot).square().mean((1, 2))

    def run(n: int) -> float:
        begun = time.perf_counter()
        training.fit(
            net,
            loss,
            measure,
            steps=n,
            lr=1e-4,
            optimizer=OPTIMIZERS[optimizer],
            progress=False,
            graph=graph,
        )
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / S

    return run


def floor(case: str, S: int, device: torch.device) -> timing.Task:
    """As many empty launches as an eager Adam step has kernels, divided by S."""
    step = seed_steps(case, S, "Adam", device, graph=False)
    step(3)
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        step(10)
    kernels = sum(event.count for event in record.key_averages()) // 10
    x = torch.zeros(1, device=device)

    def run(n: int) -> float:
        begun = time.perf_counter()
        for _ in range(n * kernels):
            x.add_(1)
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / S

    return run


def measure(
    case: str, device: torch.device, rounds: int, seconds: float, paper: PaperCode | None
) -> dict:
    """The table of a case."""
    gpu = device.type == "cuda"
    tasks = {}
    for S in MEMBERS:
        name = f"{S} member{'s' if S > 1 else ''}"
        for optimizer in OPTIMIZERS:
            tasks[f"{name}, {optimizer}"] = seed_steps(case, S, optimizer, device, graph=gpu)
        if gpu:
            tasks[f"{name}, Adam, eager"] = seed_steps(case, S, "Adam", device, graph=False)
            tasks[f"{name}, launches alone"] = floor(case, S, device)
    if paper is not None:
        tasks["the paper's TensorFlow, fit"] = paper.task(case, "fit")
    return {"seed-step": timing.in_turns(tasks, rounds, seconds, "1 member, Adam")}


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/throughput.json`."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.throughput")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each task in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    paper_code.add_options(parser)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    device = training.device(options.device)
    cases = {}
    with paper_code.running(options) as paper:
        for case in CASES:
            print(f"{case} ...", flush=True)
            cases[case] = measure(case, device, options.rounds, options.seconds, paper)
    more = {} if paper is None else {"paper": paper.about}
    command = "python -m benchmarks.throughput " + " ".join(words)
    return timing.save("throughput", command.strip(), options.rounds, cases, device, **more)


if __name__ == "__main__":
    print(main())
