"""The tables of README.md, from results/*.json; nobody types a number there.

python -m benchmarks.tables
"""

import json
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
}


def table(name: str) -> str:
    """The measurements of one file of results as Markdown."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    lines = []
    for case, groups in stored["cases"].items():
        for group, rows in groups.items():
            ladder = any("gain" in numbers for numbers in rows.values())
            lines += [
                f"| {TITLES[case]}: {group} | ms | ratio | its quartiles |"
                + " this change alone |" * ladder,
                "|---|---:|---:|---|" + "---:|" * ladder,
            ]
            for row, numbers in rows.items():
                ms, ratio = numbers["ms"]["median"], numbers["ratio"]
                gain = f" {_three(numbers['gain'])} |" if "gain" in numbers else " |"
                lines.append(
                    f"| {row} | {ms:.3g} | {_three(ratio['median'])} | "
                    f"{_three(ratio['low'])} to {_three(ratio['high'])} |" + gain * ladder
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


WRITERS = {
    "step_time": table,
    "throughput": table,
    "rollout": table,
    "scalars": table,
    "scalars_accuracy": accuracy,
    "canonical": table,
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
