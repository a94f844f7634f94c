"""The built pages against the notebooks: same numbers, same outputs, nothing left raw."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup

from tools import source
from tools.colab import WORDS, Book


@pytest.fixture(scope="module")
def book():
    return Book()


def soup(site, page):
    return BeautifulSoup((site / f"{page}.html").read_text("utf8"), "html.parser")


def printed_number(page: BeautifulSoup, label: str, kind: str) -> str:
    """The number that stands on the page at the thing with this label."""
    if kind == "equation":
        anchor = page.find(id=f"equation-{label}")
        return anchor.find(class_="eqno").get_text().strip("()#\u00b6 ")
    anchor = page.find(id=label)
    if anchor.name == "span":  # a target in front of the thing
        anchor = anchor.find_next_sibling()
    caption = anchor.find(class_="caption-number") or anchor.find(class_="admonition-title")
    return re.search(rf"{WORDS[kind]}\s+([\d.]*\d)", caption.get_text())[1]


def test_numbers_on_the_page_are_those_in_the_notebook(book, site):
    pages = {page: soup(site, page) for page in book.chapters}
    wrong = {
        label: (target.number, printed)
        for label, target in book.targets.items()
        if target.kind != "section"
        and (printed := printed_number(pages[target.page], label, target.kind)) != target.number
    }
    assert not wrong, f"label: (in the notebook, on the page): {wrong}"


def test_links_of_the_notebooks_lead_to_something_on_the_site(book, site):
    missing = []
    for page in source.chapters():
        text = source.notebook_path(page).read_text("utf8")
        link = rf"{re.escape(book.where.site)}/(\w+)\.html#?([\w-]*)"
        for name, anchor in re.findall(link, text):
            if not (site / f"{name}.html").exists() or (
                anchor and not soup(site, name).find(id=anchor)
            ):
                missing.append(f"{page}: {name}.html#{anchor}")
    assert not missing


@pytest.mark.parametrize("page", source.chapters())
def test_every_output_of_the_notebook_is_on_the_page(page, site):
    notebook = nbformat.read(source.notebook_path(page), as_version=4)
    shown = sum(bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code")
    assert len(soup(site, page).find_all(class_="cell_output")) == shown


@pytest.mark.parametrize("page", source.chapters())
def test_download_is_the_executed_notebook(page, site):
    stored = source.notebook_path(page).read_bytes()
    assert (site / "_sources" / f"{page}.ipynb").read_bytes() == stored


@pytest.mark.parametrize("page", source.chapters())
def test_exercises_have_folded_solutions(page, site):
    article = soup(site, page).find("article")
    for solution in article.find_all(class_="solution"):
        assert "dropdown" in solution["class"]
