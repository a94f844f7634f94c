"""A submission whose cells nbgrader knows again: each graded cell of its assignment exactly once.

nbgrader stops a whole batch at a cell that was copied, and gives nothing at all where an editor has
dropped its metadata. Neither is a reason for a student to lose a point.
"""

from copy import deepcopy
from dataclasses import dataclass, field

import nbformat
from nbformat import NotebookNode

from companion.homework.release import Assignment
from companion.homework.sources import ANSWER, TEST, WRITTEN, identity

__all__ = ["Repaired", "recognise", "repair"]


@dataclass
class Repaired:
    """A notebook whose cells nbgrader knows again, and what had to be done, for the student."""

    notebook: NotebookNode
    notes: list[str] = field(default_factory=list)


def repair(notebook: NotebookNode, assignment: Assignment) -> Repaired:
    """The submission with every graded cell of its assignment exactly once.

    Tests come from the source; each runs where the student has it, but behind its answer. Of
    copies of an answer the last one that is not the empty stub counts, and the others run as
    ordinary cells. Locked cells come from the source; a changed set-up runs after the original.
    """
    known = assignment.cells
    seen = [(recognise(cell, assignment), cell) for cell in notebook.cells]
    tests = {q.id: q.answer for q in assignment.questions if not q.written}
    answers = [own for own, cell in known.items() if cell.metadata.nbgrader.solution]
    notes: list[str] = []

    counts = {own: _counted(own, seen, known[own], notes) for own in answers}
    places = {}  # of each test: the last place that the student gave it, if behind its answer
    for index, (own, _) in enumerate(seen):
        if own in tests and index > counts[tests[own]]:
            places[own] = index

    cells: list[NotebookNode] = []
    done: set[str] = set()
    for index, (own, cell) in enumerate(seen):
        if own in counts:
            if index == counts[own]:
                cells.append(_graded(cell, known[own]))
                cells += [deepcopy(known[t]) for t in tests if tests[t] == own and t not in places]
            elif not _same(cell, known[own]):
                cells.append(_ordinary(cell))
        elif own in tests:
            if places.get(own) == index:
                cells.append(deepcopy(known[own]))
        elif own:
            if own not in done:
                cells.append(deepcopy(known[own]))
            if own == "setup" and not _same(cell, known[own]):
                cells.append(_ordinary(cell))
            done.add(own)
        else:
            cells.append(_ordinary(cell))
    for own in (own for own in answers if counts[own] < 0):  # deleted: an empty one, and its tests
        empty = deepcopy(known[own])
        if own.startswith("answer-"):
            empty.source = empty.source.split("\n")[0]
        cells.append(empty)
        cells += [deepcopy(known[t]) for t in tests if tests[t] == own and t not in places]
    order = list(known)
    for own in reversed([i for i in order if i not in {*answers, *tests, *done}]):
        later = set(order[order.index(own) :])
        before = (n for n, cell in enumerate(cells) if identity(cell) in later)
        cells.insert(0 if own == "setup" else next(before, len(cells)), deepcopy(known[own]))
    for number, cell in enumerate(cells):
        cell.id = assignment.cell_id(identity(cell)) if identity(cell) else f"student-{number:03d}"
    return Repaired(nbformat.v4.new_notebook(cells=cells), notes)


def recognise(cell: NotebookNode, assignment: Assignment) -> str:
    """The grade_id of the cell that this one was: by its first line, its metadata, or its text."""
    known = assignment.cells
    lines = cell.source.strip().split("\n")
    for marker, form in ((ANSWER, "answer-{}"), (TEST, "{}"), (WRITTEN, "{}")):
        found = marker.fullmatch(lines[0].strip())
        if found and form.format(found[1]) in known:
            return form.format(found[1])
    by_id = {assignment.cell_id(own): own for own in known}
    for name in cell.metadata.get("was", ()):
        if isinstance(name, str) and (name in known or name in by_id):
            return name if name in known else by_id[name]
    if "check = checker(globals())" in (line.strip() for line in lines):
        return "setup"
    return next((own for own in known if _same(cell, known[own])), "")


def _counted(
    own: str, seen: list[tuple[str, NotebookNode]], stub: NotebookNode, notes: list[str]
) -> int:
    """The index of the copy of an answer that counts, or -1; says what the student should know."""
    copies = [index for index, (name, _) in enumerate(seen) if name == own]
    written = [index for index in copies if not _same(seen[index][1], stub)]
    question = own.removeprefix("answer-")
    if not copies:
        notes.append(
            f"Question {question}: the answer cell is not there. It was deleted, or has lost its "
            "first line, by which it is known."
        )
    elif len(written) > 1:
        notes.append(
            f"Question {question}: there are {len(written)} cells with an answer. The last counts."
        )
    return (written or copies or [-1])[-1]


def _same(cell: NotebookNode, stub: NotebookNode) -> bool:
    return cell.source.split() == stub.source.split()


def _ordinary(cell: NotebookNode) -> NotebookNode:
    new = deepcopy(cell)
    new.metadata = NotebookNode()
    return new


def _graded(cell: NotebookNode, known: NotebookNode) -> NotebookNode:
    """The student's text in the cell that nbgrader knows."""
    new = deepcopy(known)
    new.source = known.source if _same(cell, known) else cell.source
    if known.cell_type == "markdown" and "attachments" in cell:
        new["attachments"] = deepcopy(cell["attachments"])
    return new
