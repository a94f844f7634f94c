"""The papers' own code as processes that train so many steps when they are asked to."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.timing import Task

HERE = Path(__file__).parent


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


class Process:
    """Another interpreter that answers lines of JSON with lines of JSON after "> ".

    Args:
        command: the interpreter, the script and its arguments.
        needs: what the interpreter must have, for the message when it does not.
        more: environment variables beside those of this process.

    Attributes: `about`, its first answer; `folder`, where it runs, which goes when it ends.

    Raises:
        RuntimeError: the process ended; its last words are above.
    """

    def __init__(self, command: Iterable[object], needs: str, more: Mapping[str, str]) -> None:
        self._needs = needs
        self._scratch = tempfile.TemporaryDirectory()  # what it compiles goes to where it runs
        self.folder = Path(self._scratch.name)
        self._process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **more},
        )
        self._questions = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        self.about: dict[str, str] = self._answer()

    def ask(self, *question: object) -> Any:
        """The answer to a question."""
        self._questions.write(json.dumps(question) + "\n")
        self._questions.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._questions.close()
        self._process.wait()
        self._answers.close()
        self._scratch.cleanup()

    def _answer(self) -> Any:
        for line in self._answers:
            if line.startswith("> "):
                return json.loads(line[2:])
        raise RuntimeError(
            f"the paper's code ended with status {self._process.wait()}; does its Python have "
            f"{self._needs}?"
        )


class PaperCode(Process):
    """A process with the TensorFlow code of Müller (2023), for `timing.in_turns`.

    Args:
        folder: a clone of github.com/eikehmueller/mlconservation_code.
        python: an interpreter with tensorflow, tf-keras and toml.
        threads: of TensorFlow.

    Raises:
        ValueError: the folder does not hold that code.
        RuntimeError: the process ended; its last words are above.
    """

    def __init__(self, folder: Path, python: Path, threads: int) -> None:
        address = "https://github.com/eikehmueller/mlconservation_code"
        own = digest("--paper-code", folder, "src/conservative_nn", "*.py", address)
        super().__init__(
            [python.absolute(), HERE / "paper_server.py", folder.resolve() / "src", threads],
            "tensorflow, tf-keras and toml",
            {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.about["sha256 of src/conservative_nn/*.py"] = own

    def task(self, case: str, kind: str) -> Task:
        """Runs steps of a case: "bare" ones on a fixed batch, or those of its `fit`."""
        return lambda n: self.ask(case, kind, n)


class ScalarsCode(Process):
    """A process with the JAX code of Yao et al. (2021) and of Finzi et al. (2021).

    Args:
        folder: a clone of github.com/weichiyao/ScalarEMLP.
        emlp: a clone of github.com/mfinzi/equivariant-MLP.
        python: an interpreter with jax, objax and what objax and emlp ask for.
        threads: of JAX.
        data: an .npz file with what is trained on, see `scalars_server.py`.

    Raises:
        ValueError: a folder does not hold that code.
        RuntimeError: the process ended; its last words are above.
    """

    def __init__(self, folder: Path, emlp: Path, python: Path, threads: int, data: Path) -> None:
        address = "https://github.com/weichiyao/ScalarEMLP"
        own = digest("--paper-code", folder, "scalaremlp", "**/*.py", address)
        address = "https://github.com/mfinzi/equivariant-MLP"
        emlp_digest = digest("--emlp-code", emlp, "emlp", "**/*.py", address)
        server = HERE / "scalars_server.py"
        super().__init__(
            [python.absolute(), server, folder.resolve(), emlp.resolve(), data.resolve(), threads],
            "jax, objax, optax, plum-dispatch and tqdm",
            {"XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"},
        )
        self.about |= {"sha256 of scalaremlp": own, "of emlp": emlp_digest}

    def task(self, kind: str, name: str) -> Task:
        """Runs training steps of a variant; processor time."""
        return lambda n: self.ask("steps", kind, name, n)


def digest(option: str, folder: Path, inside: str, pattern: str, address: str) -> str:
    """Of the files of a clone; ValueError if it does not hold them."""
    files = sorted((folder.resolve() / inside).glob(pattern))
    if not files:
        raise ValueError(f"{option} {folder} holds no {inside}; clone {address} there")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
