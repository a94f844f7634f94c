"""The pages for instructors and students say what is so."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tools import source

ROOT = Path(__file__).parents[1]
INSTRUCTORS = (ROOT / "book" / "instructors.md").read_text("utf8")
STUDENTS = (ROOT / "book" / "students.md").read_text("utf8")
ROW = re.compile(r"^\| \[(hw\d)\]\((\S+)\) \| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
COMMAND = re.compile(r"python -m companion\.homework ([^\n`]+)")


def test_the_table_of_assignments_is_that_of_the_sources():
    release = pytest.importorskip("companion.homework.release", exc_type=ImportError)
    course = release.assignments(ROOT / "homework")
    where = source.address()
    start = "https://colab.research.google.com/github"
    table = {m[1]: m.groups()[1:] for m in ROW.finditer(INSTRUCTORS)}
    for name, assignment in course.items():
        link, part, *numbers = table.pop(name.split("_")[0])
        assert link == (f"{start}/{where.slug}/blob/{where.branch}/homework/student/{name}.ipynb")
        assert part in re.split(r"\W+", str(assignment.about["part"])), name
        points = [q.points for q in assignment.questions]
        by_hand = [q.points for q in assignment.questions if q.written]
        expected = [sum(points), sum(by_hand), assignment.about["minutes"]]
        assert [int(n) for n in numbers] == expected, name
        assert f"`{name}`" in INSTRUCTORS
    assert not table, f"no source for {list(table)}"


@pytest.mark.parametrize("line", sorted({*COMMAND.findall(INSTRUCTORS)}))
def test_every_command_is_one(line):
    main = pytest.importorskip("companion.homework.__main__", exc_type=ImportError)
    options = main._parser().parse_args(shlex.split(line))
    assert callable(options.run)


def test_the_first_lines_and_the_stub_are_quoted_as_they_are():
    student = (ROOT / "homework" / "student" / "hw1_mechanics.ipynb").read_text("utf8")
    sources = ["".join(cell["source"]) for cell in json.loads(student)["cells"]]
    answer = next(source for source in sources if source.startswith("# Question 1a"))
    first, *_, last = answer.split("\n")
    assert f"`{first}`" in STUDENTS
    assert f"`{last.strip()}`" in STUDENTS
    assert any(source.startswith("# Check of question 1a (") for source in sources)


def test_the_example_of_a_question_is_a_question(tmp_path):
    release = pytest.importorskip("companion.homework.release", exc_type=ImportError)
    example = INSTRUCTORS.split("````\n")[1]
    front = (ROOT / "homework" / "hw1_mechanics.md").read_text("utf8")
    head, cell, rest = front.partition("```{code-cell} python\n")
    setup = cell + rest.partition("\n```\n")[0] + "\n```\n\n"
    (tmp_path / "_config.yml").write_text((ROOT / "_config.yml").read_text("utf8"), "utf8")
    course = tmp_path / "homework"
    course.mkdir()
    (course / "hw9_example.md").write_text(head + setup + example, "utf8")
    assignment = release.read(course / "hw9_example.md")
    assert [(q.id, q.points, q.answer) for q in assignment.questions] == [("1a", 2, "answer-1a")]
    assert "return m * v" not in release.serialise(assignment.student)


def test_every_section_to_run_is_in_the_book():
    headings = {
        line.removeprefix("## ").removeprefix("Play: ").rstrip("?").lower()
        for path in (ROOT / "book").glob("*.md")
        for line in path.read_text("utf8").split("\n")
        if line.startswith("## ")
    }
    named = re.findall(r"Run \*([^*]+?)\??\*", INSTRUCTORS)
    assert len(named) >= 14
    assert not {name for name in named if name.lower() not in headings}


def test_the_names_of_downloads_are_understood(tmp_path):
    submissions = pytest.importorskip("companion.homework.submissions", exc_type=ImportError)
    block = INSTRUCTORS.split("```\nMoodle ")[1].split("```")[0]
    files = re.findall(r"[^\s,][^\n,]*?\.ipynb", "Moodle " + block)
    files = [re.sub(r"^(Moodle|Canvas|Blackboard|mail|or)\s+", "", file) for file in files]
    students = []
    for number, file in enumerate(files):
        path = tmp_path / str(number) / file
        path.parent.mkdir(parents=True)
        path.write_text("{}", "utf8")
        (found,) = submissions.find(tmp_path / str(number), ["hw1_mechanics", "hw2_noether"])
        students.append(found.student)
    assert students == ["Ada Lovelace_4711", "lovelaceada_4711", *["alovelace"] * 3]
