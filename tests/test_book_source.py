"""The chapters, their notebooks and the project's files agree with each other."""

import re

import pytest
import yaml
from packaging.requirements import Requirement

from tools import address, notebooks, picture, source
from tools.colab import Book

ROOT = source.ROOT
CHAPTERS = source.chapters()
# As published for Colab's images of August 2026; torchdiffeq and jaxtyping are not installed there.
COLAB = {
    "matplotlib": "3.10.0",
    "numba": "0.61.2",
    "numpy": "2.1.3",
    "pooch": "1.9.0",
    "safetensors": "0.8.0",
    "scikit-learn": "1.6.1",
    "scipy": "1.16.3",
    "sympy": "1.14.0",
    "torch": "2.11.0",
    "tqdm": "4.67.3",
}


@pytest.fixture(scope="module")
def book():
    return Book()


@pytest.mark.parametrize("page", CHAPTERS)
def test_notebook_is_up_to_date_and_was_run(page, book):
    assert not notebooks.problems(page, book)


def test_there_is_no_notebook_without_a_chapter():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(CHAPTERS)


@pytest.mark.parametrize("page", CHAPTERS)
def test_notebook_holds_plain_markdown_only(page, book):
    for cell in book.notebook_cells(page):
        bare = re.sub(r"```.*?```|(`+).*?\1", "", cell.text, flags=re.DOTALL)
        raw = r"\{[a-z:-]+\}`|^\s*[:`]{3,}\{|^\(\S+\)=|\$\$ *\(eq-"
        assert not re.search(raw, bare, re.MULTILINE)
        assert len(re.findall(r"^# ", bare, re.MULTILINE)) <= 1


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_exercise_has_a_solution(page):
    text = source.chapter_path(page).read_text("utf8")
    exercises = re.findall(r"\{exercise(?:-start)?\}.*\n:label: (\S+)", text)
    solved = re.findall(r"\{solution(?:-start)?\} (\S+)", text)
    assert sorted(exercises) == sorted(solved)


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_starts_by_installing_the_package_where_it_is_missing(page, book):
    first = next(cell for cell in book.cells[page].cells if cell.cell_type == "code")
    assert first.source.strip() == book.where.setup_cell


def test_colab_keeps_its_own_versions():
    text = (ROOT / "pyproject.toml").read_text("utf8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    needed = {r.name: r for r in map(Requirement, re.findall(r'"(.+?)"', block))}
    for name, version in COLAB.items():
        assert needed[name].specifier.contains(version), f"Colab would reinstall {name}"
    new = set(needed) - set(COLAB)
    assert new == {"ase", "torchdiffeq", "jaxtyping"}, "Colab installs more than three"


def test_every_file_quotes_the_one_address():
    assert not address.check()


def test_address_is_changed_in_every_file(tmp_path):
    for name in ["_config.yml", "README.md", "pyproject.toml", "CITATION.cff", "book/noether.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf8"), "utf8")
    old = source.address()
    address.rewrite("https://github.com/Someone/else", "trunk", tmp_path)
    new = source.address(tmp_path)
    assert (new.url, new.branch) == ("https://github.com/Someone/else", "trunk")
    assert not address.check(tmp_path)
    for path in tmp_path.rglob("*.*"):
        text = path.read_text("utf8")
        assert old.slug not in text
        assert old.site not in text
    assert f"git+{new.url}@trunk" in (tmp_path / "book/noether.md").read_text("utf8")


def test_a_wrong_address_is_refused():
    with pytest.raises(SystemExit, match="expected https://github"):
        address.rewrite("git@github.com:a/b.git", "main")


def test_an_address_that_differs_is_found(tmp_path):
    for name in ["_config.yml", "README.md", "pyproject.toml", "CITATION.cff"]:
        (tmp_path / name).write_text((ROOT / name).read_text("utf8"), "utf8")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "x.md").write_text("%pip install git+https://github.com/x/y@main\n")
    (tmp_path / "CITATION.cff").write_text("title: nothing\n")
    assert len(address.check(tmp_path)) == 2


@pytest.mark.parametrize("name", ["test", "deploy", "weekly"])
def test_workflows_only_call_make(name):
    path = ROOT / ".github" / "workflows" / f"{name}.yml"
    jobs = yaml.safe_load(path.read_text("utf8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    assert all(command.startswith("make ") and "\n" not in command for command in commands)


def test_javascript_is_kept_out_of_static():
    assert not list((ROOT / "book/_static").rglob("*.js")), "every page would load it"


def test_the_picture_shows_the_stored_curves():
    assert picture.check() == []
