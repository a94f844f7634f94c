"""Make notebooks/*.ipynb from book/*.md, and find out whether they are up to date.

    python -m tools.notebooks make [PAGE ...] [--force]    write them; run those whose code changed
    python -m tools.notebooks check [PAGE ...]             say which are stale; run nothing
    python -m tools.notebooks environment                  the variables under which they are run

A notebook is what tools/colab.py makes of a chapter, with the outputs of its code cells. It is run
again when its code changed (or with --force); a change of the text keeps the outputs. Outputs come
from the budget `ci`, on one thread and without progress bars, so that nbval finds the same ones.
"""

import argparse
import os
import sys
import time
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools import source
from tools.colab import Book, Cell
from tools.source import ROOT, SourceError

# What a chapter sees when its stored outputs are made, and when nbval compares them.
ENVIRONMENT = {
    "COMPANION_BUDGET": "ci",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
}
MAX_BYTES = 1_000_000
CELL_TIMEOUT = 600  # seconds
FOLD = {"hide-input": "source_hidden", "hide-output": "outputs_hidden"}


def build(page: str, book: Book) -> nbformat.NotebookNode:
    """The notebook of a page, without outputs."""
    code = [cell for cell in book.cells[page].cells if cell.cell_type == "code"]
    if code and code[0].source.strip() != book.where.setup_cell:
        raise SourceError(
            f"book/{page}.md: its first code cell must be the setup cell, exactly. Print it with:\n"
            "    python -m tools.address setup-cell"
        )
    cells = []
    folded = []
    for index, cell in enumerate(book.notebook_cells(page)):
        name = f"{page.replace('_', '-')}-{index:03d}"
        if cell.code is None:
            new = markdown_cell(cell, name)
            if cell.folded:
                folded.append(name)
        else:
            new = nbformat.v4.new_code_cell(code[cell.code].source, id=name)
            tags = code[cell.code].metadata.get("tags", [])
            if tags:
                new.metadata["tags"] = list(tags)
            for tag in sorted(set(tags) & set(FOLD)):
                new.metadata.setdefault("jupyter", {})[FOLD[tag]] = True
            if "hide-input" in tags:
                new.metadata["cellView"] = "form"  # Colab's way to fold a cell's code
        cells.append(new)
    notebook = nbformat.v4.new_notebook(cells=[about(page, book), *cells])
    notebook.metadata = nbformat.from_dict(
        {
            "colab": {"collapsed_sections": folded, "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def markdown_cell(cell: Cell, name: str) -> nbformat.NotebookNode:
    new = nbformat.v4.new_markdown_cell(cell.text, id=name)
    if cell.folded:  # a section closed until it is opened, in Colab and in JupyterLab
        new.metadata.update({"id": name, "jp-MarkdownHeadingCollapsed": True})
    return new


def about(page: str, book: Book) -> nbformat.NotebookNode:
    """The line above the title: where the web page is, and that edits here are lost."""
    where = book.where
    return nbformat.v4.new_markdown_cell(
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"({where.colab(page)}) This notebook is made from "
        f"[book/{page}.md]({where.url}/blob/{where.branch}/book/{page}.md), and is a "
        f"[web page]({where.site}/{page}.html) too.",
        id=f"{page.replace('_', '-')}-about",
    )


def with_outputs(
    notebook: nbformat.NotebookNode, stored: nbformat.NotebookNode
) -> nbformat.NotebookNode | None:
    """`notebook` with the outputs of `stored`, or None if their code differs."""
    if source.code_cells(notebook) != source.code_cells(stored):
        return None
    old = [cell for cell in stored.cells if cell.cell_type == "code"]
    new = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, executed in zip(new, old, strict=True):
        cell.outputs = executed.outputs
        cell.execution_count = executed.execution_count
    return notebook


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel in which all its cells were run."""
    copy = deepcopy(notebook)  # nbclient writes the version of this Python into the metadata
    NotebookClient(
        copy,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        # ipykernel warns of every loopback port; the private sockets it advises can hang
        extra_arguments=["--log-level=ERROR"],
    ).execute(env={**os.environ, **ENVIRONMENT})
    return with_outputs(notebook, copy)


def defects(notebook: nbformat.NotebookNode) -> list[str]:
    """What is wrong with an executed notebook, whatever its source."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("its cells were not all run once, in order: nbval would compare nothing")
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"code cell {number} ended in {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"code cell {number} wrote to stderr: {output.text.strip()[:300]}")
            if any("widget" in kind for kind in output.get("data", {})):
                found.append(f"code cell {number} shows a widget, dead without a kernel")
    size = len(nbformat.writes(notebook).encode())
    if size > MAX_BYTES:
        found.append(f"it has {size / 1e6:.1f} MB; the limit is {MAX_BYTES / 1e6:.0f} MB")
    return found


def missing_alt(page: str, book: Book, notebook: nbformat.NotebookNode) -> list[str]:
    """Code cells that show a picture and say nowhere what is in it."""
    code = [cell for cell in book.cells[page].cells if cell.cell_type == "code"]
    shown = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        f"code cell {number} shows a picture without alt text: give it mystnb: image: alt"
        for number, (cell, executed) in enumerate(zip(code, shown, strict=True), 1)
        if any(
            kind.startswith("image/") and "text/html" not in output.data
            for output in executed.outputs
            for kind in output.get("data", {})
        )
        and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
    ]


def problems(page: str, book: Book) -> list[str]:
    """Why notebooks/<page>.ipynb is not what its chapter makes; empty if it is."""
    path = source.notebook_path(page, book.root)
    if not path.exists():
        return ["it does not exist"]
    text = path.read_text("utf8")
    stored = nbformat.reads(text, as_version=4)
    fresh = with_outputs(build(page, book), stored)
    if fresh is None:
        return ["its code is not the chapter's"]
    found = defects(stored) + missing_alt(page, book, stored)
    if not found and serialise(fresh) != text:
        found = ["its text is not the chapter's"]
    return found


def serialise(notebook: nbformat.NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def make(page: str, book: Book, force: bool) -> list[str]:
    """Write notebooks/<page>.ipynb, run it if its code changed; return what is wrong with it."""
    path = source.notebook_path(page, book.root)
    path.parent.mkdir(exist_ok=True)
    notebook = build(page, book)
    kept = None
    if path.exists() and not force:
        stored = nbformat.read(path, as_version=4)
        kept = None if defects(stored) else with_outputs(notebook, stored)
    began = time.monotonic()
    if kept is None:
        try:
            executed(notebook, path.parent)
        except CellExecutionError as error:
            return [str(error)]
    found = defects(notebook) + missing_alt(page, book, notebook)
    if not found:
        path.write_text(serialise(notebook), "utf8")
    how = "outputs kept" if kept else f"run in {time.monotonic() - began:.0f} s"
    print(f"  {'FAILED' if found else 'ok':7}{path.relative_to(book.root)} ({how})", flush=True)
    return found


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description="Notebooks from chapters.")
    parser.add_argument("command", choices=["make", "check", "environment"])
    parser.add_argument("pages", nargs="*", help="names without .md; all chapters if none is given")
    parser.add_argument("--force", action="store_true", help="run also what is up to date")
    options = parser.parse_args(arguments)
    if options.command == "environment":
        print(" ".join(f"{name}={value}" for name, value in ENVIRONMENT.items()))
        return 0
    try:
        known = source.chapters(root)
        unknown = [page for page in options.pages if page not in known]
        if unknown:
            raise SourceError(
                f"no chapter {unknown[0]!r} with code in _toc.yml; there are: {known}"
            )
        book = Book(root)
        wrong = 0
        for page in options.pages or known:
            try:
                if options.command == "make":
                    found = make(page, book, options.force)
                else:
                    found = problems(page, book)
            except SourceError as error:
                found = [str(error)]
            for problem in found:
                print(f"notebooks/{page}.ipynb: {problem}", file=sys.stderr)
            if found and options.command == "check":
                print(f"    type: make notebooks PAGE={page}", file=sys.stderr)
            wrong += bool(found)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    if options.command == "make" and not options.pages:
        for path in sorted((root / "notebooks").glob("*.ipynb")):
            if path.stem not in known:
                path.unlink()
                print(f"  removed {path.relative_to(root)}: no such chapter")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
