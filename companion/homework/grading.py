"""Grading: a folder of submissions becomes a folder of grades.

One submission at a time is read, repaired, run in the sandbox and judged out here; then nbgrader's
own preprocessors put its points into the gradebook. Whatever happens to it ends in its own row.
"""

import hashlib
import traceback
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm.auto import tqdm

from companion import cluster
from companion.homework import execute, remote, repairing, submissions
from companion.homework.gradebook import Grades, Result
from companion.homework.release import Assignment, CourseError
from companion.homework.sandbox import Limits, Sandbox, SandboxError, Unsandboxed
from companion.homework.sources import identity
from companion.homework.submissions import Submission, Unreadable

__all__ = ["Worked", "grade", "limits", "outcome", "survey", "verify", "work", "worked"]

Outcomes = Generator[tuple["Job", "Worked | BaseException"], None, None]

VERSION = 1  # of the grader: another one grades everything again


@dataclass
class Worked:
    """What came of one submission before nbgrader hears of it; made in another process."""

    notebook: NotebookNode
    notes: list[str]
    tests: dict[str, tuple[bool, str]]  # by question: passed, and what the student is told
    faults: list[str] = field(default_factory=list)  # for the operator: errors of the tests
    cut_short: bool = False
    seconds: float = 0.0


def limits(assignment: Assignment) -> Limits:
    """What a submission may use: the front matter's limits where it has any."""
    about, usual = assignment.about, Limits()
    return Limits(
        cell=float(about.get("time_limit", usual.cell)),
        submission=float(about.get("total_limit", usual.submission)),
        memory=int(about["memory_limit"] * 2**20) if "memory_limit" in about else usual.memory,
    )


def work(submission: Submission, assignment: Assignment, sandbox: Sandbox | Unsandboxed) -> Worked:
    """Reads, repairs and runs one submission. Raises Unreadable, and SandboxError."""
    return worked(submission.notebook(), assignment, sandbox)


def worked(
    notebook: NotebookNode, assignment: Assignment, sandbox: Sandbox | Unsandboxed
) -> Worked:
    """Repairs and runs a notebook, and puts into its cells what came of them."""
    repaired = repairing.repair(notebook, assignment)
    tests = {q.id for q in assignment.questions if not q.written}
    steps: list[execute.Step] = []
    for cell in repaired.notebook.cells:
        if identity(cell) in tests:
            steps.append(execute.Test(cell.source, identity(cell)))
        elif cell.cell_type == "code":
            steps.append(execute.Code(cell.source, cell.id))
    outcome = execute.run(steps, sandbox, limits(assignment))
    notes = [*repaired.notes, *outcome.notes]
    cut_short = False
    for count, cell in enumerate((c for c in repaired.notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
        own = identity(cell)
        if own in tests:
            cell.outputs = _verdict(outcome.tests[own])
        else:
            ran = outcome.codes[cell.id]
            cell.outputs = [nbformat.from_dict(output) for output in ran.outputs]
            if ran.status in ("stopped", "killed", "not run"):
                cut_short = True
                where = f" (the answer to {own[7:]})" if own.startswith("answer-") else ""
                notes.append(f"Code cell {count}{where}: {ran.message or ran.status}.")
    return Worked(
        repaired.notebook,
        list(dict.fromkeys(notes)),
        {t.id: (t.passed, t.message) for t in outcome.tests.values()},
        [f"{t.id}: {t.fault}" for t in outcome.tests.values() if t.fault],
        cut_short,
        outcome.seconds,
    )


def _verdict(judged: execute.Judged) -> list[NotebookNode]:
    """A test's outputs: an error is what nbgrader gives no points for. No line of the test."""
    if judged.passed:
        text = f"Question {judged.id}: ✓ right.\n"
        return [nbformat.v4.new_output("stream", name="stdout", text=text)]
    said = judged.message or "not passed"
    line = f"Question {judged.id}: ✗ {said}"
    return [nbformat.v4.new_output("error", ename="Check", evalue=said, traceback=[line])]


def verify(assignment: Assignment, sandbox: Sandbox | Unsandboxed) -> list[str]:
    """What is wrong with an assignment when it runs: nothing if its solution earns every point,
    and the notebook that students get earns none and stops nowhere."""
    wrong = []
    for what, notebook, right in (
        ("the solution", assignment.source, True),
        ("the empty notebook", assignment.student, False),
    ):
        done = worked(notebook, assignment, sandbox)
        for question, (passed, message) in done.tests.items():
            if passed != right:
                said = "passes" if passed else f"does not pass: {message}"
                wrong.append(f"question {question}: {what} {said}")
        wrong += [f"{what}: {note}" for note in [*done.notes, *(done.faults if right else ())]]
        for cell in done.notebook.cells:
            for output in cell.get("outputs", ()):
                if output.output_type == "error" and output.ename != "Check":
                    at = identity(cell) or cell.id
                    wrong.append(f"{what} stops at {at}: {output.ename}: {output.evalue}")
    return wrong


# -- the batch ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A submission to be graded; `key` changes with its bytes, its assignment and the grader."""

    submission: Submission
    assignment: Assignment
    key: str


def grade(
    folder: Path,
    grades: Grades,
    course: dict[str, Assignment],
    sandbox: Sandbox | Unsandboxed,
    *,
    jobs: int = 1,
    address: str | None = None,
) -> tuple[int, int]:
    """Grades every submission in a folder that is not graded yet; returns (graded, resumed).

    `jobs` at a time, each in a process of this machine; or, with the `address` of a Dask
    scheduler, as many as its workers take, each in the sandbox of the worker's machine.

    Whatever happens to a submission ends in its row. Raises SandboxError if a sandbox fails,
    CourseError if no scheduler answers, and OSError if it goes away.
    """
    todo, aside = survey(folder, course)
    grades.open(course.values())
    grades.set_aside(folder, aside)
    theirs = {(job.submission.student, job.assignment.name) for job in todo}
    for row in aside:
        known = grades.remembered(row.student, row.assignment)
        if row.status == "refused" and (row.student, row.assignment) not in theirs and not known:
            grades.give_feedback(row)
    new = [job for job in todo if not _is_done(job, grades)]
    quiet = None if new else True  # None: no bar where nobody watches
    bar = tqdm(total=len(new), unit="submission", desc="grading", disable=quiet)
    with bar, closing(_run(new, sandbox, jobs, address)) as outcomes:
        for job, done in outcomes:
            result = _finish(job, done, grades)
            bar.set_postfix_str(f"{result.student}: {result.status}")
            bar.update()
    return len(new), len(todo) - len(new)


def survey(folder: Path, course: dict[str, Assignment]) -> tuple[list[Job], list[Result]]:
    """(what is to be graded, rows of the files that are not): one job a student and assignment."""
    latest: dict[tuple[str, str], Job] = {}
    aside: list[Result] = []
    for found in submissions.find(folder, list(course)):
        try:
            data = found.bytes()
            notebook = submissions.parse(data, found.file)
            assignment = submissions.assignment_of(notebook, found.file, course)
        except Unreadable as e:
            name = submissions.named(found.file, list(course))
            aside.append(Result(found.student, name, found.file, "refused", str(e)))
            continue
        older = latest.get((found.student, assignment.name))
        if older is not None:
            why = f"A later file of the same student counts: {found.file}"
            file = older.submission.file
            aside.append(Result(found.student, assignment.name, file, "not counted", why))
        latest[found.student, assignment.name] = Job(found, assignment, _key(data, assignment))
    return list(latest.values()), aside


def _key(data: bytes, assignment: Assignment) -> str:
    about = f"{VERSION} {assignment.digest} ".encode()
    return hashlib.sha256(about + data).hexdigest()


def _is_done(job: Job, grades: Grades) -> bool:
    name, student = job.assignment.name, job.submission.student
    before = grades.remembered(student, name)
    if before is None or before.key != job.key or before.status == "error":
        return False
    return all(
        grades.path(kind, student, name, suffix).exists()
        for kind, suffix in (("autograded", ".ipynb"), ("feedback", ".html"))
    )


def _finish(job: Job, done: Worked | BaseException, grades: Grades) -> Result:
    """Everything that is done with a submission after it ran; never raises for what it holds."""
    submission, name = job.submission, job.assignment.name
    result = Result(submission.student, name, submission.file, "graded", key=job.key)
    if isinstance(done, Worked):
        try:
            grades.save(submission, job.assignment, done.notebook)
            result.status = "cut short" if done.cut_short else "graded"
            result.message = " ".join(done.notes)
            result.notes, result.faults = done.notes, done.faults
            result.seconds = round(done.seconds, 2)
            grades.give_feedback(result)
            grades.remember(result)
            return result
        except Exception as e:
            done = e
    if isinstance(done, Unreadable):
        result.status, result.message = "refused", str(done)
    else:
        what = f"{type(done).__name__}: {done!s:.200}"
        result.status, result.message = "error", f"Not graded: the grader itself stopped ({what})."
        result.faults = ["".join(traceback.format_exception(done))]
    grades.give_feedback(result)
    grades.remember(result)
    return result


def outcome(
    data: bytes, file: str, assignment: Assignment, sandbox: Sandbox | Unsandboxed
) -> Worked | Exception:
    """What comes of a submission's bytes. Raises SandboxError; all else is returned."""
    try:
        return worked(submissions.parse(data, file), assignment, sandbox)
    except SandboxError:
        raise
    except Exception as e:
        return e


def _here(sandbox: Sandbox | Unsandboxed, job: Job) -> Worked:
    return work(job.submission, job.assignment, sandbox)


def _run(
    todo: list[Job], sandbox: Sandbox | Unsandboxed, jobs: int, address: str | None = None
) -> Outcomes:
    """(job, what came of it), as they end; none is lost with a worker that is killed."""
    if address is None:
        outcomes = cluster.run(todo, partial(_here, sandbox), None, jobs, progress=False)
    else:
        outcomes = _there(todo, sandbox, address)
    for job, done in outcomes:
        if isinstance(done, SandboxError):  # nobody can be graded there
            raise done
        yield job, done


def _there(todo: list[Job], sandbox: Sandbox | Unsandboxed, address: str) -> Outcomes:
    if isinstance(sandbox, Unsandboxed):
        raise CourseError(
            "submissions run on the workers of a cluster in a sandbox or not at all: they would "
            "have the rights of somebody who did not accept that"
        )
    parcels: dict[bytes, Job] = {}
    for job in todo:
        try:
            data, file = job.submission.bytes(), job.submission.file
        except Unreadable as e:  # it was readable a moment ago
            yield job, e
            continue
        parcels[remote.parcel(data, file, job.assignment, sandbox, VERSION)] = job
    try:
        for parcel, done in cluster.run(parcels, remote.do, address, progress=False):
            if isinstance(done, ImportError):
                raise SandboxError(f"a worker of {address} cannot grade: {done}")
            yield parcels[parcel], remote.opened(done) if isinstance(done, bytes) else done
    except ValueError as e:  # no scheduler
        raise CourseError(str(e)) from None
