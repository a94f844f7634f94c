"""Measuring how long a chapter runs, and keeping it. See tools/runtime.py.

Two times are stored. *Processor time* is what the kernel used, its start and the imports included:
on one thread it is what a clock would show on a quiet core. *Wall time* is what the clock did show.
Where that is much more, the core was shared, and the processor time is too long as well (caches are
lost whenever programs take turns).
"""

import hashlib
import json
import os
import platform
import resource
import sys
import time
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from companion import artifacts, training
from tools import source
from tools.notebooks import ENVIRONMENT
from tools.source import ROOT

STORE = Path("benchmarks") / "results" / "runtime.json"
BUSY = 1.5  # the clock's time over the processor's, from which on a core was shared


def load(root: Path = ROOT) -> list[dict]:
    """The stored measurements, one a page, budget and device."""
    path = root / STORE
    return json.loads(path.read_text("utf8"))["measurements"] if path.exists() else []


def save(measurements: list[dict], root: Path = ROOT) -> None:
    """Writes them, in an order of their own, so that a second run changes only what it measured."""
    ordered = sorted(measurements, key=lambda m: (m["budget"], m["device"], m["page"]))
    text = json.dumps({"measurements": ordered}, indent=1) + "\n"
    path = root / STORE
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text, "utf8")
    scratch.replace(path)


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """A name for the code of a notebook: it changes when a cell does."""
    cells = "\0".join(code for code, _ in source.code_cells(notebook))
    return hashlib.sha256(cells.encode()).hexdigest()[:12]


def children() -> float:
    """Seconds of the processor that the child processes which ended so far have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(notebook: nbformat.NotebookNode, budget: str, folder: Path) -> tuple[float, float]:
    """Runs all cells in a fresh kernel; (processor seconds, wall seconds).

    Raises CellExecutionError if a cell fails, DeadKernelError if the kernel is killed.
    """
    copy = deepcopy(notebook)
    client = NotebookClient(
        copy,
        timeout=None,  # a busy machine may take its time
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    used, began = children(), time.monotonic()
    client.execute(env={**os.environ, **ENVIRONMENT, "COMPANION_BUDGET": budget})
    return children() - used, time.monotonic() - began


def busy(measurement: dict) -> bool:
    """Whether the kernel had to share its core."""
    on_cpu = measurement["device"].startswith("CPU")
    return on_cpu and measurement["wall_s"] > BUSY * measurement["processor_s"]


def measure(
    budget: str, pages: list[str], force: bool = False, again: bool = False, root: Path = ROOT
) -> list[str]:
    """Measures the chapters one after another and stores each; returns those that failed.

    What was measured with the same code is left out, unless `force`, or `again` and it was busy.
    """
    device = artifacts.provenance(training.device(), [], 0, 0.0, "")["device"]
    failed = []
    for page in pages:
        notebook = nbformat.read(source.notebook_path(page, root), as_version=4)
        key = {"page": page, "budget": budget, "device": device, "code": fingerprint(notebook)}
        done = [m for m in load(root) if key.items() <= m.items()]
        if done and not force and not (again and busy(done[0])):
            continue
        try:
            processor, wall = timed(notebook, budget, root / "notebooks")
        except (CellExecutionError, DeadKernelError) as error:
            print(f"{page}: {error}", file=sys.stderr, flush=True)
            failed.append(page)
            continue
        # Read again: another run may have stored something meanwhile.
        kept = [m for m in load(root) if any(m[k] != key[k] for k in ("page", "budget", "device"))]
        save([*kept, key | {
            "processor_s": round(processor, 1),
            "wall_s": round(wall, 1),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.now(timezone.utc).date().isoformat(),
        }], root)  # fmt: skip
        print(f"{page:28} {budget:5} {processor:7.1f} s ({wall:.0f} s by the clock)", flush=True)
    return failed


def minutes(measurement: dict) -> float:
    """What the table shows: processor time on a CPU, wall time on anything else."""
    on_cpu = measurement["device"].startswith("CPU")
    return measurement["processor_s" if on_cpu else "wall_s"] / 60
