"""A course with one small assignment, and honest submissions of it."""

from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from companion.homework import release

CODE = "{{grade: {}, solution: {}, locked: {}, grade_id: {}, schema_version: 3, task: false{}}}"
WRITTEN = (
    '{"grade": true, "solution": true, "locked": false, "points": 4, "grade_id": "2", '
    '"schema_version": 3, "task": false}'
)


def code(source: str, grade_id: str, *, grade=False, solution=False, points=None) -> str:
    """A code cell of a source, with nbgrader's metadata."""
    more = "" if points is None else f", points: {points}"
    flags = [str(x).lower() for x in (grade, solution, not solution)]
    meta = CODE.format(*flags, grade_id, more)
    return f"```{{code-cell}} python\n---\nnbgrader: {meta}\n---\n{source.strip()}\n```\n"


HEAD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
homework:
  title: Momentum
  part: I
  minutes: 10
  chapters: [mechanics]
  objectives: [multiply]
  time_limit: 20
---

# Momentum

Multiply.
"""
SETUP = code(
    "import numpy as np\n\nfrom companion.homework import checker\n\ncheck = checker(globals())",
    "setup",
)
ANSWER = code(
    """
# Question 1a: your answer
def momentum(m, v):
    ### BEGIN SOLUTION
    product_of_both = m * v
    return product_of_both
    ### END SOLUTION
""",
    "answer-1a",
    solution=True,
)
TEST = code(
    """
# Check of question 1a (2 points)
with check("1a") as ask:
    ask.close(ask("momentum(m, v)", m=2.0, v=3.0), 6.0, "the momentum of 2 kg at 3 m/s")
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng(1)
    m, v = rng.uniform(1, 2, 20), rng.normal(size=20)
    ask.close(ask("momentum(m, v)", m=m, v=v), m * v, "the momentum at random speeds")
    ### END HIDDEN TESTS
""",
    "1a",
    grade=True,
    points=2,
)
SECOND = code(
    """
# Check of question 1b (1 point)
with check("1b") as ask:
    ask.close(ask("momentum(m, v)", m=2.0, v=0.0), 0.0, "the momentum at rest")
""",
    "1b",
    grade=True,
    points=1,
)
GIVEN = code("def given(x):\n    return 2 * x", "given-3")
ANSWER_3 = code(
    """
# Question 3: your answer
### BEGIN SOLUTION
twice = given(21)
### END SOLUTION
""",
    "answer-3",
    solution=True,
)
TEST_3 = code(
    """
# Check of question 3 (3 points)
with check("3") as ask:
    ask.close(ask("twice"), 42, "twice 21")
""",
    "3",
    grade=True,
    points=3,
)
ESSAY = f"""\
+++ {{"nbgrader": {WRITTEN}}}

**Question 2: your answer** (4 points, marked by hand)

### BEGIN SOLUTION
Because the momentum is conserved.

Rubric: four points for saying so.
### END SOLUTION

+++

The end.
"""
CELLS = (HEAD, SETUP, ANSWER, TEST, SECOND, ESSAY, GIVEN, ANSWER_3, TEST_3)
SOURCE = "\n".join(CELLS)
FULL = {"1a": 2.0, "1b": 1.0, "3": 3.0}  # what the computer gives

RIGHT_1 = "# Question 1a: your answer\ndef momentum(m, v):\n    return v * m"
RIGHT_3 = "# Question 3: your answer\ntwice = 21 + 21"
SAID = "**Question 2: your answer** (4 points, marked by hand)\n\nBy Noether, $a<b$."


def write(folder: Path, text: str = SOURCE, name: str = "hw1_momentum") -> release.Assignment:
    """A course folder with this source, and the assignment that it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text(text, "utf8")
    return release.read(path)


def cell(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(c for c in notebook.cells if release.identity(c) == grade_id)


def index(notebook: NotebookNode, grade_id: str) -> int:
    return next(i for i, c in enumerate(notebook.cells) if release.identity(c) == grade_id)


def answered(assignment: release.Assignment, **answers: str) -> NotebookNode:
    """What a student hands in who got everything right; `a1`, `a2`, `a3` replace an answer."""
    notebook = deepcopy(assignment.student)
    given = {"a1": RIGHT_1, "a2": SAID, "a3": RIGHT_3} | answers
    for key, grade_id in (("a1", "answer-1a"), ("a2", "2"), ("a3", "answer-3")):
        cell(notebook, grade_id).source = given[key]
    return notebook


def hand_in(folder: Path, student: str, notebook: NotebookNode, name="hw1_momentum.ipynb") -> Path:
    path = folder / student / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook), "utf8")
    return path
