"""Grading homework: seconds a submission, one or two at a time.

    python -m benchmarks.homework_grading

The submissions are the instructors' own solutions, so that every question is answered and every
training task trains: what a good student costs. The command is the one that an instructor types,
in a process of its own. It is run once more when everything is graded: what it takes then
(starting, reading, writing the table) is subtracted before the rest is divided by the number of
submissions. Three hundred are not graded, but extrapolated from that.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from benchmarks import timing
from companion.homework import release

COURSE = Path(__file__).resolve().parents[1] / "homework"
MANY = 300


def solved(assignment: release.Assignment) -> nbformat.NotebookNode:
    """The students' notebook with the model answers in it."""
    notebook = copy.deepcopy(assignment.student)
    answers = {release.identity(cell): cell.source for cell in assignment.source.cells}
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            lines = answers[release.identity(cell)].split("\n")
            cell.source = "\n".join(line for line in lines if not line.startswith("### "))
    return notebook


def command(submissions: Path, out: Path, jobs: int) -> float:
    """Grades a folder; returns the seconds that it took. Raises RuntimeError if it fails."""
    words = [sys.executable, "-m", "companion.homework", "grade", submissions]
    words += ["--course", COURSE, "--out", out, "--jobs", jobs]
    begun = time.perf_counter()
    done = subprocess.run([str(x) for x in words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"grading failed: {done.stdout}{done.stderr}")
    return time.perf_counter() - begun


def measure(name: str, copies: int, jobs: int) -> dict[str, float]:
    """Seconds to start with nothing to do, a submission, and for three hundred, extrapolated."""
    assignment = release.read(COURSE / f"{name}.md")
    with tempfile.TemporaryDirectory() as scratch:
        submissions, out = Path(scratch, "submissions"), Path(scratch, "grades")
        for k in range(copies):
            (submissions / f"student {k}").mkdir(parents=True)
            text = release.serialise(solved(assignment))
            (submissions / f"student {k}" / f"{name}.ipynb").write_text(text, "utf8")
        whole = command(submissions, out, jobs)
        start = command(submissions, out, jobs)
    each = (whole - start) / copies
    found = {"copies": copies, "start": start, "each": each, "many": start + MANY * each}
    return {key: float(f"{x:.3g}") for key, x in found.items()}


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/homework_grading.json`."""
    words = sys.argv[1:] if words is None else words
    asked = argparse.ArgumentParser(
        description=__doc__, prog="python -m benchmarks.homework_grading"
    )
    asked.add_argument("--copies", type=int, default=6, help="submissions of each assignment")
    asked.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="so many at a time")
    asked.add_argument("--names", nargs="+", help="assignments (default: all)")
    options = asked.parse_args(words)
    cases: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.names or sorted(path.stem for path in COURSE.glob("*.md")):
        for jobs in options.jobs:
            print(f"{name}, {jobs} at a time ...", flush=True)
            found = measure(name, options.copies, jobs)
            cases.setdefault(name, {})[str(jobs)] = found
    asked_for = ("python -m benchmarks.homework_grading " + " ".join(words)).strip()
    return timing.save("homework_grading", asked_for, 1, cases)


if __name__ == "__main__":
    print(main())
