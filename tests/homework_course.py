"""A course of one small assignment, for the tests of the grader: quick to run, easy to attack.

Automatic points: 1a (1), 1b (2), 2 (2), 3a (1), 3b (2); question 4 (4) is marked by hand. `SECRET`
stands in every hidden place whose text must never come out: solutions, hidden tests, rubric.
`ASKED` stands in the expression of a hidden question, which the submission's process has to see,
but no reader of feedback has to.
"""

import json
from pathlib import Path

import tools.source

NAME = "hw9_trial"
FILE = f"{NAME}.ipynb"
SECRET = "73904162538"
ASKED = "x4417"
POINTS = {"1a": 1, "1b": 2, "2": 2, "3a": 1, "3b": 2}
FULL = tuple(POINTS.values())
BY_HAND = {"4": 4}
SECONDS_A_CELL = 3  # of processor time
MEGABYTES = 600

RIGHT = {
    "answer-1a": "def kinetic(m, v):\n    return m * v**2 / 2",
    "answer-2": """\
import sympy as sp

t = sp.Symbol("t")
m, g, l = sp.symbols("m g l")
theta = sp.Function("theta")(t)
L = m * l**2 * theta.diff(t)**2 / 2 + m * g * l * sp.cos(theta)""",
    "answer-3a": """\
def trajectory(q, p, dt, n):
    rows = [[q, p]]
    for _ in range(n):
        p = p - dt / 2 * q
        q = q + dt * p
        p = p - dt / 2 * q
        rows.append([q, p])
    return np.array(rows)""",
}

_TEXT = {
    "answer-1a": "**Question 1.** Write `kinetic(m, v)`: the kinetic energy of a mass at a speed.",
    "answer-2": "**Question 2.** `L`: the Lagrangian of a pendulum in `m`, `g`, `l`, `theta(t)`.",
    "answer-3a": "**Question 3.** `trajectory(q, p, dt, n)`: rows $(q, p)$ of n steps for "
    "$H = (q^2 + p^2)/2$ whose energy does not drift.",
}

_TESTS = {
    "1a": """\
with check("1a") as ask:
    ask.close(ask("kinetic(2.0, 3.0)"), 9.0, "the energy of 2 kg at 3 m/s")""",
    "1b": f"""\
with check("1b") as ask:
    ask.close(ask("kinetic(m, v)", m=2.0, v=-1.0), 1.0, "the energy at a negative speed")
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng({SECRET}04)
    m, v = rng.uniform(1, 2, 9), rng.normal(size=9)
    got = ask("[kinetic({ASKED}, b) for {ASKED}, b in zip(m, v)]", m=m, v=v)
    ask.close(got, m * v**2 / 2, "the energy at random speeds")
    ### END HIDDEN TESTS""",
    "2": f"""\
with check("2") as ask:
    at = {{"m": 1.0, "g": 9.8, "l": 2.0, "theta(t)": 0.0, "Derivative(theta(t), t)": 1.0}}
    ask.close(ask.symbolic("L", **at), 21.6, "the Lagrangian at the lowest point")
    ### BEGIN HIDDEN TESTS
    rng = np.random.default_rng({SECRET}05)
    m, g, l, a, w = rng.uniform(0.5, 2, (5, 7))
    at = {{"m": m, "g": g, "l": l, "theta(t)": a, "Derivative(theta(t), t)": w}}
    expected = m * l**2 * w**2 / 2 + m * g * l * np.cos(a)
    ask.close(ask.symbolic("L  # {ASKED}", **at), expected, "the Lagrangian at random points")
    ### END HIDDEN TESTS""",
    "3a": """\
with check("3a") as ask:
    got = np.asarray(ask("trajectory(1.0, 0.0, 0.1, 4)"), float)
    ask.true(got.shape == (5, 2), "the shape is (n + 1, 2)")
    ask.close(got[0], [1.0, 0.0], "the first row is where it begins")
    ask.close(got[1], [0.995, -0.09975], "the first step", atol=0.01)""",
    "3b": f"""\
with check("3b") as ask:
    ### BEGIN HIDDEN TESTS
    dt = 0.1 + {SECRET} * 1e-13
    got = np.asarray(ask("trajectory(q, p, dt, n)  # {ASKED}", q=0.3, p=0.8, dt=dt, n=500), float)
    ask.true(got.shape == (501, 2), "the shape for 500 steps")
    angle = dt * np.arange(501)
    exact = 0.3 * np.cos(angle) + 0.8 * np.sin(angle)
    ask.below(np.abs(got[:, 0] - exact).max(), 0.05, "the largest error of q")
    ask.below(np.ptp((got**2).sum(1)) / 2, 0.002, "the drift of the energy")
    ### END HIDDEN TESTS
    rows = ask("trajectory(0.0, 1.0, 0.1, 2)")
    ask.true(len(rows) == 3, "two steps give three rows")""",
}


def _fence(kind: str, source: str, **nbgrader: object) -> str:
    about = {"grade": False, "solution": False, "locked": True, "task": False} | nbgrader
    lines = [f"  {k}: {json.dumps(x)}" for k, x in (about | {"schema_version": 3}).items()]
    return "\n".join([f"```{{code-cell}} {kind}", "---", "nbgrader:", *lines, "---", source, "```"])


def source() -> str:
    """The assignment as its author writes it: jupytext's MyST."""
    setup = (
        f"{tools.source.address().setup_cell}\n\n"
        "import numpy as np\n\nfrom companion.homework import checker\n\ncheck = checker(globals())"
    )
    parts = [
        "---",
        "jupytext:\n  text_representation:\n    extension: .md\n    format_name: myst",
        "kernelspec:\n  display_name: Python 3\n  language: python\n  name: python3",
        "homework:",
        "  title: A trial",
        "  part: I",
        "  minutes: 10",
        "  chapters: [mechanics]",
        "  objectives: ['be attacked']",
        f"  time_limit: {SECONDS_A_CELL}",
        f"  memory_limit: {MEGABYTES}",
        "---",
        "",
        "# A trial",
        "",
        _fence("ipython3", setup, grade_id="setup"),
    ]
    for question, text in _TEXT.items():
        number = question.removeprefix("answer-")
        answer = (
            f"# Question {number}: your answer\n### BEGIN SOLUTION\n# {SECRET}\n"
            f"{RIGHT[question]}\n### END SOLUTION"
        )
        parts += [
            "",
            text,
            "",
            _fence("ipython3", answer, solution=True, locked=False, grade_id=question),
        ]
        for test, points in POINTS.items():
            if test[0] == number[0]:
                first = f"# Check of question {test} ({points} point{'s' * (points > 1)})\n"
                parts += [
                    "",
                    _fence(
                        "ipython3", first + _TESTS[test], grade=True, points=points, grade_id=test
                    ),
                ]
    written = (
        '+++ {"nbgrader": {"grade": true, "solution": true, "locked": false, "points": 4, '
        '"grade_id": "4", "schema_version": 3, "task": false}}\n\n'
        "**Question 4: your answer** (4 points, marked by hand)\n\n"
        f"### BEGIN SOLUTION\nThe map preserves areas. Rubric {SECRET}: two points a reason.\n"
        "### END SOLUTION"
    )
    return "\n".join([*parts, "", written, ""])


def write(folder: Path) -> Path:
    """Writes the course of this one assignment into a folder; returns the source's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.md"
    path.write_text(source(), "utf8")
    return path
