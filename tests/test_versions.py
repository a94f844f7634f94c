"""The versions that the book allows, Colab's list, and the report of what ran with which."""

import ast
import json
import re
import subprocess
import symtable
import sys
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.specifiers import SpecifierSet

from tools import environments, run_all, source, versions, versions_page

NOTEBOOKS = sorted(path.stem for path in (source.ROOT / "notebooks").glob("*.ipynb"))
PINS = environments.read_pins()
REPORT = versions.read()


def stored(page):
    return nbformat.read(source.notebook_path(page), as_version=4)


# -- what may be installed ------------------------------------------------------------------------


def test_colab_keeps_its_own_versions():
    needed = environments.dependencies()
    assert len(needed) > 10
    for name in set(needed) & set(PINS):
        assert needed[name].specifier.contains(PINS[name]), f"Colab would reinstall {name}"
    new = set(needed) - set(PINS)
    assert new == {"ase", "jaxtyping", "torchdiffeq"}, "Colab installs other packages than these"


def test_colabs_python_is_allowed():
    text = (source.ROOT / "pyproject.toml").read_text("utf8")
    allowed = SpecifierSet(re.search(r'^requires-python = "(.+)"$', text, re.MULTILINE)[1])
    assert allowed.contains(environments.python_of())


def test_the_first_cell_is_the_same_everywhere():
    first = {
        next(c.source for c in stored(page).cells if c.cell_type == "code") for page in NOTEBOOKS
    }
    assert first == {source.address().setup_cell}


def test_every_dependency_has_one_lower_bound(tmp_path):
    assert len(environments.oldest()) == len(environments.dependencies())
    (tmp_path / "pyproject.toml").write_text('dependencies = [\n    "numpy<3",\n]\n')
    with pytest.raises(SystemExit, match="numpy<3 needs one lower bound"):
        environments.oldest(tmp_path)


def test_pins_are_read_from_a_freeze(tmp_path):
    freeze, path = tmp_path / "freeze.txt", tmp_path / "pins.txt"
    freeze.write_text(
        "# a comment\nnumpy==2.1.3\nipykernel==6.17.1\nPyYAML==6.0.3\nnvidia-nccl-cu13==2.31.2\n"
        "torch @ https://download.pytorch.org/whl/cpu/torch-2.11.0%2Bcpu-cp313-cp313-linux.whl\n"
        "google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz\n"
    )
    assert environments.write_pins(str(freeze), "3.13.15", path) == 4
    pins = environments.read_pins(path)
    assert pins["torch"] == "2.11.0"
    assert pins["pyyaml"] == "6.0.3"
    assert environments.python_of(path) == "3.13.15"
    assert environments.write_pins(str(freeze), "", path) == 4  # the Python stays as it was
    assert environments.python_of(path) == "3.13.15"
    freeze.write_text("404: Not Found\n")
    with pytest.raises(SystemExit, match="no version of"):
        environments.write_pins(str(freeze), "3.13.15", path)


def test_colabs_requirements_are_exact():
    wanted, bounds = environments.requirements("colab")
    assert f"torch=={PINS['torch']}" in wanted
    assert f"ipywidgets=={PINS['ipywidgets']}" in wanted
    assert not any(name.startswith(environments.CUDA) for name in bounds)


# -- the report ------------------------------------------------------------------------


def test_the_report_is_about_todays_list():
    assert REPORT["colab"]["pins"] == versions.fingerprint(), "type: make colab"
    ran = REPORT["colab"]["versions"]
    assert "torch" in ran
    assert {name: PINS[name] for name in ran if name in PINS} == {
        name: version.split("+")[0] for name, version in ran.items() if name in PINS
    }
    assert environments.python_of().startswith(".".join(ran["python"].split(".")[:2]))
    assert set(REPORT["colab"]["notebooks"]) <= set(NOTEBOOKS)


def test_the_report_is_about_todays_bounds():
    ran = REPORT["oldest"]["versions"]
    for pin in environments.oldest():
        name, bound = pin.split("==")
        assert SpecifierSet(f"=={bound}").contains(ran[name]), (
            f"{name} {bound} was not tried; type: python -m tools.versions run oldest --tests"
        )


def test_nothing_in_the_report_failed():
    assert set(REPORT) <= set(versions_page.KINDS)
    assert versions.problems(REPORT) == []


def test_the_page_says_what_the_report_says():
    assert versions.PAGE.read_text("utf8") == versions.page(), (
        "type: python -m tools.versions page (and, to run what changed, make colab)"
    )


def test_a_problem_is_said(monkeypatch):
    good = {"failed": "", "changed": {}, "added": {}, "cells": 9, "strict": 4, "widgets": 1}
    good |= {"different": [], "code": versions.code_of("start")}
    entry = {"versions": {"python": "3.13.0", "torch": "2.11.0"}, "date": "2026-11-22"}
    entry |= {"packages": 138, "notebooks": {"start": good}}
    size = {"packages": 3.0, "book": 20.0}
    entry["install"] = {"added": {"ase": "3"}, "changed": {}, "processor": 9.0, "megabytes": size}
    report = {"colab": entry}
    assert versions.problems(report) == []
    said = versions_page.page(report, ["start"], versions.current)
    assert "Yes, in all 1 notebooks" in said
    assert "all 138 packages of our copy stay" in said

    other = deepcopy(report)
    other["colab"]["notebooks"]["start"]["code"] = "of yesterday"
    said = versions_page.page(other, ["start"], versions.current)
    assert "0 of 1 notebooks" in said
    assert "Not yet run as they are today: `start`" in said

    good["changed"] = {"torch": ["2.11.0", "2.15.0"]}
    assert "torch from 2.11.0 to 2.15.0" in versions_page.page(report, ["start"], versions.current)
    assert "changed what was installed" in versions.problems(report)[0]
    good |= {"changed": {}, "failed": "NameError: x"}
    assert "start failed: NameError" in versions.problems(report)[0]
    good["failed"] = ""
    entry["tests"] = {
        "files": 1,
        "of": 2,
        "passed": 5,
        "failed": 1,
        "failures": ["tests/test_x.py::test_y - E"],
    }
    assert versions.problems(report) == ["colab: tests/test_x.py::test_y - E"]
    said = versions_page.page(report, ["start"], versions.current)
    assert "5 pass, 1 fail (1 of 2 files)" in said


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_formula_in_a_line_of_text_is_not_broken(page):
    for cell in stored(page).cells:
        if cell.cell_type == "markdown":
            bare = re.sub(r"```.*?```|(`+).*?\1|\$\$.*?\$\$", "", cell.source, flags=re.DOTALL)
            inline = re.findall(r"\$(?:\\.|[^$\\])+\$", bare)
            assert not [formula for formula in inline if "\n" in formula]


# -- Run all ------------------------------------------------------------------------


def test_strict_cells_are_compared():
    ignored = {"tags": ["nbval-ignore-output"]}
    bar = {run_all.UNCOMPARED[-1]: {"model_id": "7"}, "text/plain": "  0%|      |"}

    def notebook(text, loose="1.0", first="", extra=()):
        cells = [
            new_code_cell("%pip", outputs=[new_output("stream", text=first)]),
            new_markdown_cell("text"),
            new_code_cell("x", outputs=[new_output("stream", text=t) for t in text]),
            new_code_cell("y", metadata=ignored, outputs=[new_output("stream", text=loose)]),
            new_code_cell("z", outputs=[new_output("display_data", data=d) for d in extra]),
        ]
        return new_notebook(cells=cells)

    old = notebook(["a\n", "b\n"])
    assert run_all.strict_cells(old) == 2
    assert run_all.differences(notebook(["a\nb\n"], "2.0", "Note: restart", [bar]), old) == []
    changed = run_all.differences(notebook(["a\n", "c\n"]), old)
    assert changed == [{"cell": 2, "kind": "stdout", "was": "a\nb", "is": "a\nc"}]
    assert run_all.differences(notebook([]), old)
    assert run_all.differences(notebook(["a\n", "b\n"], extra=[{"text/plain": "3"}]), old)


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_widget_is_moved(page):
    notebook = stored(page)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    makers = [text for text in code if "ipywidgets" in text]
    added = run_all.with_widgets(notebook).cells[len(notebook.cells) :]
    assert len(added) == len(makers), 'write: if training.budget() != "ci":'
    for cell in added:
        assert re.search(
            r"if True:\n.*_ = ipywidgets\.interact(_manual)?\(", cell.source, re.DOTALL
        )
        assert cell.source.endswith(run_all.MOVE)
        compile(cell.source, page, "exec")


def bound(tree):
    """The global names that a cell binds."""
    names, todo = set(), list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            todo += ast.iter_child_nodes(node)
    return names


def read_by(text):
    """The global names that a function reads."""
    names, todo = set(), symtable.symtable(text, "", "exec").get_children()
    while todo:
        table = todo.pop()
        names |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
        todo += table.get_children()
    return names


def spoiled(cells):
    """Names that a widget's function needs, itself or through others, and a later cell binds."""
    trees = [ast.parse(re.sub(r"^( *)%.*", r"\1pass", text, flags=re.MULTILINE)) for text in cells]
    found = set()
    for number, text in enumerate(cells):
        moved = re.search(r"ipywidgets\.interact(?:_manual)?\((\w+)", text)
        if not moved:
            continue
        functions = {
            node.name: ast.unparse(node)
            for tree in trees[: number + 1]
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        needed, todo = set(), [moved[1]]
        while todo:
            for name in read_by(functions.get(todo.pop(), "")) - needed:
                needed.add(name)
                todo.append(name)
        found |= {name for tree in trees[number + 1 :] for name in bound(tree) & needed}
    return found


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_widget_still_works_after_run_all(page):
    cells = [cell.source for cell in stored(page).cells if cell.cell_type == "code"]
    assert not spoiled(cells), "a later cell gives these names to something else"


def test_a_spoiled_widget_is_found():
    widget = "def show(a):\n    return far(a)\nif True:\n    _ = ipywidgets.interact(show, a=3)"
    cells = ["def far(a):\n    return a + z", "z = 1", widget, "f = lambda: [a for a in (1, 2)]"]
    assert spoiled(cells) == set()
    assert spoiled([*cells, "for i in range(3):\n    b, z = 0, i"]) == {"z"}
    assert spoiled([*cells, "def far(a):\n    z = 2\n    return z"]) == {"far"}


def test_a_notebook_is_run_in_its_own_kernel_and_folder(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = environments.installed(python)
    before = {name: version for name, version in found.items() if name != "torchdiffeq"}
    before |= {"tqdm": "0.1", "gone": "1.0"}
    (tmp_path / environments.BASE).write_text(json.dumps(before))
    monkeypatch.setenv("COMPANION_BUDGET", "demo")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    cells = [
        new_code_cell("import os\nfrom companion import training"),
        new_code_cell("print(os.listdir(), os.environ.get('PYTHONPATH'), training.budget())"),
        new_code_cell(
            'if training.budget() != "ci":\n    import ipywidgets\n\n'
            "    _ = ipywidgets.interact_manual(lambda x: 1 / x, x=(0, 2))"
        ),
    ]
    cells[1].outputs = [new_output("stream", text="[] None ci\n")]
    path = tmp_path / "x.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    result = run_all.run(path, tmp_path, run_all.surroundings("ci"))
    assert (result["cells"], result["strict"], result["widgets"]) == (3, 2, 1)
    assert (result["failed"], result["different"]) == ("", [])
    assert result["added"] == {"torchdiffeq": found["torchdiffeq"]}
    assert result["changed"] == {"tqdm": ["0.1", found["tqdm"]], "gone": ["1.0", "removed"]}

    cells[2].source = cells[2].source.replace("(0, 2)", "(0, 1)")  # the widget begins at zero
    nbformat.write(new_notebook(cells=cells), path)
    assert "ZeroDivisionError" in run_all.run(path, tmp_path, run_all.surroundings("ci"))["failed"]


def test_the_address_leads_to_the_working_tree(tmp_path):
    root = tmp_path / "book"
    root.mkdir()
    (root / "_config.yml").write_text(
        "repository:\n  url: https://github.com/nobody/nothing\n  branch: trunk\n"
    )
    (root / ".gitignore").write_text("hidden\n")
    author = ["-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "new.txt").write_text("not committed")
    (root / "hidden").write_text("ignored")
    variables = environments.serve(tmp_path / "served.git", root)
    clone = ["git", "clone", "-q", "--filter=blob:none", "-b", "trunk"]
    clone += ["https://github.com/nobody/nothing", str(tmp_path / "clone")]
    subprocess.run(clone, check=True, env=environments.clean(**variables))
    assert {path.name for path in (tmp_path / "clone").iterdir()} == {
        ".git", ".gitignore", "_config.yml", "new.txt",
    }  # fmt: skip


def test_the_tests_of_the_package_need_nothing_else():
    chosen = versions.package_tests()
    assert "tests/test_lagrangian.py" in chosen
    assert "tests/test_versions.py" not in chosen
    assert "tests/test_book_browser.py" not in chosen
    assert "tests/test_cluster.py" not in chosen
