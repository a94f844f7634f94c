"""The tables of README.md, from results/*.json; nobody types a number there.

python -m benchmarks.tables
"""

import json
import statistics
from pathlib import Path

from benchmarks.timing import RESULTS
from companion._checkpoint import write_atomically

README = Path(__file__).parent / "README.md"
TITLES = {
    "kepler": "Kepler, rotations",
    "two_particle": "Two particles, rotations + translations",
    "node": "Springy pendulum, N-ODE",
    "hnn": "Springy pendulum, HNN",
    "two_body": "Two bodies",
    "argon": "Four argon atoms",
}
MORE = {"gain": "this change alone", "per second": "configurations a second"}


def table(name: str) -> str:
    """The measurements of one file of results as Markdown."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    lines = []
    for case, groups in stored["cases"].items():
        for group, rows in groups.items():
            more = [key for key in MORE if any(key in numbers for numbers in rows.values())]
            lines += [
                f"| {TITLES[case]}: {group} | ms | ratio | its quartiles |"
                + "".join(f" {MORE[key]} |" for key in more),
                "|---|---:|---:|---|" + "---:|" * len(more),
            ]
            for row, numbers in rows.items():
                ms, ratio = numbers["ms"]["median"], numbers["ratio"]
                lines.append(
                    f"| {row} | {ms:.3g} | {_three(ratio['median'])} | "
                    f"{_three(ratio['low'])} to {_three(ratio['high'])} |"
                    + "".join(f" {_more(k, numbers[k])} |" if k in numbers else " |" for k in more)
                )
            lines.append("")
    return "\n".join([*lines, _made(stored["provenance"])])


def accuracy(name: str) -> str:
    """How well both sides do after how long, and what that makes."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    lines = []
    for case, found in stored["cases"].items():
        lines += [
            f"| {TITLES[case]} | steps | seconds | state error | MSE of 5 states |",
            "|---|---:|---:|---:|---:|",
        ]
        for title, rows in (("the authors' code", found["theirs"]), ("companion", found["ours"])):
            lines += [
                f"| {title} | {row['steps']} | {row['seconds']:.3g} | {row['state']:.2g} | "
                f"{row['short']:.2g} |"
                for row in rows
            ]
        lines += ["", *_sooner(found["summary"]), ""]
    return "\n".join([*lines, _made(stored["provenance"])])


def forces(name: str) -> str:
    """Forces per second by driver, beside the test error after equal training."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    speed, learned = stored["cases"]["speed"], stored["cases"]["accuracy"]

    def pace(numbers: dict | None, each: int = 1) -> str:
        return f"{_count(1000 * each / numbers['ms']['median'])} |" if numbers else " |"

    lines = [
        "| forces on four atoms, one trajectory | by ASE's loop, a second | ratio of times | its "
        "quartiles | by `rollout`, a second | ratio of times | its quartiles |",
        "|---|---:|---:|---|---:|---:|---|",
    ]
    for row, found in speed.items():
        cells = [pace(found.get(way)) + _ratio(found.get(way)) for way in ("ase", "rollout")]
        lines.append(f"| {row} | {' '.join(cells)}")
    lines += [
        "",
        "| the same | thirty at once, a second | ratio of times | its quartiles | parameters | "
        "training steps | seconds | test RMSD, eV/Å |",
        "|---|---:|---:|---|---:|---:|---:|---|",
    ]
    for row, found in speed.items():
        cells = f"{pace(found.get('thirty'), 30)}{_ratio(found.get('thirty'))}"
        if "thirty" in found:
            lines.append(f"| {row} | {cells}" + _trained(learned.get(row)))
    return "\n".join([*lines, "", _made(stored["provenance"])])


def _ratio(numbers: dict | None) -> str:
    """Two cells: a ratio and its quartiles."""
    if numbers is None:
        return " | |"
    ratio = numbers["ratio"]
    return f" {_three(ratio['median'])} | {_three(ratio['low'])} to {_three(ratio['high'])} |"


def _trained(found: dict | None) -> str:
    """Four cells: parameters, steps, seconds, errors of every seed."""
    if found is None:
        return " | | | 0 |"
    runs = found["runs"]
    steps, seconds = (statistics.mean(run[key] for run in runs) for key in ("steps", "seconds"))
    errors = ", ".join(f"{run['rmsd']:.2g}" for run in runs)
    return f" {found['parameters']} | {_count(steps)} | {seconds:.3g} | {errors} |"


def _more(key: str, x: float) -> str:
    """A number of a further column."""
    return _count(x) if key == "per second" else _three(x)


def _count(x: float) -> str:
    """A large number to three digits."""
    return f"{float(f'{x:.3g}'):,.0f}"


def atoms(name: str) -> str:
    """Milliseconds by number of atoms."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    pairs, rows = stored["cases"]["pairs"], stored["cases"]["rows"]
    lines = [
        f"| forces, ms | {' | '.join(f'N = {N}' for N in pairs)} | exponent |",
        f"|---|{'---:|' * (len(pairs) + 1)}",
        f"| *pairs within the cutoff* | {' | '.join(map(_count, pairs.values()))} | |",
    ]
    for row, found in rows.items():
        ms = [f"{found['ms'][N]:.3g}" if N in found["ms"] else "" for N in pairs]
        slope = found["exponent"]
        lines.append(f"| {row} | {' | '.join(ms)} | {'' if slope is None else f'{slope:.1f}'} |")
    return "\n".join([*lines, "", _made(stored["provenance"])])


def _sooner(found: dict) -> list[str]:
    """The two comparisons of a summary in words."""

    def compared(ours: float | None, theirs: float) -> str:
        return (
            "companion does not reach it"
            if ours is None
            else f"companion {ours:.3g} s, {theirs / ours:.3g} times sooner"
        )

    return [
        f"- To the state error {found['error']:.2g}: the authors' code {found['theirs']:.3g} s, "
        f"{compared(found['ours'], found['theirs'])}.",
        f"- To the published {found['published error']:.2g}: the authors' code "
        f"{found['theirs, by pace']:.4g} s for its 2000 steps at the pace of this run (not run "
        f"to the end), {compared(found['ours, published'], found['theirs, by pace'])}.",
    ]


def _three(x: float) -> str:
    """A ratio to three digits."""
    return f"{x:#.3g}".rstrip(".")


def _made(made: dict) -> str:
    """Where, with what and how it was measured."""
    paper = ", ".join(f"{key} {value}" for key, value in made.get("paper", {}).items())
    threads = f"{made['threads']} thread(s), " if made["threads"] else ""
    rounds = f"{made['rounds']} round{'s' * (made['rounds'] > 1)}"
    return (
        f"{made['device']}, {threads}torch {made['torch']}, "
        f"{paper + ', ' if paper else ''}{rounds}, load average "
        f"{made['load_average']} at the end, {made['date']} {made['time']}; `{made['command']}`"
    )


def homework(name: str) -> str:
    """Seconds a submission of each assignment, and three hundred extrapolated."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    ways = list(next(iter(stored["cases"].values())))
    lines = [
        "| assignment | submissions |"
        + "".join(f" --jobs {k}: start, s | a submission, s | *300, min* |" for k in ways),
        "|---|---:|" + "---:|" * (3 * len(ways)),
    ]
    for assignment, found in stored["cases"].items():
        cells = [
            f" {x['start']:.3g} | {x['each']:.3g} | {x['many'] / 60:.3g} |" for x in found.values()
        ]
        lines.append(f"| {assignment} | {found[ways[0]]['copies']:.0f} |{''.join(cells)}")
    return "\n".join([*lines, "", _made(stored["provenance"])])


def pages(name: str) -> str:
    """What a page of each build costs its reader."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    lines = [
        "| page | build | files | kB | kB compressed | first paint, ms | formulas set, ms |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for page in stored["cases"]["now"]:
        for build, rows in stored["cases"].items():
            row = rows[page]
            lines.append(
                f"| {page} | {build} | {row['files']} | {row['kB']:.0f} | "
                f"{row['kB_compressed']:.0f} | {row['paint_ms']:.0f} | {row['formulas_ms']:.0f} |"
            )
    return "\n".join([*lines, "", _made(stored["provenance"])])


WRITERS = {
    "step_time": table,
    "throughput": table,
    "rollout": table,
    "scalars": table,
    "scalars_accuracy": accuracy,
    "canonical": table,
    "argon_training": table,
    "argon_forces": forces,
    "argon_atoms": atoms,
    "homework_grading": homework,
    "site": pages,
}


def with_tables(text: str) -> str:
    """The README with the text between its markers replaced."""
    for name, write in WRITERS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + write(name) + "\n" + end + rest.split(end)[1]
    return text


def main() -> Path:
    """Writes the tables into README.md."""
    write_atomically(README, with_tables(README.read_text()).encode())
    return README


if __name__ == "__main__":
    print(main())
