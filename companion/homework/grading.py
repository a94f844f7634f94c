"""Grading: a folder of submissions becomes a folder of grades.

One submission at a time is read, repaired, run in the sandbox and judged out here; then nbgrader's
own preprocessors put its points into the gradebook. Whatever happens to it ends in its own row.
"""

import hashlib
import multiprocessing
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from tqdm.auto import tqdm

from companion.homework import execute, repairing, submissions
from companion.homework.gradebook import Grades, Result
from companion.homework.release import Assignment
from companion.homework.sandbox import Limits, Sandbox, SandboxError, Unsandboxed
from companion.homework.sources import identity
from companion.homework.submissions import Submission, Unreadable

__all__ = ["Worked", "grade", "limits", "survey", "verify", "work", "worked"]

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
) -> tuple[int, int]:
    """Grades every submission in a folder that is not graded yet; returns (graded, resumed).

    Whatever happens to a submission ends in its row. Raises SandboxError if the sandbox fails.
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
    with tqdm(total=len(new), unit="submission", desc="grading", disable=quiet) as bar:
        for job, done in _run(new, sandbox, jobs):
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


_shared: dict[str, Any] = {}  # of a worker process: the sandbox and the assignments


def _start(sandbox: Sandbox | Unsandboxed, course: dict[str, Assignment]) -> None:
    _shared.update(sandbox=sandbox, course=course)


def _one(submission: Submission, name: str) -> Worked | BaseException:
    try:
        return work(submission, _shared["course"][name], _shared["sandbox"])
    except SandboxError:
        raise
    except Exception as e:
        return e


def _run(
    todo: list[Job], sandbox: Sandbox | Unsandboxed, jobs: int
) -> Iterator[tuple[Job, Worked | BaseException]]:
    """(job, what came of it), as they end; `jobs` of them at a time, each in a process."""
    course = {job.assignment.name: job.assignment for job in todo}
    if jobs == 1:
        _start(sandbox, course)
        for job in todo:
            yield job, _one(job.submission, job.assignment.name)
        return
    left = list(reversed(todo))
    while left:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(jobs, len(left)), context, _start, (sandbox, course))
        running: dict[Future[Any], Job] = {}
        try:
            while left or running:
                while left and len(running) < (2 * jobs if jobs > 1 else 1):
                    job = left[-1]
                    future = pool.submit(_one, job.submission, job.assignment.name)  # may raise
                    running[future] = left.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done = future.result()  # may raise: the job must still be among the running
                    yield running.pop(future), done
        except BrokenProcessPool as e:  # a worker was killed: the others' work is done again
            if len(running) <= 1:
                yield from ((job, e) for job in running.values())
            else:
                left += running.values()
                jobs //= 2  # with one at a time it is known whose the fault is
        finally:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
