"""The page of all exercises, by difficulty, time and kind, from the titles of the chapters.

    python -m tools.exercises make      write book/exercises.md
    python -m tools.exercises check     say whether it is stale

A title reads `Name ★★ · 15 min · proof`: stars, minutes (none for an open problem), kind or kinds.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tools import source
from tools.numbers import Numbers
from tools.source import ROOT, SourceError

PAGE = "exercises"
KINDS = {
    "proof": "on paper",
    "code": "a function or a check to write, sympy included",
    "experiment": "something to measure, and to explain",
    "open": "no answer is known to us; the solution says how we would begin",
}
SAME = {"sympy": "code", "check": "code"}  # a title's word -> the kind it counts as
LEVELS = {1: "a warm-up", 2: "the chapter, applied", 3: "beyond the chapter"}
TITLE = re.compile(r"(?P<name>.+?) (?P<stars>★{1,3})(?: · (?P<minutes>\d+) min)? · (?P<kind>[^·]+)")

HEAD = """\
# All exercises

% Written by `python -m tools.exercises make` from the titles in the chapters. Do not edit.

{count} exercises, each with a folded solution; {coded} of the solutions run code. The minutes are
an estimate for a reader who knows the chapter, {hours} hours in all. The stars:

{levels}

An exercise counts as

{kinds}

:::{{table}} How many of each; an exercise of two kinds counts twice, once in the last column
:name: tab-exercises-count

{table}
:::

## The list

A head sorts, the fields above the table filter. As printed, the easy ones come first, among equals
the short ones.

"""


@dataclass(frozen=True)
class Exercise:
    """One exercise of the book, as its title describes it."""

    label: str
    page: str
    number: str
    name: str
    stars: int
    minutes: int | None  # None: open
    kinds: tuple[str, ...]
    coded: bool  # its solution runs code
    part: str = ""  # of the book


def read(label: str, page: str, number: str, title: str, coded: bool, part: str = "") -> Exercise:
    """The exercise with this title; SourceError says what the title lacks."""
    match = TITLE.fullmatch(title)
    if not match:
        raise SourceError(
            f"book/{page}.md, {label}: {title!r}: write it like `Name ★★ · 15 min · proof`"
        )
    words = re.split(r" and |, ", match["kind"])
    kinds = tuple(dict.fromkeys(SAME.get(word, word) for word in words))
    if unknown := set(kinds) - set(KINDS):
        raise SourceError(
            f"book/{page}.md, {label}: {unknown.pop()!r} is no kind of exercise; "
            f"use {', '.join(KINDS)}"
        )
    if ("open" in kinds) == bool(match["minutes"]):
        raise SourceError(
            f"book/{page}.md, {label}: {title!r}: minutes, or the kind open, and not both"
        )
    minutes = int(match["minutes"]) if match["minutes"] else None
    stars = len(match["stars"])
    return Exercise(label, page, number, match["name"], stars, minutes, kinds, coded, part)


def parts(root: Path) -> dict[str, str]:
    """Page -> the number of its part, which begins the part's caption: "II. Noether's ..."."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    return {
        entry["file"]: part["caption"].split(".")[0]
        for part in toc["parts"]
        for entry in part["chapters"]
    }


def collect(book: Numbers) -> list[Exercise]:
    """Every exercise with a label, in reading order."""
    coded = {
        label
        for page in book.chapters
        for label in re.findall(
            r"\{solution-start\} (\S+)", source.chapter_path(page, book.root).read_text("utf8")
        )
    }
    where = parts(book.root)
    return [
        read(
            label,
            target.page,
            target.number,
            target.title,
            label in coded,
            where.get(target.page, ""),
        )
        for label, target in book.targets.items()
        if target.kind == "exercise"
    ]


def count_table(exercises: list[Exercise]) -> str:
    """Stars against kinds."""
    lines = [f"| | {' | '.join(KINDS)} | together |", "|---" * (len(KINDS) + 2) + "|"]
    for stars in LEVELS:
        here = [e for e in exercises if e.stars == stars]
        counts = [sum(kind in e.kinds for e in here) for kind in KINDS]
        lines.append(f"| {'★' * stars} | {' | '.join(map(str, counts))} | {len(here)} |")
    return "\n".join(lines)


def listing(exercises: list[Exercise]) -> str:
    """A table of exercises: easy ones first, then short ones, open ones last of their stars."""
    lines = ["| exercise | part | level | minutes | kind |", "|---|---|---|---|---|"]
    for e in sorted(exercises, key=lambda e: (e.stars, e.minutes or 1000)):
        lines.append(
            f"| {{ref}}`{e.label}`: {e.name} | {e.part} | {'★' * e.stars} | {e.minutes or '–'} "
            f"| {', '.join(e.kinds)} |"
        )
    return "\n".join(lines)


def write(book: Numbers) -> str:
    """The text of the page."""
    exercises = collect(book)
    text = HEAD.format(
        count=len(exercises),
        coded=sum(e.coded for e in exercises),
        hours=round(sum(e.minutes or 0 for e in exercises) / 60),
        levels="\n".join(f"- {'★' * stars}: {words}" for stars, words in LEVELS.items()),
        kinds="\n".join(f"- **{kind}**: {words}" for kind, words in KINDS.items()),
        table=count_table(exercises),
    )
    return (
        f"{text}:::{{table}} Every exercise of the book\n:name: tab-exercises\n:class: sortable\n\n"
        f"{listing(exercises)}\n:::\n"
    )


def make(root: Path = ROOT) -> None:
    """Write the page."""
    source.chapter_path(PAGE, root).write_text(write(Numbers(root)), "utf8")


def stale(root: Path = ROOT) -> bool:
    """Whether the page differs from what the chapters' titles say."""
    path = source.chapter_path(PAGE, root)
    return not path.exists() or path.read_text("utf8") != write(Numbers(root))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The page of all exercises.")
    parser.add_argument("command", choices=("make", "check"))
    command = parser.parse_args(arguments).command
    try:
        if command == "make":
            make()
        elif stale():
            print("book/exercises.md is stale. Type: python -m tools.exercises make")
            return 1
    except SourceError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
