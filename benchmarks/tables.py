"""The tables of README.md, from results/*.json; nobody types a number there.

python -m benchmarks.tables
"""

import json
from pathlib import Path

from benchmarks.timing import RESULTS
from companion._checkpoint import write_atomically

README = Path(__file__).parent / "README.md"
TITLES = {"kepler": "Kepler, rotations", "two_particle": "Two particles, rotations + translations"}


def table(name: str) -> str:
    """The measurements of one file of results as Markdown."""
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    lines = []
    for case, groups in stored["cases"].items():
        for group, rows in groups.items():
            lines += [
                f"| {TITLES[case]}: {group} | ms | ratio | its quartiles |",
                "|---|---:|---:|---|",
            ]
            for row, numbers in rows.items():
                ms, ratio = numbers["ms"]["median"], numbers["ratio"]
                lines.append(
                    f"| {row} | {ms:.3g} | {ratio['median']:#.3g} | "
                    f"{ratio['low']:#.3g} to {ratio['high']:#.3g} |"
                )
            lines.append("")
    made = stored["provenance"]
    paper = ", ".join(f"{key} {value}" for key, value in made.get("paper", {}).items())
    threads = f"{made['threads']} thread(s), " if made["threads"] else ""
    lines.append(
        f"{made['device']}, {threads}torch {made['torch']}, "
        f"{paper + ', ' if paper else ''}{made['rounds']} rounds, load average "
        f"{made['load_average']} at the end, {made['date']} {made['time']}; `{made['command']}`"
    )
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """The README with the text between its markers replaced."""
    for name in ("step_time", "throughput", "rollout"):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + table(name) + "\n" + end + rest.split(end)[1]
    return text


def main() -> Path:
    """Writes the tables into README.md."""
    write_atomically(README, with_tables(README.read_text()).encode())
    return README


if __name__ == "__main__":
    print(main())
