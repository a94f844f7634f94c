"""A folder of grades: a course folder of nbgrader's, and what is needed to resume.

gradebook.db  nbgrader_config.py  source/NAME/  submitted/STUDENT/NAME/  feedback/STUDENT/NAME/
autograded/STUDENT/NAME/          results/      grades.csv               to_mark.csv
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from nbconvert.exporters.exporter import ResourcesDict
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import (
    CheckCellMetadata,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
    SaveCells,
)

from companion.homework import feedback
from companion.homework.release import Assignment, CourseError, serialise
from companion.homework.submissions import Submission

__all__ = ["Grades", "Result", "write"]

CONFIG = """\
# Made by `python -m companion.homework grade`: this folder is a course folder of nbgrader's.
# To mark written answers in the browser, type here:  jupyter lab   and open Nbgrader > Formgrader.
# Then type:  python -m companion.homework mark .
import os

from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException

c = get_config()
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
# The formgrader shows what students wrote, with your rights: nothing of theirs may run in it.
c.HTMLExporter.filters = {"markdown2html": "companion.homework.feedback.markdown"}
c.HTMLExporter.sanitize_html = True
c.GenerateFeedback.exporter_class = "companion.homework.feedback.FeedbackExporter"
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "companion.homework.feedback.Marked",
    "companion.homework.feedback.Harmless",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]


def _refuse(self):
    why = (
        "nbgrader would run the submissions without a sandbox, beside their hidden tests. "
        "Grade with: python -m companion.homework grade"
    )
    self.log.error(why)
    raise NbGraderException(why)


Autograde.start = _refuse
"""


@dataclass
class Result:
    """A row of the table: what is kept of a submission to resume from, points aside."""

    student: str
    assignment: str
    file: str
    status: str  # graded | cut short | refused | not counted | error
    message: str = ""
    key: str = ""
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Grades:
    """A folder of grades: nbgrader's course folder, and what is needed to resume and to tell.

    Raises CourseError if the questions of an assignment are not those of its gradebook.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.url = f"sqlite:///{self.folder / 'gradebook.db'}"
        self._problems = self.folder / "results" / "problems.json"

    def open(self, assignments: Iterable[Assignment]) -> None:
        """Makes what is missing in the folder, and tells nbgrader the assignments."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "nbgrader_config.py", CONFIG)
        with _programs(), Gradebook(self.url) as gradebook:
            for assignment in assignments:
                gradebook.update_or_create_assignment(assignment.name)
        for assignment in assignments:
            name = assignment.name
            write(self.folder / "source" / name / f"{name}.ipynb", serialise(assignment.source))
            try:
                SaveCells().preprocess(deepcopy(assignment.graded), self._resources(name))
            except RuntimeError as e:
                raise CourseError(
                    f"{self.folder}: the questions of {name} are not those that were graded there "
                    f"({e}). Name another folder with --out."
                ) from None

    def save(self, submission: Submission, assignment: Assignment, notebook: NotebookNode) -> None:
        """Puts a graded submission into the gradebook, through nbgrader's preprocessors."""
        student, name = submission.student, assignment.name
        write(self.path("submitted", student, name), submission.bytes())
        with Gradebook(self.url) as gradebook:
            gradebook.update_or_create_student(student)
            with gradebook.db.no_autoflush:  # nbgrader looks things up while it adds them
                gradebook.update_or_create_submission(name, student)
        steps = (OverwriteKernelspec(), OverwriteCells(), CheckCellMetadata(), SaveAutoGrades())
        for step in steps:
            notebook, _ = step.preprocess(notebook, self._resources(name, student))
        write(self.path("autograded", student, name), serialise(notebook))

    def give_feedback(self, result: Result) -> None:
        """Writes the page of a student."""
        target = self.path("feedback", result.student, result.assignment, ".html")
        source = self.path("autograded", result.student, result.assignment)
        if result.status in ("graded", "cut short"):
            notebook = nbformat.read(source, as_version=4)
            try:
                text = feedback.page(
                    notebook, result.student, result.assignment, self.url, result.notes
                )
            except Exception as e:  # a page that fails is no reason to lose the points
                why = f"It is graded, but cannot be shown ({type(e).__name__}: {e!s:.200})."
                text = feedback.notice(result.student, result.file, why, "cannot be shown")
                result.faults.append(f"feedback: {e!r:.2000}")
        else:
            text = feedback.notice(result.student, result.file, result.message)
        write(target, text)

    def path(self, kind: str, student: str, name: str, suffix: str = ".ipynb") -> Path:
        """Where a student's file of a kind lies, in nbgrader's layout."""
        return self.folder / kind / student / (name or "unknown") / f"{name or 'unknown'}{suffix}"

    def _resources(self, name: str, student: str = "") -> ResourcesDict:
        resources = ResourcesDict()
        about = {"notebook": name, "assignment": name, "student": student, "db_url": self.url}
        resources["nbgrader"] = about
        return resources

    # -- what is kept to resume from

    def exists(self) -> bool:
        """Whether there is a gradebook in the folder."""
        return (self.folder / "gradebook.db").exists()

    def record_of(self, result: Result) -> Path:
        """The file in which a result is kept."""
        return self.record(result.student, result.assignment)

    def record(self, student: str, name: str) -> Path:
        return self.folder / "results" / student / f"{name or 'unknown'}.json"

    def remember(self, result: Result) -> None:
        """Keeps a result; the last thing that is done for a submission."""
        text = json.dumps(asdict(result), indent=1, ensure_ascii=False)
        write(self.record(result.student, result.assignment), text + "\n")

    def remembered(self, student: str, name: str) -> Result | None:
        """The result of an earlier run, if there is one that can be read."""
        try:
            return Result(**json.loads(self.record(student, name).read_text("utf8")))
        except (OSError, ValueError, TypeError):
            return None

    def results(self) -> list[Result]:
        """Every result in the folder, and the files that did not count, by student."""
        found = []
        for path in sorted(self.folder.glob("results/*/*.json")):
            result = self.remembered(path.parent.name, path.stem)
            if result is not None:
                found.append(result)
        try:
            lists = json.loads(self._problems.read_text("utf8"))
        except (OSError, ValueError):
            lists = {}
        found += [Result(**row) for rows in lists.values() for row in rows]
        return sorted(found, key=lambda r: (r.student, r.assignment, r.file))

    def set_aside(self, folder: Path, rows: list[Result]) -> None:
        """Keeps the rows of a folder's files that belong to nobody's grade."""
        try:
            lists = json.loads(self._problems.read_text("utf8"))
        except (OSError, ValueError):
            lists = {}
        lists[str(folder.resolve())] = [asdict(row) for row in rows]
        write(self._problems, json.dumps(lists, indent=1, ensure_ascii=False) + "\n")


def write(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf8") if isinstance(content, str) else content
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(data)
    os.replace(new, path)


@contextmanager
def _programs() -> Iterator[None]:
    """nbgrader starts `alembic` by name when it makes a gradebook: it lies beside this Python."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before
