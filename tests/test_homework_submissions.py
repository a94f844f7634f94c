"""Submissions as an LMS packs them, broken in the ways that notebooks break. Nothing runs here."""

import json
import os
import zipfile
from copy import deepcopy
from pathlib import Path

import homework_tiny as tiny
import nbformat
import pytest

from companion.homework import submissions
from companion.homework.repairing import repair
from companion.homework.sources import identity
from companion.homework.submissions import Unreadable, assignment_of, find, named, parse

NAMES = ["hw1_momentum", "hw2_noether"]


@pytest.fixture
def assignment(tmp_path):
    return tiny.write(tmp_path / "course")


@pytest.fixture
def right(assignment):
    return tiny.answered(assignment)


def received(notebook):
    """A notebook as it comes out of a file."""
    return parse(json.dumps(notebook).encode(), "hw1.ipynb")


def put(folder: Path, *names: str, text: str = "{}"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf8")


def students(folder: Path) -> list[tuple[str, str]]:
    return [(s.student, s.file) for s in find(folder, NAMES)]


# -- finding --------------------------------------------------------------------------------------


def test_a_folder_for_each_student(tmp_path):
    put(tmp_path, "ada/hw1.ipynb", "bob/hw1_momentum/hw1_momentum.ipynb", "bob/hw2.ipynb")
    put(tmp_path, "ada/.ipynb_checkpoints/hw1.ipynb", "bob/__MACOSX/._hw1.ipynb", "ada/notes.txt")
    assert students(tmp_path) == [
        ("ada", "ada/hw1.ipynb"),
        ("bob", "bob/hw1_momentum/hw1_momentum.ipynb"),
        ("bob", "bob/hw2.ipynb"),
    ]


def test_flat_files(tmp_path):
    put(tmp_path, "ada_hw1.ipynb", "de la_cruz-HW1_momentum (2).ipynb", "eve_hw1_bob_hw1.ipynb")
    put(tmp_path, "zed.ipynb", "hw1x_hw2.ipynb")
    assert [s for s, _ in students(tmp_path)] == ["ada", "de la_cruz", "eve", "hw1x", "zed"]


def test_moodle_and_canvas(tmp_path):
    put(tmp_path, "Ada Lovelace_7_assignsubmission_file_/hw1.ipynb")
    put(tmp_path, "Bo_b_8_assignsubmission_file/hw1.ipynb")
    put(tmp_path, "Cy_9_assignsubmission_file_ada_hw1.ipynb")
    put(tmp_path, "doedan_LATE_33_998_bob_1_2_hw1.ipynb", "eve_34_999_hw1-1.ipynb")
    assert [s for s, _ in students(tmp_path)] == [
        "Ada Lovelace_7",
        "Bo_b_8",
        "Cy_9",
        "doedan_33",
        "eve_34",
    ]


def test_a_folder_around_everything(tmp_path):
    put(tmp_path / "one", "course 101/ada/hw1.ipynb", "course 101/bob/hw1.ipynb")
    assert [s for s, _ in students(tmp_path / "one")] == ["ada", "bob"]
    put(tmp_path / "two", "download/eve_34_999_hw1.ipynb")
    assert [s for s, _ in students(tmp_path / "two")] == ["eve_34"]
    put(tmp_path / "three", "ada/hw1_momentum/a.ipynb", "ada/hw2_noether/b.ipynb")
    assert [s for s, _ in students(tmp_path / "three")] == ["ada", "ada"]


def test_zips(tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("ada/hw1.ipynb", "{}")
        z.writestr("../../bob/../hw1.ipynb", "{}")
        z.writestr("__MACOSX/ada/._hw1.ipynb", "")
    assert students(path) == [("ada", "ada/hw1.ipynb"), ("bob", "bob/hw1.ipynb")]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "cy_hw1.zip").write_bytes(path.read_bytes())
    found = find(folder, NAMES)
    assert {s.student for s in found} == {"cy"}, "a student cannot hand in for others"
    assert found[0].bytes() == b"{}"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["all.zip", "cy_hw1.zip", "folder"]


def test_everybody_is_found(tmp_path):
    (tmp_path / "ada").mkdir()
    (tmp_path / "bob" / "hw1.ipynb").mkdir(parents=True)
    put(tmp_path, "cy/hw1.pdf", "cy/notes.txt", "dan/hw1.zip")
    os.mkfifo(tmp_path / "pipe_hw1.ipynb")
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "hw1.ipynb").symlink_to("/etc/passwd")
    (tmp_path / "fay").symlink_to(tmp_path / "cy")
    said = {}
    for submission in find(tmp_path, NAMES):
        with pytest.raises(Unreadable) as error:
            submission.notebook()
        said[submission.student] = str(error.value)
    assert set(said) == {"ada", "bob", "cy", "dan", "eve", "fay", "pipe"}
    assert "no file" in said["ada"]
    assert "not a notebook" in said["cy"]
    assert "link" in said["eve"]
    assert "device" in said["pipe"]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find(tmp_path / "nowhere", NAMES)


def test_names_are_safe_folders(tmp_path):
    put(tmp_path, "=cmd|calc!A0/hw1.ipynb", "-rf/hw1.ipynb", "ä é/hw1.ipynb", "a:b/hw1.ipynb")
    put(tmp_path, "a;b/hw1.ipynb", "Ada/hw1.ipynb", "ada/hw1.ipynb", "x\ny/hw1.ipynb")
    names = [s for s, _ in students(tmp_path)]
    assert len({name.casefold() for name in names}) == 8
    assert {"_cmd_calc_A0", "_rf", "ä é", "a_b", "x_y"} <= set(names)


def test_long_names_are_quick(tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("_" * 65000 + ".ipynb", "{}")
        z.writestr("x" * 65000 + "/hw1.ipynb", "{}")
    assert all(len(student) <= 100 for student, _ in students(path))


def test_of_several_files_the_latest_is_last(tmp_path):
    put(tmp_path, "ada/hw1-2.ipynb", "ada/hw1-10.ipynb", "ada/hw1.ipynb")
    for path in tmp_path.rglob("*.ipynb"):
        os.utime(path, (1e9, 1e9))
    assert [Path(f).name for _, f in students(tmp_path)] == [
        "hw1.ipynb",
        "hw1-2.ipynb",
        "hw1-10.ipynb",
    ]
    os.utime(tmp_path / "ada" / "hw1.ipynb", (2e9, 2e9))
    assert students(tmp_path)[-1] == ("ada", "ada/hw1.ipynb")


# -- reading --------------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return '{"nbformat": 4, "cells": ' + "[" * depth + "]" * depth + "}"


NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
CELL = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "id": "a"}
BROKEN = {
    "empty": (b"  ", "is empty"),
    "pdf": (b"%PDF-1.7", "it is a PDF"),
    "page": (b"<!doctype html><html>", "it is a web page"),
    "half": (b'{"nbformat": 4, "cells": [', "it is no JSON"),
    "bytes": (b"\xff\xfe\x00", "not a Jupyter notebook"),
    "list": (b"[]", "not a Jupyter notebook"),
    "another": (b'{"cells": []}', "not a Jupyter notebook"),
    "no cells": (b'{"nbformat": 4}', "damaged"),
    "strange cells": (b'{"nbformat": 4, "cells": {"a": 1}}', "damaged"),
    "strange cell": (b'{"nbformat": 4, "cells": [7]}', "damaged"),
    "new": (json.dumps({**NOTEBOOK, "nbformat": 9}).encode(), "damaged"),
    "deep": (nested(100_000).encode(), "not a Jupyter notebook"),
    "less deep": (nested(900).encode(), "damaged"),
    "no text": (json.dumps({**NOTEBOOK, "cells": [{**CELL, "source": 3}]}).encode(), "damaged"),
    "surrogate": (
        json.dumps({**NOTEBOOK, "cells": [{**CELL, "source": "\ud800"}]}).encode(),
        "damaged",
    ),
    "long": (
        json.dumps({**NOTEBOOK, "cells": [{**CELL, "source": ""}] * 1001}).encode(),
        "more than 1000",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_notebook_is_refused(kind):
    data, message = BROKEN[kind]
    with pytest.raises(Unreadable, match=message) as error:
        parse(data, "ada/hw1.ipynb")
    assert "ada/hw1.ipynb" in str(error.value)
    assert len(str(error.value)) < 400


def test_size(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "MAX_BYTES", 10)
    put(tmp_path, "ada_hw1.ipynb", text="1234567890")
    assert find(tmp_path, NAMES)[0].bytes() == b"1234567890"
    put(tmp_path, "ada_hw1.ipynb", text="12345678901")
    with pytest.raises(Unreadable, match="Clear the outputs"):
        find(tmp_path, NAMES)[0].bytes()
    with zipfile.ZipFile(tmp_path / "b_hw1.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("hw1.ipynb", b"0" * 10_000_000)
    with pytest.raises(Unreadable, match="Clear the outputs"):
        find(tmp_path, NAMES)[1].bytes()


def test_old_formats(right):
    for version in (3, 2):
        old = nbformat.convert(deepcopy(right), 3)
        old.nbformat = version
        for cell in old.worksheets[0].cells:  # as files hold it: a list of lines
            key = "input" if cell.cell_type == "code" else "source"
            cell[key] = cell[key].splitlines(keepends=version == 3)
        text = json.dumps(old)
        new = parse(text.encode(), "hw1.ipynb")
        assert [c.source for c in new.cells if c.cell_type == "code"] == [
            c.source for c in right.cells if c.cell_type == "code"
        ]
        nbformat.validate(new)


def test_nothing_but_text_is_kept(right):
    answer = tiny.cell(right, "answer-1a")
    answer.metadata["tags"] = ["</div><script>"]
    answer.outputs = [nbformat.v4.new_output("stream", text="x" * 1000)]
    essay = tiny.cell(right, "2")
    essay["attachments"] = {
        "a.png": {"image/png": "aGk="},
        "b.svg": {"image/svg+xml": "<svg onload=alert(1)>"},
        "c.png": {"image/png": '"><script>'},
    }
    read = received(right)
    assert not any(c.get("outputs") for c in read.cells)
    assert "script" not in json.dumps(read)
    assert "svg" not in json.dumps(read)
    assert "aGk=" in json.dumps(read)
    assert set(read.metadata) == {"homework"}


def test_whose_notebook(assignment, right, tmp_path):
    other = tiny.write(tmp_path / "course", name="hw2_noether")
    known = {a.name: a for a in (assignment, other)}
    read = received(right)
    assert assignment_of(read, "x.ipynb", known) is assignment
    with pytest.raises(Unreadable, match="is the notebook of hw1_momentum, not of hw2_noether"):
        assignment_of(read, "hw2.ipynb", {"hw2_noether": other})
    del read.metadata["homework"]
    assert assignment_of(read, "x.ipynb", known) is assignment  # by the ids of its cells
    for cell in read.cells:
        cell.metadata.clear()
    assert assignment_of(read, "My HW2 (1).ipynb", known) is other
    with pytest.raises(Unreadable, match="nothing tells which assignment"):
        assignment_of(read, "x.ipynb", known)
    assert named("hw12.ipynb", NAMES) == ""
    assert named("a/b_hw2_noether.ipynb", NAMES) == "hw2_noether"


# -- repairing ------------------------------------------------------------------------------------


def ids(repaired):
    return [identity(c) for c in repaired.notebook.cells if identity(c)]


ORDER = ["setup", "answer-1a", "1a", "1b", "2", "given-3", "answer-3", "3"]


def test_a_whole_notebook_is_left_alone(assignment, right):
    repaired = repair(received(right), assignment)
    assert ids(repaired) == ORDER
    assert repaired.notes == []
    assert tiny.cell(repaired.notebook, "answer-1a").source == tiny.RIGHT_1
    assert "rng" in tiny.cell(repaired.notebook, "1a").source  # with its hidden tests
    assert [c.source for c in repaired.notebook.cells if not identity(c)] == [
        c.source for c in right.cells if not identity(c)
    ]
    nbformat.validate(repaired.notebook)
    assert len({c.id for c in repaired.notebook.cells}) == len(repaired.notebook.cells)


def stripped(notebook, *, colab=False):
    notebook = deepcopy(notebook)
    notebook.metadata.clear()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        cell.id = f"x{number}"
        if colab:
            cell.metadata["id"] = f"Gx_{number}"
    return notebook


def test_metadata_that_were_lost_come_back(assignment, right):
    whole = repair(received(right), assignment).notebook
    for colab in (False, True):
        again = repair(received(stripped(right, colab=colab)), assignment)
        assert again.notes == []
        assert again.notebook == whole


def test_metadata_that_make_no_sense(assignment, right):
    for cell, nonsense in zip(right.cells, (7, "x", [], {"grade_id": {}}, None, {}), strict=False):
        cell.metadata["nbgrader"] = nonsense
    raw = json.loads(json.dumps(right))
    read = parse(json.dumps(raw).encode(), "hw1.ipynb")
    assert ids(repair(read, assignment)) == ORDER


def test_the_last_answer_counts_and_the_others_run(assignment, right):
    first = deepcopy(tiny.cell(right, "answer-1a"))
    first.source = "# Question 1a: your answer\nhelper = 1"
    stub = deepcopy(tiny.cell(assignment.student, "answer-1a"))
    at = tiny.index(right, "answer-1a")
    right.cells[at:at] = [first]
    right.cells.append(stub)
    repaired = repair(received(right), assignment)
    assert ids(repaired) == ORDER
    assert tiny.cell(repaired.notebook, "answer-1a").source == tiny.RIGHT_1
    sources = [c.source for c in repaired.notebook.cells]
    assert first.source in sources
    assert stub.source not in sources  # it would undo the answer
    assert "2 cells with an answer" in repaired.notes[0]


def test_tests_that_were_deleted_changed_or_moved(assignment, right):
    del right.cells[tiny.index(right, "1b")]
    tiny.cell(right, "1a").source = '# Check of question 1a (2 points)\nprint("✓")'
    moved = right.cells.pop(tiny.index(right, "3"))
    right.cells.insert(2, moved)  # before its answer
    right.cells.append(deepcopy(moved))
    last = deepcopy(moved)
    last.source = "twice = 42"
    right.cells.append(last)
    repaired = repair(received(right), assignment)
    assert sorted(ids(repaired)) == sorted(ORDER)
    order = ids(repaired)
    assert order.index("answer-1a") < order.index("1b")
    assert order[-1] == "3"  # where the student has it, behind its answer
    for question in ("1a", "1b", "3"):
        cell = tiny.cell(repaired.notebook, question)
        assert cell.source == tiny.cell(assignment.graded, question).source


def test_answers_that_were_deleted(assignment, right):
    for grade_id in ("answer-1a", "2", "1a"):
        del right.cells[tiny.index(right, grade_id)]
    repaired = repair(received(right), assignment)
    assert sorted(ids(repaired)) == sorted(ORDER)
    assert tiny.cell(repaired.notebook, "answer-1a").source == "# Question 1a: your answer"
    assert tiny.cell(repaired.notebook, "2").source.endswith("*Write your answer here.*")
    assert [note[:11] for note in repaired.notes] == ["Question 1a", "Question 2:"]


def test_locked_cells(assignment, right):
    del right.cells[tiny.index(right, "given-3")]
    tiny.cell(right, "setup").source += "\nimport math"
    repaired = repair(received(right), assignment)
    assert ids(repaired) == ORDER
    cells = repaired.notebook.cells
    at = tiny.index(repaired.notebook, "setup")
    assert "math" not in cells[at].source
    assert cells[at + 1].source.endswith("import math")
    del right.cells[tiny.index(right, "setup")]
    assert (
        repair(received(right), assignment).notebook.cells[0].metadata.nbgrader.grade_id == "setup"
    )


def test_cells_of_another_kind(assignment, right):
    """An answer that became text, a written answer that became code."""
    for grade_id, new in (
        ("answer-3", nbformat.v4.new_markdown_cell),
        ("2", nbformat.v4.new_code_cell),
    ):
        at = tiny.index(right, grade_id)
        right.cells[at] = new(right.cells[at].source)
    repaired = repair(received(right), assignment)
    assert tiny.cell(repaired.notebook, "answer-3").cell_type == "code"
    assert tiny.cell(repaired.notebook, "answer-3").source == tiny.RIGHT_3
    assert tiny.cell(repaired.notebook, "2").cell_type == "markdown"
    nbformat.validate(repaired.notebook)


def test_pictures_that_colab_pastes_into_the_text(assignment, right):
    tiny.cell(
        right, "2"
    ).source += "\n\n![drawn](data:image/png;base64,aGk=) ![x](data:text/html;base64,aGk=)"
    essay = tiny.cell(repair(received(right), assignment).notebook, "2")
    assert "![drawn](attachment:pasted-0)" in essay.source
    assert "data:text/html" in essay.source  # left to the whitelist of the feedback
    assert essay.attachments == {"pasted-0": {"image/png": "aGk="}}
    nbformat.validate(repair(received(right), assignment).notebook)
