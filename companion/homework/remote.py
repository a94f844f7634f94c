"""Grading on other machines: a submission travels as data, and is graded in a process of its own.

The workers of a Dask cluster run their jobs in threads, where no alarm rings and where what one
job warns about another one hears. So a worker starts a Python for each submission and gives it a
parcel through a pipe: the submission's bytes, its assignment and the sandbox, and no path to read
them from. Parcels and what comes back are pickles, made by the grader's own processes only: a
submission runs in the sandbox, which knows no way to either pipe.
"""

import contextlib
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from companion.homework.sandbox import Sandbox, SandboxError

if TYPE_CHECKING:  # a worker must be able to say that what these need is missing
    from companion.homework.release import Assignment

__all__ = ["do", "opened", "parcel"]

CANNOT = """\
The worker on {host} cannot grade: {said}
Install there what is installed here: pip install 'symmetry-by-construction[homework,cluster]',
on Linux and of the same version. Nothing of this submission was run."""


def parcel(
    data: bytes, file: str, assignment: "Assignment", sandbox: Sandbox, version: object
) -> bytes:
    """All that grading a submission needs: its bytes, the name of its file, and whose it is."""
    return pickle.dumps((version, data, file, assignment, sandbox))


def do(parcel: bytes) -> bytes:
    """On a worker: grades a parcel in a fresh process; for `opened`.

    Raises SandboxError, with the worker's name, where this machine has no sandbox or another
    version of the grader, and RuntimeError if the process was killed.
    """
    host = platform.node()
    command = [sys.executable, "-m", "companion.homework.remote"]
    done = subprocess.run(command, input=parcel, capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    said = (done.stderr.decode("utf8", "replace").strip() or "it said nothing").splitlines()
    if done.returncode < 0:
        raise RuntimeError(
            f"the grader's process on {host} was killed by signal {-done.returncode}"
        )
    if done.returncode == 3:  # the sandbox, in its own words
        raise SandboxError(f"On the worker {host}: " + "\n".join(said))
    raise SandboxError(CANNOT.format(host=host, said=said[-1]))


def opened(result: bytes) -> Any:
    """What a worker sent back: what came of the submission, or the exception that it was."""
    return pickle.loads(result)


def main() -> int:
    """The process on the worker: a parcel comes in, what came of it goes out."""
    with _quiet_output() as out:
        from companion.homework import grading

        version, data, file, assignment, sandbox = pickle.load(sys.stdin.buffer)
        if version != grading.VERSION:
            print(f"its grader is {grading.VERSION}, the one here {version}", file=sys.stderr)
            return 1
        try:
            done = grading.outcome(data, file, assignment, sandbox)
        except SandboxError as error:
            print(error, file=sys.stderr)
            return 3
        with os.fdopen(os.dup(out), "wb") as pipe:
            pickle.dump(done, pipe)
    return 0


@contextlib.contextmanager
def _quiet_output() -> Iterator[int]:
    """The pipe of the standard output, for the result alone: what a test cell prints goes to the
    errors."""
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        yield out
    finally:
        os.close(out)


if __name__ == "__main__":
    sys.exit(main())
