"""The command line: python -m companion list | train NAME | evaluate NAME."""

import argparse
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

from companion import artifacts, experiments, training


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0 done, 1 figures disagree, 2 bad input."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(words)
    try:
        return options.run(options, "python -m companion " + " ".join(words))
    except (ValueError, OSError, training.TrainingError) as error:
        print(f"companion: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "companion: stopped; the same command goes on from the last checkpoint", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m companion", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    listing = commands.add_parser("list", help="the experiments and whether their weights are here")
    listing.set_defaults(run=_list)

    train = commands.add_parser("train", help="train an experiment, all seeds at once; resumes")
    train.add_argument("name", help="an experiment of `list`")
    train.add_argument(
        "--budget", default=None, help="ci, demo or full (default: COMPANION_BUDGET)"
    )
    train.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    train.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    train.add_argument("--output", type=Path, help="folder (default: runs/NAME-BUDGET)")
    many = "for an experiment of many jobs (comparison): "
    train.add_argument("--jobs", type=int, metavar="N", help=many + "so many processes")
    train.add_argument("--cluster", metavar="ADDRESS", help=many + "a Dask scheduler, tcp://...")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="recompute every figure from stored weights")
    evaluate.add_argument("name", help="an experiment of `list`")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.add_argument("--weights", type=Path, help="folder of a run (default: the package's)")
    evaluate.set_defaults(run=_evaluate)
    return parser


def _list(options: argparse.Namespace, command: str) -> int:
    for name in experiments.names():
        here = artifacts.weight_files(artifacts.folder(name))
        state = "weights here" if here else "no weights"
        print(f"{name:20} {experiments.get(name).SUMMARY} ({state})")
    return 0


def _train(options: argparse.Namespace, command: str) -> int:
    experiment = experiments.get(options.name)
    budget = training.budget(options.budget)
    if options.seeds < 1:
        raise ValueError(f"--seeds must be 1 or more, got {options.seeds}")
    folder = options.output or Path("runs") / f"{options.name}-{budget}"
    doors = {"cluster": options.cluster, "jobs_at_once": options.jobs}
    doors = {name: value for name, value in doors.items() if value is not None}
    if doors and "cluster" not in inspect.signature(experiment.train).parameters:
        raise ValueError(
            f"{options.name} trains all its seeds as one job, which cannot be spread; leave out "
            "--jobs and --cluster"
        )
    experiment.train(budget, range(options.seeds), options.device, folder, command, **doors)
    print("evaluating ...")
    report = _as_report(experiment, *experiment.evaluate(folder, progress=True, keep_curves=True))
    artifacts.save_metrics(folder, report)
    _print(report, experiment)
    print(f"weights and metrics are in {folder}")
    return 0


def _evaluate(options: argparse.Namespace, command: str) -> int:
    experiment = experiments.get(options.name)
    folder = options.weights or artifacts.folder(options.name)
    stored = artifacts.load_metrics(folder)
    figures, about = experiment.evaluate(folder, progress=not options.json)
    report = _as_report(experiment, figures, about)
    if options.json:
        print(json.dumps(report, allow_nan=False))
    else:
        _print(report, experiment)
    wrong = artifacts.disagreements(stored, figures) + [
        f"{key}: metrics.json and the weights name different ones"
        for key in ("experiment", "budget", "provenance")
        if stored[key] != report[key]
    ]
    for line in wrong:
        print(f"companion: the stored figures do not hold here: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _as_report(experiment: ModuleType, figures: list[artifacts.Figure], about: dict) -> dict:
    return {
        "experiment": experiment.NAME,
        "budget": about["budget"],
        "provenance": about["provenance"],
        "figures": [figure.summary() for figure in figures],
    }


def _print(report: dict, experiment: ModuleType) -> None:
    made = report["provenance"]
    print(f"{experiment.SUMMARY}\n{experiment.PAPER}")
    print(
        f"budget {report['budget']}, {made['steps']} steps, {len(made['seeds'])} seeds, "
        f"{made['device']}, torch {made['torch']}, {made['date']}\n"
    )
    print(f"{'figure':46} {'paper':>9} {'aim':>9} {'ours (mean ± spread over seeds)':>34}")
    for figure in report["figures"]:
        ours = figure["ours"]
        mine = "ran away" if ours["mean"] is None else f"{ours['mean']:.2e} ± {ours['spread']:.1e}"
        mine += f" (n = {ours['n']})"
        print(f"{figure['name']:46} {_cell(figure['paper'])} {_cell(figure['aim'])} {mine:>34}")


def _cell(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.2e}"


if __name__ == "__main__":
    sys.exit(main())
