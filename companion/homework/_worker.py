"""A submission's process seen from the grader: talking to it, watching it, ending it.

The process may do what it likes with its end of the pipes. So nothing here waits without a
deadline, nothing is read without a limit, and a message that is not the answer to the one question
that was asked ends the conversation.
"""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from companion.homework.protocol import ProtocolError, pack, unpack

__all__ = ["Gone", "Slow", "Worker"]

GRACE = 5.0  # seconds between an interrupt and the end
PATIENCE = 10.0  # on a busy machine a limit may take so many times as long on the clock
TICK = 0.1  # seconds between two looks at memory and processes
COUNTS = os.path.exists("/proc/self/schedstat")  # the times of other processes can be seen
TICKS = os.sysconf("SC_CLK_TCK")
LEAST_FREE = 0.05  # of the machine's memory: below this the process is ended whatever it uses


class Gone(Exception):
    """The process has ended; `reason` is "memory", "processes", "machine" or ""."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Slow(Exception):
    """The time was over, and an interrupt did not help."""


class Worker:
    """One process (and what it starts) with two pipes: `requests` to it, `replies` from it.

    `first` is the first process of its pid namespace, whose end is the end of all; None without
    a sandbox, where the process group stands in for it.
    """

    def __init__(
        self,
        popen: "subprocess.Popen[bytes]",
        requests: int,
        replies: int,
        *,
        first: int | None,
        memory: int,
        processes: int,
        reply: int,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._popen, self._requests, self._replies = popen, requests, replies
        self._first, self._limit = first, reply
        self._memory, self._processes = memory, processes
        self._done = done
        self._root = popen.pid if first is None else first
        self._handle = os.pidfd_open(first) if first is not None else None
        self._reason = ""
        self.spent = 0.0  # seconds of all exchanges
        self._end = threading.Event()
        self._lock = threading.Lock()
        for fd in (requests, replies):
            os.set_blocking(fd, False)
        self._watch = threading.Thread(target=self._watching, daemon=True)
        self._watch.start()

    # -- talking

    def talk(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a request. After `seconds`, in which waiting for a processor does not count,
        the process is interrupted, once.

        Raises Slow if there is no reply then, Gone if the process ends, and ProtocolError for
        everything but the one line with the nonce of this request. After any of these the
        conversation is over: `close`.
        """
        nonce = secrets.token_hex(16)
        unsent = memoryview(pack({**request, "id": nonce}))
        if self._readable(0.0):
            self._read()  # raises Gone at the end of the pipe
            raise ProtocolError("it wrote without being asked")
        message = unpack(self._exchange(unsent, seconds))
        if message.pop("id", None) != nonce:
            raise ProtocolError("an answer to another question")
        return message

    def hello(self, nonce: str, seconds: float) -> None:
        """Waits for the first line, which says that the process is there."""
        if unpack(self._exchange(memoryview(b""), seconds)).get("id") != nonce:
            raise ProtocolError("a first line that is none")

    def _exchange(self, unsent: memoryview, seconds: float) -> bytes:
        began, before = time.monotonic(), self._times()
        try:
            return self._line(unsent, lambda: self._elapsed(began, before) - seconds)
        finally:
            self.spent += self._elapsed(began, before)

    def _line(self, unsent: memoryview, over: Callable[[], float]) -> bytes:
        """Writes a request and reads a line; `over` says how many seconds the time is over."""
        line, end = bytearray(), 0.0
        while True:
            late = over()
            if late >= end:
                if end:
                    raise Slow
                end = late + GRACE
                self.interrupt()
            if unsent:
                unsent = self._write(unsent)
            if not self._readable(TICK, bool(unsent)):
                if self._popen.poll() is not None and not self._readable(0.0):
                    raise Gone(self._reason)
                continue
            part = self._read()
            line += part
            if len(line) > self._limit:
                raise ProtocolError("an answer without end")
            if b"\n" in part:
                whole, _, rest = line.partition(b"\n")
                if rest or unsent:
                    raise ProtocolError("more than one answer")
                return bytes(whole)

    def _elapsed(self, began: float, before: tuple[float, float]) -> float:
        """Seconds since then, without those in which it waited for a processor that others had.

        So a busy machine costs nobody points, and who sleeps or uses several processors gains none.
        """
        clock = time.monotonic() - began
        if not COUNTS:
            return clock
        processor, delay = (now - old for now, old in zip(self._times(), before, strict=True))
        return max(processor, clock - max(0.0, delay), clock / PATIENCE)

    def _times(self) -> tuple[float, float]:
        """Seconds of processor, and of waiting for one, of all its processes."""
        pids = _tree(self._root, self._processes)
        return sum(map(_processor, pids)), sum(map(_delay, pids))

    def _readable(self, seconds: float, or_writable: bool = False) -> bool:
        writers = [self._requests] if or_writable else []
        return bool(select.select([self._replies], writers, [], seconds)[0])

    def _read(self) -> bytes:
        try:
            part = os.read(self._replies, 1 << 16)
        except BlockingIOError:
            return b""
        if not part:
            raise Gone(self._reason)
        return part

    def _write(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self._requests, unsent[: 1 << 16]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            raise Gone(self._reason) from None

    # -- watching

    def _watching(self) -> None:
        while not self._end.wait(TICK):
            pids = _tree(self._root, self._processes)
            if len(pids) > self._processes + 2:  # bubblewrap's first one, and the submission's
                self._reason = "processes"
            elif sum(map(_resident, pids)) > self._memory and sum(map(_share, pids)) > self._memory:
                self._reason = "memory"
            elif _free() < LEAST_FREE:
                self._reason = "machine"
            if self._reason:
                self._kill()
                return

    def strained(self) -> bool:
        """Is so much memory taken that the next cells may lack it?"""
        return sum(map(_resident, _tree(self._root, self._processes))) > self._memory // 2

    # -- ending

    def interrupt(self) -> None:
        """Ctrl-C for the process that runs the cells."""
        inside = [self._root] if self._first is None else _children(self._root)[:1]
        for pid in inside:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGINT)

    def _kill(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            elif self._popen.poll() is None or _group_lives(self._popen.pid):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process and everything that it started; may be called again."""
        if self._end.is_set():
            return
        self._end.set()
        self._watch.join()
        self._kill()
        with contextlib.suppress(OSError):
            self._popen.kill()
        self._popen.wait()
        if self._handle is not None:
            select.select([self._handle], [], [], 10.0)  # readable when the whole namespace is gone
            os.close(self._handle)
            self._handle = None
        for fd in (self._requests, self._replies):
            os.close(fd)
        self._done()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                found += map(int, text.split())
    return found


def _tree(root: int, most: int) -> list[int]:
    """A process and all below it, in a sandbox all of the namespace; a few more than `most`."""
    found, new = [root], [root]
    while new and len(found) <= most + 2:
        new = [child for pid in new for child in _children(pid)]
        found += new
    return found


def _resident(pid: int) -> int:
    """Bytes of memory of a process's own, not the files that it has mapped. Quick."""
    return _sum_of_lines(f"/proc/{pid}/status", "RssAnon:", "RssShmem:")


def _share(pid: int) -> int:
    """The same, with what processes have in common divided among them. Slow."""
    return _sum_of_lines(f"/proc/{pid}/smaps_rollup", "Pss_Anon:", "Pss_Shmem:") or _resident(pid)


def _processor(pid: int) -> float:
    """Seconds of processor time of a process and of those that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS
    except (OSError, ValueError):
        return 0.0


def _delay(pid: int) -> float:
    """Seconds in which a process wanted to run and had no processor."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


def _sum_of_lines(path: str, *names: str) -> int:
    total = 0
    with contextlib.suppress(OSError, ValueError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(names):
                total += int(line.split()[1]) << 10
    return total


def _free() -> float:
    """The part of the machine's memory that is available."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        amounts = {k: int(v.split()[0]) for k, v in (line.split(":") for line in lines)}
        return amounts["MemAvailable"] / amounts["MemTotal"]
    return 1.0
