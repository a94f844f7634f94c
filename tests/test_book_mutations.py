"""The checks have teeth: each kind of damage to a small book is found."""

import os
import subprocess
import sys

import nbformat
import pytest

from tools import notebooks, source
from tools.colab import Book

HEAD = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A small chapter

"""
CODE = "```{{code-cell}} python\n{tags}{code}\n```\n\n"
DERIVATION = "import sympy\n\nx = sympy.Symbol('x')\nsympy.sin(x).diff(x) * 2"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A book of one chapter, made and run once; tests work on copies."""
    root = tmp_path_factory.mktemp("small")
    (root / "book").mkdir()
    (root / "_config.yml").write_text("repository: {url: https://github.com/a/b, branch: main}\n")
    (root / "_toc.yml").write_text(
        "root: start\nparts: [{numbered: true, chapters: [{file: small}]}]\n"
    )
    (root / "book" / "references.bib").write_text("@book{key, author={A}, title={T}, year={1}}\n")
    (root / "book" / "start.md").write_text("# Start\n")
    setup = source.address(root).setup_cell
    (root / "book" / "small.md").write_text(
        HEAD
        + CODE.format(tags=":tags: [hide-input]\n\n", code=setup)
        + "The derivative:\n\n"
        + CODE.format(tags="", code=DERIVATION)
    )
    assert notebooks.main(["make"], root) == 0
    return root


@pytest.fixture
def copy(small, tmp_path):
    for path in small.rglob("*.*"):
        target = tmp_path / path.relative_to(small)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


def damage(root, change):
    path = source.notebook_path("small", root)
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    path.write_text(notebooks.serialise(notebook), "utf8")


def nbval(root) -> subprocess.CompletedProcess:
    """As `make test` runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    return subprocess.run(
        [*command, "--nbval", "--nbval-current-env", str(root / "notebooks")],
        env={**os.environ, **notebooks.ENVIRONMENT},
        capture_output=True,
        text=True,
    )


def test_untouched_copy_passes(copy):
    assert notebooks.main(["check"], copy) == 0
    assert "2 passed" in nbval(copy).stdout


def test_corrupted_derivation_fails_nbval(copy):
    def change(notebook):
        data = notebook.cells[-1].outputs[0].data
        assert "cos" in data["text/latex"]
        data["text/latex"] = data["text/latex"].replace("cos", "sin")

    damage(copy, change)
    run = nbval(copy)
    assert run.returncode == 1
    assert "1 failed, 1 passed" in run.stdout


def test_corrupted_plain_text_fails_nbval(copy):
    def change(notebook):
        notebook.cells[-1].outputs[0].data["text/plain"] = "3*cos(x)"

    damage(copy, change)
    assert nbval(copy).returncode == 1


def test_notebook_without_outputs_fails(copy, capsys):
    def change(notebook):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None

    damage(copy, change)
    assert notebooks.main(["check"], copy) == 1
    assert "nbval would compare nothing" in capsys.readouterr().err


def test_missing_notebook_fails(copy, capsys):
    source.notebook_path("small", copy).unlink()
    assert notebooks.main(["check"], copy) == 1
    assert "make notebooks PAGE=small" in capsys.readouterr().err


def test_changed_code_makes_the_notebook_stale(copy, capsys):
    path = source.chapter_path("small", copy)
    path.write_text(path.read_text("utf8").replace("* 2", "* 3"), "utf8")
    assert notebooks.main(["check"], copy) == 1
    assert "its code is not the chapter's" in capsys.readouterr().err


def test_changed_text_makes_the_notebook_stale_and_keeps_its_outputs(copy, capsys):
    path = source.chapter_path("small", copy)
    path.write_text(path.read_text("utf8").replace("The derivative", "A derivative"), "utf8")
    assert notebooks.main(["check"], copy) == 1
    assert "its text is not the chapter's" in capsys.readouterr().err
    assert notebooks.main(["make"], copy) == 0
    assert "outputs kept" in capsys.readouterr().out
    assert notebooks.main(["check"], copy) == 0


def test_changed_tags_make_the_notebook_stale(copy):
    path = source.chapter_path("small", copy)
    path.write_text(path.read_text("utf8").replace("[hide-input]", "[hide-cell]"), "utf8")
    assert notebooks.main(["check"], copy) == 1


def test_notebook_edited_by_hand_fails(copy):
    damage(copy, lambda notebook: notebook.cells.append(nbformat.v4.new_markdown_cell("more")))
    assert notebooks.main(["check"], copy) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings\n\nwarnings.warn('old')", "wrote to stderr"),
        ("import IPython\n\nIPython.display.Image(b'x', format='png')", "without alt text"),
        ("print('x' * 1_100_000)", "the limit is 1 MB"),
    ],
)
def test_chapters_that_must_not_be_stored(copy, capsys, code, message):
    path = source.chapter_path("small", copy)
    path.write_text(path.read_text("utf8").replace(DERIVATION, code), "utf8")
    before = source.notebook_path("small", copy).read_bytes()
    assert notebooks.main(["make"], copy) == 1
    assert message in capsys.readouterr().err
    assert source.notebook_path("small", copy).read_bytes() == before, "a bad notebook was stored"


def test_setup_cell_must_be_the_one(copy, capsys):
    path = source.chapter_path("small", copy)
    path.write_text(path.read_text("utf8").replace("--quiet", "--quiet torch"), "utf8")
    assert notebooks.main(["check"], copy) == 1
    assert "tools.address setup-cell" in capsys.readouterr().err


def test_unknown_page_is_named(copy, capsys):
    assert notebooks.main(["make", "smal"], copy) == 1
    assert "small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{tab-set}\nx\n```", "no rule turns {tab-set}"),
        ("```{note}\nnever closed", "never closed"),
        ("```{dropdown} Why `x`\nx\n```", "with ::: instead"),
        ("See {term}`x`.", "no rule turns the role {term}"),
        ("See {eq}`eq-none`.", "nothing is labelled 'eq-none'"),
        ("$$\nx\n$$ (eq-a)\n\nSee {ref}`eq-a`.", "use {eq} for equations"),
        ("$$\nx\n$$ (eq-a)\n\n$$\ny\n$$ (eq-a)", "is taken"),
        ("$$\nx\n$$ (Eq_a)", "small letters"),
        ("$$\n\\begin{align}x\\end{align}\n$$", "aligned"),
        ("$$\nx \\\\ y\n$$", "several rows"),
        ("Text $$x$$ text.", "must stand alone"),
        ("A note[^1].", "footnote"),
        ("{cite}`nobody1900`", "not in references.bib"),
        ("[words](nowhere.md)", "write [text](page.md)"),
        ("![](_static/x.png)", "needs alt text"),
        ("```{figure} _static/x.png\n:name: fig-x\nCaption\n```", "needs :alt:"),
        ("```{exercise} E\n:label: ex-e\nx\n```\n\n```{solution} ex-e\nx\n```", "dropdown"),
        ("```{solution} ex-none\n:class: dropdown\nx\n```", "unknown exercise"),
    ],
)
def test_what_colab_would_show_raw_is_refused(copy, capsys, text, message):
    path = source.chapter_path("small", copy)
    path.write_text(path.read_text("utf8") + "\n" + text + "\n", "utf8")
    assert notebooks.main(["check"], copy) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "book/small.md" in error


def test_mathematics_and_code_are_left_alone(copy):
    path = source.chapter_path("small", copy)
    plain = "The action $S[q](t)$ and `{note}` and `$$` and `[a](b)`."
    path.write_text(path.read_text("utf8") + plain + "\n", "utf8")
    assert Book(copy).notebook_cells("small")[-1].text.endswith(plain)
