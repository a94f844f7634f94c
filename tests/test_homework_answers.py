"""The assignments, cell by cell: what must earn a point, and what must not.

For each homework/NAME.md: the instructor's answers earn every point, a stub earns none, and no cell
of a notebook of stubs raises. tests/homework_answers/NAME.py adds, for the test cell "2b",

    ALTERNATIVES = {"2b": [source, ...]}   right answers in another form
    MISTAKES = {"2b": [source, ...]}       what students get wrong
    SLOW = {"4a"}                          test cells that train

A source takes the place of the last answer cell before that test cell; the questions before it
have the instructor's answers. Test cells run as in grading, in a namespace of their own.
"""

import contextlib
import functools
import importlib.util
import io
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import matplotlib
import numpy as np
import pytest

from companion.homework import Wrong, checker

HOMEWORK = Path(__file__).parents[1] / "homework"
ANSWERS = Path(__file__).parent / "homework_answers"
NAMES = sorted(path.stem for path in ANSWERS.glob("hw*.py"))
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION[^\n]*", re.S | re.M)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS[^\n]*\n?", re.S | re.M)


@functools.cache
def cells(name: str) -> list[tuple[str, str, str]]:
    """(kind, grade_id, source) of the code cells; kind: given, answer or test."""
    found = []
    for cell in jupytext.read(HOMEWORK / f"{name}.md").cells:
        about = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code":
            kind = "test" if about.get("grade") else "answer" if about.get("solution") else "given"
            source = re.sub(r"^(\s*)%pip .*$", r"\1pass", cell.source, flags=re.M)
            found.append((kind, about.get("grade_id", ""), source))
    return found


@functools.cache
def answers(name: str):
    spec = importlib.util.spec_from_file_location(name, ANSWERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stub(source: str) -> str:
    return SOLUTION.sub(r"\1...  # your code here", source)


def run(source: str, namespace: dict) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "<cell>", "exec"), namespace)


class Raising:
    """`check` as the grader has it: a wrong answer raises."""

    def __init__(self, student: dict) -> None:
        self._ask = checker(student)._ask

    @contextlib.contextmanager
    def __call__(self, question: str) -> Iterator:
        yield self._ask


def judge(source: str, student: dict) -> None:
    """Runs a test cell, hidden tests and all, where the grader runs it: not beside the answers."""
    run(source, {"__name__": "__test__", "check": Raising(student), "np": np})


@functools.cache
def before(name: str, index: int) -> dict:
    """The namespace of the instructor just before a cell. Not to be changed: copy it."""
    if index == 0:
        return {"__name__": "__main__"}
    kind, _, source = cells(name)[index - 1]
    namespace = dict(before(name, index - 1))
    if kind != "test":
        run(source, namespace)
    return namespace


def prepared(name: str, question: str, answer: str) -> tuple[dict, str]:
    """The namespace of a student with this answer, just before a test cell; and the test cell."""
    found = cells(name)
    test = next(i for i, cell in enumerate(found) if cell[:2] == ("test", question))
    place = max(i for i in range(test) if found[i][0] == "answer")
    student = dict(before(name, place))
    run(answer, student)
    for kind, _, source in found[place + 1 : test]:
        if kind == "given":  # it may use a wrong answer, and stop; grading goes on
            with contextlib.suppress(Exception):
                run(source, student)
    return student, found[test][2]


def cases(kind: str) -> list:
    found = []
    for name in NAMES:
        module = answers(name)
        for question, sources in getattr(module, kind).items():
            slow = [pytest.mark.slow] if question in getattr(module, "SLOW", ()) else []
            for i, source in enumerate(sources):
                label = f"{name}-{question}-{i}"
                found.append(pytest.param(name, question, source, id=label, marks=slow))
    return found


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("COMPANION_BUDGET", "ci")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("DISPLAY", raising=False)  # with it, plt.show() of Agg would warn
    matplotlib.use("Agg")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_instructors_answers_earn_every_point(name):
    student, judged = {"__name__": "__main__"}, 0
    for kind, _, source in cells(name):
        judge(source, student) if kind == "test" else run(source, student)
        judged += kind == "test"
    assert judged >= 8  # every test raises where an answer is wrong


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_of_stubs_runs_and_earns_nothing(name):
    student = {"__name__": "__main__"}
    for kind, identity, source in cells(name):
        if kind == "test":
            with pytest.raises(Wrong) as reason:
                judge(source, student)
            assert str(reason.value), identity
            run(HIDDEN.sub("", source), student)  # what a student has: prints, never raises
        else:
            run(stub(source), student)


@pytest.mark.parametrize(("name", "question", "source"), cases("ALTERNATIVES"))
def test_a_right_answer_in_another_form_earns_the_points(name, question, source):
    student, test = prepared(name, question, source)
    judge(test, student)


@pytest.mark.parametrize(("name", "question", "source"), cases("MISTAKES"))
def test_a_mistake_earns_no_points(name, question, source):
    student, test = prepared(name, question, source)
    with pytest.raises(Wrong) as reason:
        judge(test, student)
    print(name, question, reason.value)
