"""Assignments: from a source with solutions and hidden tests to the notebook that students get.

    COURSE/hw1_mechanics.md             the source: jupytext MyST, with nbgrader's metadata
    COURSE/student/hw1_mechanics.ipynb  made from it: no solution, no hidden test, no rubric

nbgrader's own preprocessors do the stripping. What is here looks at a source before them, because
they are silent about most mistakes, and at what they leave behind.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbconvert.exporters.exporter import ResourcesDict
from nbformat import NotebookNode
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)

from companion.homework.sources import REGIONS, Place, identity, problems

__all__ = ["Assignment", "CourseError", "Question", "assignments", "read", "serialise"]

CODE_STUB = "...  # your code here"
TEXT_STUB = "*Write your answer here.*"
KEPT = ("nbgrader", "tags", "deletable", "editable", "jupyter", "cellView")  # of a cell's metadata


class CourseError(ValueError):
    """A source that cannot be an assignment; one line for each thing that is wrong."""


@dataclass(frozen=True)
class Question:
    """What earns points: a test cell, or a written answer (whose `answer` is its own id)."""

    id: str
    points: float
    answer: str
    written: bool


@dataclass(frozen=True)
class Assignment:
    """One assignment, read and validated.

    `source` has everything; `graded` has no solutions, and is what nbgrader's gradebook stores of
    each cell; `student` has no hidden tests either. `digest` changes with the source.
    """

    name: str
    source: NotebookNode
    graded: NotebookNode
    student: NotebookNode
    questions: tuple[Question, ...]
    digest: str

    @property
    def about(self) -> dict[str, Any]:
        """The block `homework` of the front matter."""
        return self.source.metadata["homework"]

    @property
    def cells(self) -> dict[str, NotebookNode]:
        """The cells of `graded` that nbgrader knows, by grade_id, in order."""
        return {identity(cell): cell for cell in self.graded.cells if identity(cell)}

    def cell_id(self, grade_id: str) -> str:
        """The nbformat id of a cell in the student's notebook."""
        return f"{self.name}-{grade_id}".replace("_", "-")


def assignments(course: Path, names: list[str] | None = None) -> dict[str, Assignment]:
    """The assignments of a course folder, by name; all of them, or those named.

    Raises CourseError if there are none, a name is unknown, or a source is not valid.
    """
    found = {path.stem: path for path in sorted(course.glob("*.md")) if path.stem != "README"}
    if not found:
        raise CourseError(f"{course} has no assignment (*.md): name the folder with --course")
    unknown = sorted(set(names or ()) - set(found))
    if unknown:
        raise CourseError(f"{course} has no assignment {unknown[0]!r}, but: {', '.join(found)}")
    return {name: read(path) for name, path in found.items() if not names or name in names}


def read(path: Path) -> Assignment:
    """The assignment of one source. Raises CourseError with everything that is wrong in it."""
    try:
        text = path.read_text("utf8")
        source = jupytext.reads(text, fmt="md:myst")
    except Exception as e:  # jupytext and its parsers raise what they like
        raise CourseError(f"{path}: is not a jupytext MyST notebook ({e})") from None
    for cell in source.cells:
        if "grade_id" in cell.metadata.get("nbgrader", {}):
            meta = cell.metadata.nbgrader
            meta.grade_id = str(meta.grade_id)  # yaml reads 4 as a number
    place = Place.of(path.parent)
    wrong = list(problems(source, place, path.stem))
    if wrong:
        raise CourseError("\n".join(f"{path}: {problem}" for problem in wrong))
    name = path.stem
    for number, cell in enumerate(source.cells):
        cell.id = f"{name}-{identity(cell) or f'{number:03d}'}".replace("_", "-")
    graded, student = stripped(source)
    questions = tuple(_questions(source))
    _dress(student, name, source.metadata["homework"], questions, place)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Assignment(name, source, graded, student, questions, digest)


def serialise(notebook: NotebookNode) -> str:
    """The text of a notebook's file."""
    return nbformat.writes(notebook) + "\n"


def stripped(source: NotebookNode) -> tuple[NotebookNode, NotebookNode]:
    """(graded, student): in nbgrader's own order, so that its checksums are what it expects.

    The checksum of a cell in `graded` is the one that nbgrader's gradebook compares submissions
    with: of test cells with their hidden tests, and of answers without.
    """
    nothing = ResourcesDict()
    graded = deepcopy(source)
    for step in (
        LockCells(),
        ClearSolutions(code_stub={"python": CODE_STUB}, text_stub=TEXT_STUB),
        CheckCellMetadata(),
        ComputeChecksums(),
    ):
        graded, _ = step.preprocess(graded, nothing)
    student = deepcopy(graded)
    for step in (ClearHiddenTests(), ClearMarkScheme(), ComputeChecksums(), CheckCellMetadata()):
        student, _ = step.preprocess(student, nothing)
    return graded, student


def _dress(
    student: NotebookNode,
    name: str,
    about: dict[str, Any],
    questions: tuple[Question, ...],
    place: Place,
) -> None:
    """Gives the student's notebook its button and its facts, and takes away all other metadata."""
    for cell in student.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in KEPT})
        if identity(cell) == "setup":
            cell.metadata.update({"jupyter": {"source_hidden": True}, "cellView": "form"})
    student.metadata = nbformat.from_dict(
        {
            "colab": {"provenance": []},
            "homework": {"assignment": name},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    student.nbformat, student.nbformat_minor = 4, 5
    button = nbformat.v4.new_markdown_cell(_button(name, about, questions, place))
    button.id = f"{name}-about".replace("_", "-")
    student.cells.insert(0, button)


def _button(name: str, about: dict[str, Any], questions: tuple[Question, ...], place: Place) -> str:
    """The cell above the title: where to open it, and what it is worth."""
    total = sum(q.points for q in questions)
    by_hand = sum(q.points for q in questions if q.written)
    worth = f"**{total:g} points**" + (f", {by_hand:g} of them marked by hand" if by_hand else "")
    line = f"{worth}, about {about['minutes']} minutes."
    if not place.url:
        return line
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    return (
        f"[![Open in Colab]({badge})]({place.colab(name)}) {line} "
        f"How it works: [For students]({place.site}/students.html)."
    )


def _questions(source: NotebookNode) -> Iterator[Question]:
    answer = ""
    for cell in source.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("solution") and not meta.get("grade"):
            answer = identity(cell)
        if meta.get("grade"):
            written = bool(meta.get("solution"))
            own = identity(cell)
            yield Question(own, float(meta["points"]), own if written else answer, written)


# -- nothing leaks --------------------------------------------------------------------------------


def secrets(source: NotebookNode) -> list[str]:
    """Every line of a source that no student may see: of solutions, hidden tests, mark schemes.

    What also stands in the open (`return x`, a closing bracket) is not secret.
    """
    hidden, shown = [], []
    for cell in source.cells:
        inside = False
        for line in cell.source.split("\n"):
            if re.search(rf"(BEGIN|END) ({'|'.join(REGIONS)})", line):
                inside = "BEGIN" in line
            else:
                (hidden if inside else shown).append(line.strip())
    in_the_open = "\n".join(shown)
    return sorted({line for line in hidden if len(line) > 3 and line not in in_the_open})


def leaks(assignment: Assignment) -> list[str]:
    """The secret lines that are found anywhere in the student's notebook, metadata included."""
    text = serialise(assignment.student)
    written = {
        line: json.dumps(line, ensure_ascii=False)[1:-1] for line in secrets(assignment.source)
    }
    return [line for line, as_json in written.items() if as_json in text]
