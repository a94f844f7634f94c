"""The reference of the package: its public names and no others, and links from and to chapters."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
from functools import cache
from types import ModuleType

import pytest
from bs4 import BeautifulSoup

import companion
from tools import source
from tools.api import Chapter, Package, Scope, package
from tools.api_pages import Pages, page_of
from tools.docstrings import markdown, sections, shape

MODULES = list(package().public)
CHAPTERS = [page for page in source.pages() if source.notebook_path(page).exists()]

# No link stands in a title, and a caption of a figure is set too late for one.
TITLES = ["h1", "h2", "h3", "h4", "summary", "caption", "figcaption", "pre"]
TITLE = "admonition-title"


PICTURES = re.compile(r"<svg.*?</svg>|\"data:image[^\"]*\"|<pre.*?</pre>", re.DOTALL)
MARKS = (":math:", "math::", "{py:", "$", "Args:", "Raises:", ":::", "``")
UNREAD = re.compile(r"<(code|span class=\"math|div class=\"math).*?</(?:code|span|div)>", re.DOTALL)


@pytest.fixture(scope="module")
def markup(site):
    """The article of a page as it is written, without pictures and code: they take long to read."""

    @cache
    def read(page: str) -> str:
        text = (site / f"{page}.html").read_text("utf8")
        return PICTURES.sub("", text[text.index("<article") : text.index("</article>")])

    return read


@pytest.fixture(scope="module")
def article(markup):
    """The article of a page, read once."""
    return cache(lambda page: BeautifulSoup(markup(page), "html.parser"))


def public(module: ModuleType) -> set[str]:
    """What a reader may import, found in the living module and not in its source."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    made_here = {
        name
        for name, thing in vars(module).items()
        if inspect.isroutine(inspect.unwrap(thing)) or inspect.isclass(thing)
        if getattr(thing, "__module__", None) == module.__name__
    }
    capitals = re.findall(r"^([A-Z][A-Z_0-9, ]+)(?::.*)?= ", inspect.getsource(module), re.M)
    constants = {name.strip() for line in capitals for name in line.split(",")}
    constants -= {name for name in constants if len(name) == 1}  # the variable of a type
    return {name for name in made_here | constants if not name.startswith("_")}


def methods(thing: type, listed: set[str]) -> set[str]:
    """The public methods of a class that no public base class of the package already shows."""
    found = set()
    for base in inspect.getmro(thing):
        shown = base is not thing and f"{base.__module__}.{base.__name__}" in listed
        if base.__module__.split(".")[0] == "companion" and not shown:
            found |= {
                name
                for name, part in vars(base).items()
                if inspect.isroutine(inspect.unwrap(getattr(part, "__func__", part)))
                or isinstance(part, property)
                or type(part).__name__ == "cached_property"
                if not name.startswith("_")
            }
    return found


def arguments(thing) -> list[str]:
    """The names of what a function takes, or a class of the package that says it itself."""
    if inspect.isclass(thing):
        made_here = (getattr(thing.__init__, "__module__", "") or "").startswith("companion")
        if issubclass(thing, Exception) or not (made_here or hasattr(thing, "_fields")):
            return []
    elif not inspect.isroutine(inspect.unwrap(thing)):
        return []
    return list(inspect.signature(thing).parameters)


def anchors(page: BeautifulSoup, name: str, depth: int) -> set[str]:
    """The entries below a name that the page describes."""
    ids = [tag["id"] for tag in page.find_all("dt", id=True)]
    return {i for i in ids if i.startswith(f"{name}.") and i.count(".") == name.count(".") + depth}


def test_every_module_without_an_underscore_is_in_the_list():
    found = {f"companion.{info.name}" for info in pkgutil.iter_modules(companion.__path__)}
    missing = {name for name in found if "._" not in name} - set(MODULES) - {"companion.__main__"}
    for name in missing:  # a module may hand all it has to a listed one
        for public_name in public(importlib.import_module(name)):
            entry = package().entry(f"{name}.{public_name}")
            assert entry, f"book/api.md does not list {name}, and {public_name} has no entry"


@pytest.mark.parametrize("name", MODULES)
def test_a_page_has_the_public_names_and_no_others(name, article):
    page, module = article(page_of(name)), importlib.import_module(name)
    assert page.find(id=f"module-{name}")
    here = {anchor.rpartition(".")[2] for anchor in anchors(page, name, 1)}
    links = {link.get("href", "").partition("#")[2] for link in page.find_all("a")}
    elsewhere = {link.rpartition(".")[2] for link in links if link.startswith("companion.")}
    assert here <= public(module), f"not public: {here - public(module)}"
    assert public(module) <= here | elsewhere, f"missing: {public(module) - here - elsewhere}"


@pytest.mark.parametrize("name", MODULES)
def test_classes_have_their_methods_and_signatures_their_arguments(name, article):
    page, module = article(page_of(name)), importlib.import_module(name)
    listed = {
        f"{package().definition(entry)[0].name}.{entry.rpartition('.')[2]}"
        for entry in package().places.values()
    }
    for anchor in anchors(page, name, 1):
        thing = getattr(module, anchor.rpartition(".")[2])
        if inspect.isclass(thing):
            shown = {entry.rpartition(".")[2] for entry in anchors(page, anchor, 1)}
            assert shown - {"__call__"} == methods(thing, listed), anchor
        if not arguments(thing):
            continue
        shown = page.find(id=anchor).select("em.sig-param > .n:first-child, .sig-param > .o + .n")
        assert [tag.get_text() for tag in shown] == arguments(thing), anchor


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_are_set_and_not_quoted(name, article, markup):
    code = " ".join(tag.get_text() for tag in article(page_of(name)).find_all("code"))
    assert not re.search(r"Float\[|Shaped\[|\btwo_[dDn]\b", code), "a shape as Python writes it"
    text = re.sub(r"<[^>]+>", "", UNREAD.sub("", markup(page_of(name))))
    left = [mark for mark in MARKS if mark in text]
    assert not left, f"{name} shows its source: {left}"


def test_experiments_are_listed_with_what_they_are(article):
    from companion import experiments

    page = article("api/experiments")
    text = page.get_text()
    for name in experiments.names():
        assert page.find(id=f"module-companion.experiments.{name}")
        assert experiments.get(name).SUMMARY in text
        assert f"python -m companion evaluate {name}" in text


# -- links -----------------------------------------------------------------------------------------


def imported(page: str) -> set[str]:
    """Every name of the package that a notebook imports from a module that is not private."""
    notebook = json.loads(source.notebook_path(page).read_text("utf8"))
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    pattern = r"^from (companion[\w.]*) import (\([^)]*\)|[^\n(]*)"
    found = set()
    for module, names in re.findall(pattern, code, re.M):
        for name in re.findall(r"(\w+)(?: as \w+)?", re.sub(r" as \w+", "", names)):
            found.add(f"{module}.{name}")
    return {name for name in found if "._" not in name}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_chapter_imports_names_the_chapter(chapter, article):
    names = imported(chapter)
    assert names
    for name in names:
        entry = package().entry(name)
        if entry is None:  # a constant of an experiment, which is a module to run
            assert name.startswith("companion.experiments."), f"{chapter} imports {name}"
            continue
        home = entry if entry in package().modules else entry.rpartition(".")[0]
        links = {link.get("href") for link in article(page_of(home)).find_all("a")}
        assert f"../{chapter}.html" in links, f"{entry} does not name {chapter}"


def test_names_in_the_text_of_a_chapter_are_links(article):
    found = 0
    for chapter in CHAPTERS:
        scope = Chapter(source.chapter_path(chapter).read_text("utf8"), package()).scope
        for tag in article(chapter).find_all("code"):
            link = tag.find_parent("a")
            entry = scope.meaning(tag.get_text())
            if entry and not tag.find_parent(TITLES) and not tag.find_parent(class_=TITLE):
                assert link is not None, f"{chapter}: {tag.get_text()} is no link"
                where = link["href"]
                assert where.startswith("api/") or not where.endswith(entry), chapter
                found += where.startswith("api/")
    assert found > 100


def test_notebooks_have_no_such_links():
    for chapter in CHAPTERS:
        assert "](api/" not in source.notebook_path(chapter).read_text("utf8")


# -- the words of the index --------------------------------------------------------------------


def test_the_index_has_the_glossary_and_the_names(site, article):
    index = BeautifulSoup((site / "genindex.html").read_text("utf8"), "html.parser")
    links = [link.get("href") for link in index.find_all("a")]
    text = (source.ROOT / "book" / "glossary.md").read_text("utf8")
    terms = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
    at_home = {link for link in links if link.startswith("glossary.html#term-")}
    assert len(at_home) == len(terms) > 80
    assert sum(link.split("#")[0] in {f"{c}.html" for c in CHAPTERS} for link in links) > 80
    for name in ("companion.lagrangian.LagrangianNetwork", "companion.training.fit"):
        assert any(link.endswith(f"#{name}") for link in links)
    empty = [tag for tag in index.select(".genindextable li") if not tag.get_text(strip=True)]
    assert not empty


# -- how it is made --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Package:
    """A package of two public modules and a private one."""
    root = tmp_path_factory.mktemp("small")
    (root / "companion").mkdir()
    (root / "book").mkdir()
    (root / "book" / "api.md").write_text("```{modules}\nfirst\nsecond\n```\n")
    (root / "companion" / "__init__.py").write_text("")
    (root / "companion" / "_hidden.py").write_text(
        "class Base:\n    def shown(self): ...\n    def _not(self): ...\n"
    )
    (root / "companion" / "first.py").write_text(
        "from companion._hidden import Base\nT = 1\nLIMIT = 2\nAlias = int\n_NOT = 3\n"
        "class Child(Base):\n    def own(self): ...\n\ndef run(x): ...\n"
    )
    (root / "companion" / "second.py").write_text(
        "from companion.first import Child\n__all__ = ['Child', 'run']\ndef run(): ...\n"
    )
    return Package(root)


def test_public_names_and_their_one_entry(small):
    assert small.public["companion.first"].names == ("LIMIT", "Child", "run")
    assert small.public["companion.second"].names == ("run", "Child")
    assert small.entry("companion.second.Child") == "companion.first.Child"
    assert small.entry("companion.second.Child.shown") == "companion.first.Child.shown"
    assert small.entry("companion.second.run") == "companion.second.run"
    for nothing in ("companion.first.Child._not", "companion.first._NOT", "companion._hidden.Base"):
        assert small.entry(nothing) is None


def test_a_name_means_what_the_code_of_its_page_says(small):
    chapter = Chapter(
        "`run` and `Child.own()` and `first.run(x)` and `companion.second` and `text`\n\n"
        "```{code-cell} python\n:tags: [hide-input]\n\n%pip install x\n"
        "from companion.first import Child as C, run\nfirst = 1\n```\n",
        small,
    )
    assert chapter.scope.meaning("run(2)") == "companion.first.run"
    assert chapter.scope.meaning("C") is None  # one letter is a symbol
    assert chapter.scope.meaning("C.own") == "companion.first.Child.own"
    assert chapter.scope.meaning("first.run") is None  # the chapter calls something else `first`
    assert chapter.scope.meaning("companion.first.run") == "companion.first.run"
    assert chapter.uses() == {"companion.first.run", "companion.first.Child", "companion.second"}
    assert Scope(small, {}).meaning("first.run") == "companion.first.run"
    assert Scope(small, {}).meaning("run") is None


def test_a_docstring_becomes_markdown():
    text, lists = sections(
        "Sum of :math:`x`.\n\nArgs:\n    x, y: numbers\n        of a row.\n    z: more.\n\n"
        "After.\n\nReturns:\n    All: of it.\n\nRaises:\n    ValueError: if none."
    )
    assert [line for line in text if line] == ["Sum of $x$.", "After."]
    assert lists == {
        "Args": [("x, y", "numbers of a row."), ("z", "more.")],
        "Returns": [("", "All: of it.")],
        "Raises": [("ValueError", "if none.")],
    }


def test_formulas_of_docstrings_are_whole():
    said = markdown("The energy, $T\n- V$ and\n\n.. math:: x\n    - y\n\nmore $$ a\n- b $$")
    assert said == "The energy, $T - V$ and\n\n$$\nx\n    - y\n$$\n\nmore $$ a\n- b $$"


@pytest.mark.parametrize(
    ("axes", "written"),
    [("*batch two_d", "(..., 2d)"), (" S", "(S,)"), ("k D *D", "(k, D, [D])"), ("...", "(...)")],
)
def test_shapes_are_written_as_one_writes_them(axes, written):
    assert shape(axes) == written


def test_the_pages_are_those_of_the_list():
    toc = (source.ROOT / "_toc.yml").read_text("utf8")
    pages = Pages(package(), toc)
    assert ast.literal_eval(pages.numbers["mechanics"]) == 1
    assert sorted(pages.all()) == sorted(map(page_of, MODULES))
