"""The instructor's command: python -m companion.homework make | check | grade | mark."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

try:
    from companion.homework import grading, release, table
    from companion.homework.gradebook import Grades, write
    from companion.homework.release import Assignment, CourseError
    from companion.homework.sandbox import Sandbox, SandboxError, Unsandboxed
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("companion"):
        raise
    print(
        f"companion.homework: {missing.name} is not installed. Type, in the project's folder:\n"
        "    pip install --constraint constraints.txt --editable '.[homework]'",
        file=sys.stderr,
    )
    sys.exit(2)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0 done, 1 look at what it says, 2 bad input."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (CourseError, SandboxError, OSError) as error:
        print(f"companion.homework: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("companion.homework: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m companion.homework", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    make = commands.add_parser(
        "make",
        help="write the students' notebooks, COURSE/student/*.ipynb",
        description="Writes the students' notebooks from COURSE/*.md, after running both: every "
        "solution must earn full points, every empty notebook none.",
    )
    make.set_defaults(run=_make)
    check = commands.add_parser(
        "check",
        help="say which of them are not up to date; run nothing",
        description="Says which sources are wrong and which students' notebooks are out of date.",
    )
    check.set_defaults(run=_check)
    for command in (make, check):
        command.add_argument("names", nargs="*", metavar="NAME", help="assignments (default: all)")

    grade = commands.add_parser(
        "grade",
        help="grade a folder of submissions",
        description="Grades SUBMISSIONS, one folder a student, flat files as Moodle and Canvas "
        "name them, or a zip. What is graded already is not graded again, so that a grading that "
        "was stopped goes on.",
    )
    grade.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="a folder, or a zip")
    grade.add_argument("--out", type=Path, default=Path("grades"), help="folder (default: grades)")
    grade.add_argument("--assignment", metavar="NAME", help="grade this one only")
    grade.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time")
    grade.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="a Dask scheduler, tcp://host:port: grade on its workers, in their sandboxes",
    )
    grade.add_argument(
        "--accept-no-sandbox",
        action="store_true",
        help="run submissions with your own rights: they can read, change and delete your files, "
        "and read the hidden tests",
    )
    grade.set_defaults(run=_grade)
    for command in (make, check, grade):
        command.add_argument(
            "--course", type=Path, default=Path("homework"), help="sources (default: homework)"
        )

    mark = commands.add_parser(
        "mark",
        help="take in points and comments given by hand",
        description="Puts points and comments into the gradebook, and writes the tables and the "
        "feedback again. GRADES/to_mark.csv lists what waits: fill it in and name it here. "
        "Without a file, only takes over what was marked in nbgrader's formgrader.",
    )
    mark.add_argument("grades", type=Path, metavar="GRADES", help="the folder of `grade --out`")
    mark.add_argument("marks", type=Path, nargs="?", metavar="MARKS.csv", help="filled in")
    mark.set_defaults(run=_mark)
    return parser


def _student_notebook(course: Path, assignment: Assignment) -> tuple[Path, str]:
    path = course / "student" / f"{assignment.name}.ipynb"
    return path, release.serialise(assignment.student)


def _make(options: argparse.Namespace) -> int:
    course = release.assignments(options.course, options.names)
    sandbox: Sandbox | Unsandboxed = Sandbox()
    why_not = sandbox.why_not()
    if why_not:
        print("No sandbox here; the solutions are your own, so they run without one.")
        sandbox = Unsandboxed()
    failed = 0
    for name, assignment in course.items():
        began = time.monotonic()
        wrong = grading.verify(assignment, sandbox)
        took = time.monotonic() - began
        for line in wrong:
            print(f"{name}: {line}", file=sys.stderr)
        failed += bool(wrong)
        points = sum(q.points for q in assignment.questions)
        if not wrong:
            path, text = _student_notebook(options.course, assignment)
            write(path, text)
        said = "FAILED" if wrong else "ok"
        print(f"  {said:7}{name}: {points:g} points, both runs in {took:.0f} s", flush=True)
    return 1 if failed else 0


def _check(options: argparse.Namespace) -> int:
    stale = 0
    for assignment in release.assignments(options.course, options.names).values():
        path, text = _student_notebook(options.course, assignment)
        if not path.exists() or path.read_text("utf8") != text:
            print(f"{path} is not what its source makes; type: make homework", file=sys.stderr)
            stale += 1
    return 1 if stale else 0


def _grade(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise CourseError(f"--jobs must be 1 or more, got {options.jobs}")
    if options.cluster and options.accept_no_sandbox:
        raise CourseError("--cluster grades in the workers' sandboxes; drop --accept-no-sandbox")
    if not options.submissions.exists():
        raise CourseError(f"{options.submissions}: no such folder")
    names = [options.assignment] if options.assignment else None
    course = release.assignments(options.course, names)
    grades = Grades(options.out)
    sandbox: Sandbox | Unsandboxed = Unsandboxed()
    if not options.accept_no_sandbox:
        folders = (options.course, options.submissions, options.out)
        sandbox = Sandbox(hide=tuple(folder.resolve() for folder in folders if folder.is_dir()))
        why_not = "" if options.cluster else sandbox.why_not()  # each worker says so itself
        if why_not:
            raise SandboxError(
                f"{why_not}\nNothing was run. If you accept that submissions can read, change and "
                "delete your files\nand read the hidden tests, add --accept-no-sandbox."
            )
    else:
        print("WARNING: submissions run without a sandbox, with your own rights.", file=sys.stderr)
    began = time.monotonic()
    rows: list[dict[str, str]] = []
    new = old = 0
    try:
        new, old = grading.grade(
            options.submissions,
            grades,
            course,
            sandbox,
            jobs=options.jobs,
            address=options.cluster,
        )
    finally:  # an interrupted grading leaves a table of what there is
        if grades.exists():
            rows = table.tables(grades)
    took = time.monotonic() - began
    print(f"{new} graded in {took:.0f} s" + (f", {old} were graded before" if old else ""))
    for status, number in Counter(row["status"] for row in rows).most_common():
        print(f"  {number:5} {status}")
    _say_where(grades, rows)
    results = grades.results()
    for result in results:
        if any(fault.startswith("feedback:") for fault in result.faults):
            print(f"{result.student}: the feedback cannot be shown", file=sys.stderr)
    errors = [result for result in results if result.status == "error"]
    for result in errors:
        print(f"{result.student}: {result.message} ({grades.record_of(result)})", file=sys.stderr)
    return 1 if errors else 0


def _mark(options: argparse.Namespace) -> int:
    grades = Grades(options.grades)
    if not grades.exists():
        raise CourseError(f"{options.grades} has no gradebook; it is made by `grade --out`")
    if options.marks is None:
        changed = {(r.student, r.assignment) for r in grades.results()}
    else:
        changed = set(table.mark(grades, options.marks))
        print(f"{len(changed)} submissions have marks from {options.marks}")
    for result in grades.results():
        if (result.student, result.assignment) in changed and result.key:
            grades.give_feedback(result)
    _say_where(grades, table.tables(grades))
    return 0


def _say_where(grades: Grades, rows: list[dict[str, str]]) -> None:
    waiting = sum(row.get("waiting for hand marking", "0") not in ("", "0") for row in rows)
    print(f"table     {grades.folder / 'grades.csv'}")
    print(f"feedback  {grades.folder / 'feedback'}")
    if waiting:
        print(
            f"to mark   {grades.folder / 'to_mark.csv'} (written answers of {waiting} submissions)"
        )


if __name__ == "__main__":
    sys.exit(main())
