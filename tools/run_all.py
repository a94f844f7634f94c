"""A chapter's notebook as a stranger runs it: an empty folder, a clean kernel, Run all.

The first cell finds no `companion` and installs it. Then every cell runs; what ends in an error
fails. The outputs of cells that are compared by `make test` are compared here too, with other
versions of everything. At last the widgets, which budget `ci` leaves out, are made and moved once.
"""

import json
import os
import re
import resource
import shutil
import time
from copy import deepcopy
from datetime import datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from tools import environments

WIDGET = re.compile(r'^if training\.budget\(\) != "ci":', re.MULTILINE)
# Moved where it stands: what a reader's hand does, without the hand. An error is an error here;
# in a browser, ipywidgets would print it below the slider.
MOVE = "\n    _(**{w._kwarg: w.get_interact_value() for w in _.widget.kwargs_widgets})"
UNCOMPARED = ("image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json")
TIMEOUT = 1800  # seconds a cell


def kernel(folder: Path) -> str:
    """Make the kernel of an environment known to Jupyter here; its name."""
    name = "book-environment"
    place = folder / "jupyter" / "kernels" / name
    place.mkdir(parents=True, exist_ok=True)
    command = [str(folder / "bin" / "python"), "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
    command += ["-f", "{connection_file}", "--log-level=ERROR"]
    specification = {"argv": command, "display_name": name, "language": "python"}
    (place / "kernel.json").write_text(json.dumps(specification))
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    return name


def surroundings(budget: str, **more: str) -> dict[str, str]:
    """The variables that a chapter sees: a fresh machine's, and the budget.

    COMPANION_DATA stays, if it is set: the measurements of a chapter, where the network has none.
    """
    data = {"COMPANION_DATA": os.environ.get("COMPANION_DATA", "")}
    ours = {"COMPANION_BUDGET": budget, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    return environments.clean(**data, **ours, **more)


def normalise(outputs: list) -> dict[str, str]:
    """What a strict cell must show again, kind by kind, as nbval joins it."""
    shown: dict[str, str] = {}
    for output in outputs:
        if output.output_type == "stream" and output.name == "stdout":
            shown["stdout"] = shown.get("stdout", "") + output.text
        data = output.get("data", {})
        if UNCOMPARED[-1] in data:  # a progress bar, and the text that stands for it
            continue
        for kind, value in data.items():
            if kind not in UNCOMPARED:
                shown[kind] = shown.get(kind, "") + str(value)
    return shown


def differences(notebook: nbformat.NotebookNode, stored: nbformat.NotebookNode) -> list[dict]:
    """Strict cells that show something else than what is stored: number, kind, both texts."""
    found = []
    old = [cell for cell in stored.cells if cell.cell_type == "code"]
    new = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (was, cell) in enumerate(zip(old, new, strict=False), 1):
        if number == 1 or "nbval-ignore-output" in was.metadata.get("tags", []):
            continue  # the first cell says here that it installed something
        before, after = normalise(was.outputs), normalise(cell.outputs)
        for kind in sorted(set(before) | set(after)):
            texts = before.get(kind, ""), after.get(kind, "")
            if texts[0].strip() != texts[1].strip():
                was_text, is_text = (text.strip()[:400] for text in texts)
                found.append({"cell": number, "kind": kind, "was": was_text, "is": is_text})
    return found


def strict_cells(stored: nbformat.NotebookNode) -> int:
    """How many cells `differences` compares."""
    code = [cell for cell in stored.cells if cell.cell_type == "code"][1:]
    return sum("nbval-ignore-output" not in cell.metadata.get("tags", []) for cell in code)


def with_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same cells without outputs, and once more those that make a widget, made to do so."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    makers = [c.source for c in copy.cells if c.cell_type == "code" and WIDGET.search(c.source)]
    for text in makers:
        moved = WIDGET.sub("if True:", text).rstrip() + MOVE
        copy.cells.append(nbformat.v4.new_code_cell(moved))
    return copy


def seconds(cell: nbformat.NotebookNode) -> float | None:
    """How long a cell ran, by the kernel's clock."""
    times = cell.metadata.get("execution", {})
    ends = [times.get("iopub.execute_input"), times.get("shell.execute_reply")]
    if None in ends:
        return None
    began, ended = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in ends)
    return round((ended - began).total_seconds(), 1)


def run(path: Path, folder: Path, env: dict[str, str]) -> dict:
    """Run all cells of a notebook with the environment in `folder`.

    Returns what a report needs: seconds, what the notebook installed, what it changed, its errors,
    and what strict cells show differently from the stored notebook.
    """
    stored = nbformat.read(path, as_version=4)
    notebook = with_widgets(stored)
    count = sum(cell.cell_type == "code" for cell in stored.cells)
    began = time.monotonic()
    failed = execute(notebook, folder, env, path.stem)
    took = time.monotonic() - began
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {
        "seconds": round(took),
        "first_cell": seconds(code[0]),
        "cells": count,
        "strict": strict_cells(stored),
        "widgets": len(code) - count,
        **touched(folder),
        "failed": failed,
        "different": [] if failed else differences(notebook, stored),
    }


def install(path: Path, folder: Path, env: dict[str, str]) -> dict:
    """Run the first cell of a notebook alone: how long it takes, and what it adds.

    `processor` counts the seconds of a processor, of pip and all that it starts: what is left of
    the time when nothing else runs on the machine, and the network is fast.
    """
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += "\nimport companion"
    notebook.cells = [first]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    failed = execute(notebook, folder, env, "install")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if failed:
        raise SystemExit(f"the first cell of {path.name} failed:\n{failed}")
    return {"seconds": seconds(first), "processor": round(used, 1), **touched(folder)}


def execute(notebook: nbformat.NotebookNode, folder: Path, env: dict[str, str], name: str) -> str:
    """Run a notebook in place, in a clean kernel and an empty folder; how it failed, or nothing."""
    content = folder / "content" / name
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name=kernel(folder),
        resources={"metadata": {"path": str(content)}},
    )
    failed = ""
    try:
        client.execute(env=env)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failed = re.sub(r"\x1b\[[\d;]*m", "", str(error))[-1500:]
    except AssertionError as error:  # how nbclient stumbles over a kernel that died
        failed = str(error.__context__ or error)
    nbformat.write(notebook, content / f"{name}.ipynb")  # to look into
    return failed


def touched(folder: Path) -> dict[str, dict]:
    """What was added to an environment since it was made, and what was changed in it."""
    before = environments.base(folder)
    after = environments.installed(folder / "bin" / "python")
    return {
        "added": {name: after[name] for name in sorted(set(after) - set(before))},
        "changed": {
            name: [version, after.get(name, "removed")]
            for name, version in before.items()
            if after.get(name) != version
        },
    }
