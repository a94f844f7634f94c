"""One submission: its cells run in a sandbox, its test cells here, and what came of each.

outcome = run([Code(source, "setup"), Code(answer, "answer-1a"), Test(test, "1a")], Sandbox())
outcome.tests["1a"].passed, outcome.codes["answer-1a"].outputs
"""

import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from companion.homework._outputs import error, outputs
from companion.homework._worker import PATIENCE, Gone, Slow, Worker
from companion.homework.asking import Ask, Evaluate, Failed, Wrong
from companion.homework.protocol import ProtocolError, clean, decode, encode
from companion.homework.sandbox import Limits, Sandbox, SandboxError, Unsandboxed

__all__ = ["Code", "Judged", "Limits", "Outcome", "Ran", "Step", "Test", "run"]


@dataclass(frozen=True)
class Code:
    """A student's cell (or a locked one that is not a test): run in the sandbox."""

    source: str
    id: str


@dataclass(frozen=True)
class Test:
    """A test cell: run here, in a namespace of its own with `check` and `np`."""

    __test__ = False  # pytest must not collect it
    source: str
    id: str


Step = Code | Test


@dataclass
class Ran:
    """What a code cell did. `outputs` are nbformat 4 outputs (text, PNG, LaTeX), bounded and clean.

    `status`: "ok"; "error" (an exception; the later cells ran all the same); "stopped" (time limit,
    interrupted, the names it made are kept); "killed" (it had to be killed or ended the process;
    the other cells were run again without it); "not run" (no time or no restarts left).
    `message` is empty when ok, otherwise a sentence for the student.
    """

    id: str
    status: str = "not run"
    message: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Judged:
    """What a test cell found. `message` is for the student and shows neither test nor answer.

    `fault` is for the operator: the traceback when the test itself raised something that is not
    Wrong (a strange answer, or an error in the test); never show it to a student.
    """

    id: str
    passed: bool = False
    message: str = ""
    fault: str = ""
    seconds: float = 0.0


@dataclass
class Outcome:
    """Of a submission: `results[i]` belongs to `cells[i]`; by id in `codes` and `tests`.

    Ids must be unique among the codes and among the tests. `notes` are sentences about the whole
    submission (limits that were reached). `restarts` counts the fresh processes that were needed.
    """

    results: list[Ran | Judged]
    notes: list[str] = field(default_factory=list)
    restarts: int = 0
    seconds: float = 0.0

    @property
    def codes(self) -> dict[str, Ran]:
        return {r.id: r for r in self.results if isinstance(r, Ran)}

    @property
    def tests(self) -> dict[str, Judged]:
        return {r.id: r for r in self.results if isinstance(r, Judged)}


def run(
    cells: Sequence[Step], sandbox: Sandbox | Unsandboxed, limits: Limits | None = None
) -> Outcome:
    """Runs the cells in order and judges the tests where they stand.

    An exception in a cell does not stop the later ones. A cell over its time is interrupted; one
    that cannot be interrupted, or ends the process, or takes too much memory, costs the process: a
    fresh one runs the cells so far again, without that one, and goes on. A test that brings the
    process down is failed, and those before keep their points. What is not reached within
    `limits.submission` seconds is "not run".

    Never raises for what a submission does. Raises SandboxError if the sandbox cannot start, and
    ValueError for ids that are not unique.
    """
    for kind in (Code, Test):
        ids = [step.id for step in cells if isinstance(step, kind)]
        if len(set(ids)) < len(ids):
            raise ValueError(f"the ids of the cells must be unique, and are {ids}")
    session, began = _Session(sandbox, limits or Limits()), time.monotonic()
    try:
        results = [session.code(x) if isinstance(x, Code) else session.test(x) for x in cells]
        return Outcome(results, session.notes, session.restarts, time.monotonic() - began)
    finally:
        session.drop()


class _Over(Exception):
    """There is no time or no restart left; the text says which."""


class _Session:
    """A submission under way: its process, what that has run, and what is left of the time."""

    def __init__(self, sandbox: Sandbox | Unsandboxed, limits: Limits) -> None:
        self._sandbox, self._limits = sandbox, limits
        self._worker: Worker | None = sandbox.start(limits)
        self._before = 0.0  # seconds spent in processes that are no more
        self._ran: list[tuple[Code, Ran]] = []  # what a fresh process has to run again
        self.restarts = 0
        self.notes: list[str] = []

    def spent(self) -> float:
        """Seconds of the submission, as the limits count them."""
        return self._before + (self._worker.spent if self._worker is not None else 0.0)

    def drop(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._before += self._worker.spent
            self._worker.close()
            self._worker = None

    # -- cells

    def code(self, step: Code) -> Ran:
        ran, began = Ran(step.id), time.monotonic()
        try:
            worker = self._alive()
            self._run(worker, step, ran)
        except _Over as e:
            ran.message = f"not run: {e}"
        strained = self._worker is not None and ran.status != "ok" and self._worker.strained()
        if strained:  # the next cells shall not pay for it
            self.drop()
            ran.status = "killed"
        if ran.status in ("ok", "error"):
            self._ran.append((step, ran))
        ran.seconds = time.monotonic() - began
        return ran

    def _run(self, worker: Worker, step: Code, ran: Ran) -> None:
        """One cell in one process; what happened is written to `ran`. Drops a process that ends."""
        seconds = self._seconds()
        try:
            reply = worker.talk({"do": "run", "source": step.source}, seconds)
            ran.outputs = outputs(reply.get("outputs"), self._limits)
        except (Gone, Slow, ProtocolError) as e:
            self.drop()
            ran.status, ran.message = "killed", f"this cell {self._ended(e, seconds)}"
            ran.outputs = [error("Stopped", ran.message)]
            return
        ran.status, ran.message = "ok", ""
        if reply.get("stopped"):
            ran.status, ran.message = "stopped", f"this cell {self._too_long(seconds)}"
            if ran.outputs and ran.outputs[-1].get("ename") == "KeyboardInterrupt":
                ran.outputs.pop()
            ran.outputs.append(error("Stopped", ran.message))
        elif reply.get("failed"):
            said = [o for o in ran.outputs if o["output_type"] == "error"]
            said = said or [error(clean(reply.get("error"), 80) or "an error", "")]
            ran.status = "error"
            what, why = said[-1]["ename"], said[-1]["evalue"][:300]
            ran.message = f"this cell stops with {what}" + (f": {why}" if why else "")

    def _alive(self) -> Worker:
        """The process, if need be a fresh one that has run what ran so far. Raises _Over."""
        while True:
            if self.spent() >= self._limits.submission:
                raise _Over(f"the {self._limits.submission:g} s for the notebook are over")
            if self._worker is not None:
                return self._worker
            if self.restarts >= self._limits.restarts:
                raise _Over("the process had to be started too often")
            self.restarts += 1
            self._worker = self._sandbox.start(self._limits)
            for step, ran in list(self._ran):
                again = Ran(step.id)
                self._run(self._worker, step, again)
                if again.status in ("killed", "stopped"):  # it did not do so the first time
                    self._ran.remove((step, ran))
                    ran.status, ran.message = again.status, again.message
                if self._worker is None or self.spent() >= self._limits.submission:
                    break

    def _seconds(self) -> float:
        return max(0.1, min(self._limits.cell, self._limits.submission - self.spent()))

    # -- tests

    def test(self, step: Test) -> Judged:
        judged, began = Judged(step.id), time.monotonic()
        file = f"<test {step.id}>"
        check = _Judge(self._evaluate, file, step.source)
        namespace = {"__name__": "test", "check": check, "np": np}
        most = PATIENCE * (self._limits.submission - self.spent() + 2 * self._limits.cell)
        try:
            with _alarm(most), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # an odd answer may overflow; that is no news
                exec(compile(step.source, file, "exec"), namespace)
            if not check.asked:
                raise ValueError("a test that asks nothing")
            judged.passed = True
        except Wrong as e:
            judged.message = clean(str(e), 600)
        except _Over as e:
            judged.message = f"not checked: {e}"
        except _TooLong:
            judged.message = "not checked: comparing this answer takes too long"
        except SandboxError:
            raise
        except Exception:
            judged.message = "the answer is not of the kind that is asked for"
            judged.fault = clean(traceback.format_exc(), 4000)
        judged.seconds = time.monotonic() - began
        return judged

    def _evaluate(
        self, expression: str, inputs: dict[str, Any], points: dict[str, Any] | None
    ) -> Any:
        request = {"do": "ask", "expression": expression}
        request |= {"inputs": encode(inputs), "points": encode(points)}
        worker, seconds = self._alive(), self._seconds()
        try:
            reply = worker.talk(request, seconds)
            if "value" in reply:
                return decode(reply["value"])
        except (Gone, Slow, ProtocolError) as e:
            self.drop()
            raise Failed("ended", self._ended(e, seconds)) from None
        if reply.get("stopped"):
            raise Failed("ended", self._too_long(seconds))
        kind, text, error = (clean(reply.get(k), 300) for k in ("failed", "text", "error"))
        raise Failed(kind if kind in ("missing", "unfit") else "stops", text, error[:80])

    # -- words

    def _too_long(self, seconds: float) -> str:
        if seconds < self._limits.cell:
            return f"was stopped: the {self._limits.submission:g} s for the notebook were over"
        return f"was stopped after {seconds:g} s, which is the limit"

    def _ended(self, e: Exception, seconds: float) -> str:
        if isinstance(e, Slow):
            return self._too_long(seconds)
        if isinstance(e, ProtocolError):
            self.notes.append(f"a message that the grader cannot accept: {e}")
            return "gave the grader something that is no answer"
        if getattr(e, "reason", "") == "memory":
            return f"needed more than {self._limits.memory / 2**30:.1f} GiB of memory"
        if getattr(e, "reason", "") == "processes":
            return f"started more than {self._limits.processes} processes"
        if getattr(e, "reason", "") == "machine":
            self.notes.append("the grader's own machine ran out of memory")
            return "was stopped: the grader's machine had no memory left"
        return "ended the Python process"


class _Judge:
    """The `check` of a test cell in grading: raises Wrong, and counts what is asked."""

    def __init__(self, evaluate: Evaluate, file: str, source: str) -> None:
        self.asked = 0
        self._evaluate, self._file = evaluate, file
        self._hidden_lines, inside = set[int](), False
        for number, line in enumerate(source.splitlines(), 1):
            inside = (inside or "BEGIN HIDDEN TESTS" in line) and "END HIDDEN TESTS" not in line
            if inside:
                self._hidden_lines.add(number)

    @contextmanager
    def __call__(self, question: str) -> Iterator[Ask]:
        yield Ask(self._counted, self._hidden)

    def _hidden(self) -> bool:
        """Is the line of the test that is running now hidden from students?"""
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self._file:
            frame = frame.f_back
        return frame is None or frame.f_lineno in self._hidden_lines

    def _counted(self, *args: Any) -> Any:
        self.asked += 1
        return self._evaluate(*args)


class _TooLong(BaseException):
    """A test itself does not come to an end; no handler of exceptions in a test may catch it."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises _TooLong after so long; in the main thread only, where Python allows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise _TooLong

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    # Again and again: what is raised while Python clears up an object is lost.
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's alarm goes on
            rest = max(0.01, left - (time.monotonic() - began))
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
