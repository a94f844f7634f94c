"""How long each chapter runs: measured, stored, and the page that shows it.

    python -m tools.runtime measure ci|demo [PAGE ...] [--busy] [--force]    run notebooks, store it
    python -m tools.runtime make                                             write book/runtime.md
    python -m tools.runtime check                                            say whether it is stale

`measure` runs the notebooks one after another, each in a fresh kernel, and after each one writes
what it took to benchmarks/results/runtime.json. It leaves out those whose code did not change since
their last measurement on the same kind of device, so it may be stopped and started again; --busy
repeats those whose core was shared with other programs. The times of `full` are not measured here;
they stand in the artifacts, with the device.
"""

import argparse
import re
import sys
from pathlib import Path

from companion import artifacts
from tools import source
from tools.run_times import STORE, busy, load, measure, minutes
from tools.source import ROOT, SourceError

PAGE = "runtime"
BUDGETS = ("ci", "demo")
# "**Time:** 60 minutes to read, a minute to run": what a chapter's contract promises.
CONTRACT = re.compile(r"^\*\*Time:\*\* (\d+) minutes to read, (.+?) to run\b", re.MULTILINE)
WORDS = {"half a minute": 0.5, "under a minute": 1.0, "a minute": 1.0, "two minutes": 2.0}

HEAD = """\
# How long does it run?

% Written by `python -m tools.runtime make` from {store}
% and from the artifacts. Do not edit.

Three budgets, chosen by the environment variable `COMPANION_BUDGET`: `ci` made the outputs on these
pages, `demo` is what you get on Colab and on your own machine, `full` trained the stored networks.

## The chapters

Minutes to read are an estimate, those to run are measured: every notebook in a fresh kernel, on one
thread, start and imports included. {devices}
On a CPU the table counts the time of the *processor*, which is what a clock shows on an idle core.
On Colab's shared cores expect more. A dash is a run that nobody has measured yet.
{shared}
:::{{table}} Minutes, by chapter and budget
:name: tab-runtime
:class: sortable no-filter

{chapters}
:::

{totals}

`python -m tools.runtime measure ci` (or `demo`) repeats the measurement, for the notebooks whose
code has changed since; names of chapters after it choose some, `--busy` repeats what shared its
core, `--force` everything.

## The stored networks

What the pages load was trained once at the budget `full`. Here the minutes are by the clock, for
all seeds together, as the artifact says.

:::{{table}} What the full runs took
:name: tab-runtime-full
:class: sortable

{artifacts}
:::

`python -m companion train NAME --budget full` repeats one, and
`python -m companion evaluate NAME` recomputes its figures from the stored weights.
"""


def promises(page: str, root: Path = ROOT) -> tuple[int, float] | None:
    """(minutes to read, minutes to run) in the contract of a page; None if it has none.

    SourceError for a time to run that is not in WORDS.
    """
    found = CONTRACT.search(source.chapter_path(page, root).read_text("utf8"))
    if not found:
        return None
    if found[2] not in WORDS:
        raise SourceError(f"book/{page}.md: {found[2]!r} to run: write one of {', '.join(WORDS)}")
    return int(found[1]), WORDS[found[2]]


def code_of(root: Path) -> dict[str, str]:
    """Every page that has code, in reading order, and all its code."""
    found = {}
    for page in source.pages(root):
        cells = source.read_cells(source.chapter_path(page, root).read_text("utf8")).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        if code:
            found[page] = "\n".join(code)
    return found


def chapter_table(measured: list[dict], pages: list[str], root: Path) -> str:
    """A row a chapter, a column a budget and device (of dashes for a budget without any)."""
    columns = [
        (budget, device)
        for budget in BUDGETS
        for device in sorted({m["device"] for m in measured if m["budget"] == budget}) or [""]
    ]
    took = {(m["page"], m["budget"], m["device"]): minutes(m) for m in measured}
    several = len({device for _, device in columns} - {""}) > 1
    heads = [f"`{b}`, {device}" if several and device else f"`{b}`" for b, device in columns]
    lines = [f"| chapter | to read | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for page in pages:
        reading = promises(page, root)
        times = [took.get((page, *column)) for column in columns]
        cells = [f"{t:.1f}" if t is not None else "–" for t in times]
        cells = [str(reading[0]) if reading else "–", *cells]
        lines.append(f"| {{doc}}`{page}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def used_by(name: str, code: dict[str, str]) -> list[str]:
    """The chapters whose code names this artifact, or imports its experiment."""
    wanted = re.compile(rf'"{name}"|experiments import [^\n]*\b{name}\b')
    return [page for page, text in code.items() if wanted.search(text)]


def artifact_table(code: dict[str, str]) -> str:
    """A row an artifact of the package."""
    heads = ("experiment", "used by", "device", "threads", "seeds", "minutes")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for path in sorted(artifacts.HERE.glob("*/metrics.json")):
        made = artifacts.load_metrics(path.parent)["provenance"]
        pages = ", ".join(f"{{doc}}`{page}`" for page in used_by(path.parent.name, code))
        cells = (
            f"`{path.parent.name}`",
            pages or "–",
            made["device"],
            made["threads"] or "–",
            len(made["seeds"]),
            f"{made['wall_time_s'] / 60:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def devices(measured: list[dict]) -> str:
    """Where the chapters were run, in a sentence or two."""
    if not measured:
        return ""
    places = sorted({(m["device"].removeprefix("CPU: "), m["torch"]) for m in measured})
    return (
        "Measured on " + " and on ".join(f"{d} with torch {torch_}" for d, torch_ in places) + "."
    )


def shared(measured: list[dict]) -> str:
    """How many measurements are too long because other programs ran."""
    count = sum(map(busy, measured))
    if not count:
        return ""
    which = "All" if count == len(measured) else f"{count} of the {len(measured)}"
    return (
        f"{which} runs shared their core with other programs, which costs processor time too: "
        "for them the table says how long at most.\n"
    )


def totals(measured: list[dict]) -> str:
    """All chapters of a budget together."""
    said = []
    for budget in BUDGETS:
        here = [m for m in measured if m["budget"] == budget]
        if here:
            said.append(
                f"{len(here)} notebooks at `{budget}` together: {sum(map(minutes, here)):.0f} "
                f"minutes; the longest: {max(map(minutes, here)):.1f}."
            )
    return " ".join(said)


def write(root: Path = ROOT) -> str:
    """The text of the page."""
    code = code_of(root)
    measured = [m for m in load(root) if m["page"] in code]
    return HEAD.format(
        store=STORE,
        devices=devices(measured),
        shared=shared(measured),
        chapters=chapter_table(measured, list(code), root),
        totals=totals(measured),
        artifacts=artifact_table(code),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How long each chapter runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="run notebooks and store their times")
    measuring.add_argument("budget", choices=BUDGETS)
    measuring.add_argument("pages", nargs="*", help="names of chapters; all if none is given")
    measuring.add_argument("--busy", action="store_true", help="also what shared its core")
    measuring.add_argument("--force", action="store_true", help="also what did not change")
    commands.add_parser("make", help="write book/runtime.md")
    commands.add_parser("check", help="say whether the page is stale")
    options = parser.parse_args(arguments)
    try:
        if options.command == "measure":
            known = source.chapters()
            if unknown := set(options.pages) - set(known):
                raise SourceError(f"no chapter {unknown.pop()!r} with code; there are: {known}")
            pages = options.pages or known
            return bool(measure(options.budget, pages, options.force, options.busy))
        path = source.chapter_path(PAGE)
        if options.command == "make":
            path.write_text(write(), "utf8")
        elif not path.exists() or path.read_text("utf8") != write():
            print("book/runtime.md is stale. Type: python -m tools.runtime make")
            return 1
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
