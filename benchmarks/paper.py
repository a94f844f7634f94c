"""The paper's own code as a process that trains so many steps when it is asked to."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from benchmarks.timing import Task

SERVER = Path(__file__).parent / "paper_server.py"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark that can run beside the paper's code."""
    parser.add_argument("--paper-code", type=Path, help="a clone of the paper's code")
    parser.add_argument("--paper-python", type=Path, default=Path(sys.executable))


@contextmanager
def running(options: argparse.Namespace) -> Iterator["PaperCode | None"]:
    """The paper's code of these options for as long as it is needed; None without --paper-code."""
    if options.paper_code is None:
        yield None
        return
    paper = PaperCode(options.paper_code, options.paper_python, options.threads)
    try:
        yield paper
    finally:
        paper.close()


class PaperCode:
    """A process with the paper's TensorFlow code, for `timing.in_turns`.

    Args:
        folder: a clone of github.com/eikehmueller/mlconservation_code.
        python: an interpreter with tensorflow, tf-keras and toml.
        threads: of TensorFlow.

    Raises:
        ValueError: the folder does not hold that code.
        RuntimeError: the process ended; its last words are above.
    """

    def __init__(self, folder: Path, python: Path, threads: int) -> None:
        source = folder.resolve() / "src"
        files = sorted((source / "conservative_nn").glob("*.py"))
        if not files:
            raise ValueError(
                f"--paper-code {folder} holds no src/conservative_nn; clone "
                "https://github.com/eikehmueller/mlconservation_code there"
            )
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        self._scratch = tempfile.TemporaryDirectory()  # the C it compiles goes to where it runs
        self._process = subprocess.Popen(
            [python.absolute(), SERVER, source, str(threads)],
            cwd=self._scratch.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self._questions = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        versions = json.loads(self._answer())
        self.about = {**versions, "sha256 of src/conservative_nn/*.py": digest[:16]}

    def task(self, case: str, kind: str) -> Task:
        """Runs steps of a case: "bare" ones on a fixed batch, or those of its `fit`."""

        def run(n: int) -> float:
            self._questions.write(json.dumps([case, kind, n]) + "\n")
            self._questions.flush()
            return float(self._answer())

        return run

    def close(self) -> None:
        """Ends the process."""
        self._questions.close()
        self._process.wait()
        self._scratch.cleanup()

    def _answer(self) -> str:
        for line in self._answers:
            if line.startswith("> "):
                return line[2:]
        raise RuntimeError(
            f"the paper's code ended with status {self._process.wait()}; does its Python have "
            "tensorflow, tf-keras and toml?"
        )
