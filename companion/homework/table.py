"""The tables: `grades.csv` for the register, `to_mark.csv` for the answers to mark by hand."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook, MissingEntry

from companion.homework.gradebook import Grades, Result, write
from companion.homework.release import CourseError

__all__ = ["mark", "tables"]

ABOUT = ["student", "assignment", "file", "status", "message", "points", "out of"]
ABOUT += ["waiting for hand marking"]
MOST = 30_000  # characters of an answer; a spreadsheet's cell holds no more
MARKS = ["student", "assignment", "question", "out of", "answer", "points", "comment"]


def tables(grades: Grades) -> list[dict[str, str]]:
    """Writes grades.csv and to_mark.csv of a folder; returns the rows of the first.

    A row is a submission and an assignment. A file that was refused or not counted has a row, with
    its reason and no points. Marks that somebody has typed into to_mark.csv stay there until they
    are in the gradebook.
    """
    rows: list[dict[str, str]] = []
    to_mark: list[dict[str, str]] = []
    typed = {_whose(row): row for row in _rows_of(grades.folder / "to_mark.csv")}
    with Gradebook(grades.url) as gradebook:
        columns = [
            f"{assignment.name} {question}"
            for assignment in sorted(gradebook.assignments, key=lambda a: a.name)
            for question in _questions(assignment)
        ]
        for result in grades.results():
            about = [result.student, result.assignment, result.file, result.status, result.message]
            row = dict(zip(ABOUT, about, strict=False))
            if result.status in ("graded", "cut short"):
                points, waiting = _points(gradebook, result)
                row.update(points)
                to_mark += _to_mark(grades, result, waiting, typed)
            rows.append(row)
    write(grades.folder / "grades.csv", _csv(rows, [*ABOUT, *columns]))
    write(grades.folder / "to_mark.csv", _csv(to_mark, MARKS))
    return rows


def _questions(assignment: Any) -> list[str]:
    names = [cell.name for notebook in assignment.notebooks for cell in notebook.grade_cells]
    return sorted(names, key=lambda n: [(int(d or 0), w) for d, w in re.findall(r"(\d+)|(\D+)", n)])


def _points(gradebook: Gradebook, result: Result) -> tuple[dict[str, str], list[Any]]:
    """(the columns with points, nbgrader's grades that wait for a person) of a submission."""
    name = result.assignment
    done = gradebook.find_submission_notebook(name, name, result.student).grades
    waiting = [grade for grade in done if grade.needs_manual_grade]
    row = {
        "points": f"{sum(grade.score for grade in done):g}",
        "out of": f"{sum(grade.max_score for grade in done):g}",
        "waiting for hand marking": f"{sum(grade.max_score for grade in waiting):g}",
    }
    unmarked = {g.name for g in waiting if g.manual_score is None}
    row |= {f"{name} {g.name}": f"{g.score:g}" for g in done if g.name not in unmarked}
    return row, waiting


def _to_mark(
    grades: Grades, result: Result, waiting: list[Any], typed: dict[tuple[str, ...], dict[str, str]]
) -> Iterable[dict[str, str]]:
    if not waiting:
        return
    path = grades.path("autograded", result.student, result.assignment)
    cells = nbformat.read(path, as_version=4).cells
    answers = {c.metadata.get("nbgrader", {}).get("grade_id", ""): c.source for c in cells}
    for grade in sorted(waiting, key=lambda g: g.name):
        row = dict.fromkeys(MARKS, "")
        row.update(student=result.student, assignment=result.assignment, question=grade.name)
        row.update({"out of": f"{grade.max_score:g}", "answer": answers.get(grade.name, "")[:MOST]})
        before = typed.get(_whose(row), {})
        row.update({k: before.get(k, "") for k in ("points", "comment")})
        yield row


def mark(grades: Grades, marks: Path) -> list[tuple[str, str]]:
    """Puts marks and comments from a CSV into the gradebook; returns (student, assignment) of each.

    Columns: student, assignment (unless there is only one), question, points, comment; a row
    without points and comment is passed over. Raises CourseError, with every line that is wrong,
    before anything is changed.
    """
    if not marks.exists():
        raise CourseError(f"{marks}: no such file; fill in {grades.folder / 'to_mark.csv'}")
    wrong: list[str] = []
    changed: list[tuple[str, str]] = []
    with Gradebook(grades.url) as gradebook:
        names = [str(assignment.name) for assignment in gradebook.assignments]
        for number, row in enumerate(_rows_of(marks), 2):
            student, name, question = _whose(row)
            name = name or (names[0] if len(names) == 1 else "")
            points, comment = row.get("points", "").strip(), row.get("comment", "").strip()
            if not points and not comment:
                continue
            try:
                grade: Any = gradebook.find_grade(question, name, name, student)
                if points:
                    grade.manual_score = _number(points, grade.max_score)
                    grade.needs_manual_grade = False
                if comment:
                    cells = {c.name for c in gradebook.find_notebook(name, name).solution_cells}
                    cell = question if question in cells else f"answer-{question}"
                    about: Any = gradebook.find_comment(cell, name, name, student)
                    about.manual_comment = comment
                changed.append((student, name))
            except MissingEntry:
                wrong.append(f"line {number}: no question {question!r} of {student!r} in {name!r}")
            except ValueError as e:
                wrong.append(f"line {number}: {e}")
        if wrong:
            gradebook.db.rollback()
            raise CourseError(f"{marks}: nothing was changed.\n" + "\n".join(wrong))
        gradebook.db.commit()
    return sorted(set(changed))


def _number(text: str, most: float) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"points are a number, not {text!r}") from None
    if not 0 <= value <= most:
        raise ValueError(f"points are between 0 and {most:g}, not {text}")
    return value


def _whose(row: dict[str, str]) -> tuple[str, str, str]:
    student, name, question = (
        row.get(k, "").strip() for k in ("student", "assignment", "question")
    )
    return student, name, question


def _rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with commas or semicolons; none if there is no such file."""
    if not path.exists():
        return []
    text = path.read_text("utf-8-sig")
    first = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first else ",")
    if not {"student", "question", "points"} <= set(reader.fieldnames or ()):
        raise CourseError(f"{path}: the first line must name student, question and points")
    return [{k: v or "" for k, v in row.items() if k} for row in reader]


def _csv(rows: list[dict[str, str]], columns: list[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


def _cell(text: str) -> str:
    """A student's text as a cell that no spreadsheet takes for a formula."""
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f]", " ", text)
    return f"'{text}" if re.match(r"\s*[=+\-@]", text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None
