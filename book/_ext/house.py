"""What this book adds to Jupyter Book.

- The outputs on a page are those stored in notebooks/<page>.ipynb. Nothing is executed while the
  book is built, and a page whose notebook is stale is a warning (so, with -W, an error).
- "Open in Colab" and "Binder" open that notebook; the download button gives it too.
- Mathematics is set by a copy of MathJax in the site; no page loads anything from another host.
- A page that somebody shares comes with its title, its first sentences and the book's card.
- Pages are made lighter by lighter.py.
"""

import html
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import lighter

from tools import source

LOG = logging.getLogger(__name__)

CARD = "card.png"  # drawn by tools/card.py
CARD_ALT = "The orbits of a plain network leave their ellipse; those of a symmetric one stay on it."

# Everything tex-chtml.js may ask for: extensions of TeX, fonts, the menu and its accessibility.
MATHJAX = ["tex-chtml.js", "input/tex", "output/chtml", "a11y", "sre", "ui"]


class Reader:
    """Reads a chapter and puts the outputs of its notebook into it.

    MyST-NB hands a reader the text of a page but not its name, so the name comes from Sphinx's
    `source-read` event, which fires just before.
    """

    def __init__(self) -> None:
        self.page = ""

    def starts(self, app, docname: str, text: list[str]) -> None:
        self.page = docname
        if source.has_code(text[0]):  # read the page again when its notebook changes or appears
            app.env.note_dependency(str(source.notebook_path(docname)))

    def __call__(self, text: str) -> nbformat.NotebookNode:
        chapter = source.read_cells(text)
        code = [cell for cell in chapter.cells if cell.cell_type == "code"]
        if not code:
            return chapter
        path = source.notebook_path(self.page)
        problem = None
        if not path.exists():
            problem = "does not exist"
        else:
            stored = nbformat.read(path, as_version=4)
            if source.code_cells(stored) != source.code_cells(chapter):
                problem = "is stale: its code is not the chapter's"
        if problem:
            LOG.warning(
                f"notebooks/{self.page}.ipynb {problem}. Type: make notebooks PAGE={self.page}",
                location=self.page,
            )
            return chapter
        outputs = [cell for cell in stored.cells if cell.cell_type == "code"]
        for cell, executed in zip(code, outputs, strict=True):
            cell.outputs = executed.outputs
            cell.execution_count = executed.execution_count
        return chapter


read_chapter = Reader()


def use_local_mathjax(app, config) -> None:
    """Point Sphinx at the copy of MathJax that `copy_mathjax` puts into the site."""
    config.mathjax_path = "mathjax/tex-chtml.js"


def copy_mathjax(app, exception) -> None:
    """Copied after the build: a .js file in book/_static would be loaded by every page."""
    if exception or app.builder.format != "html":
        return
    package = find_spec("sphinx-mathjax-offline")
    source_dir = Path(package.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for name in MATHJAX:
        if (source_dir / name).is_dir():
            shutil.copytree(source_dir / name, target / name, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source_dir / name, target / name)


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    """Jupyter Book puts a CDN's address on every page for a button that this book does not have."""
    for name in ("script_files", "css_files"):
        context[name] = [
            file
            for file in context[name]
            if "thebe" not in f"{file.filename} {file.attributes.get('body')}".lower()
        ]


def add_buttons(app, pagename, templatename, context, doctree) -> None:
    """Colab, Binder and download, for a page that has a notebook."""
    path = source.notebook_path(pagename)
    if doctree is None or not path.exists():
        return
    where = source.address()
    download = Path(app.outdir) / "_sources" / path.name
    download.parent.mkdir(exist_ok=True)
    shutil.copy2(path, download)
    for button in context["header_buttons"]:
        if button.get("label") == "download-buttons":
            button["buttons"].insert(
                0,
                {
                    "type": "link",
                    "url": f"{context['pathto']('_sources', 1)}/{path.name}",
                    "text": ".ipynb",
                    "icon": "fas fa-code",
                    "tooltip": "Download this notebook, with its outputs",
                    "label": "download-notebook-button",
                },
            )
    context["header_buttons"].insert(
        0,
        {
            "type": "link",
            "url": where.binder(pagename),
            "text": "Binder",
            "tooltip": "Open this chapter on Binder",
            "icon": "_static/images/logo_binder.svg",
            "label": "binder-button",
        },
    )
    context["header_buttons"].insert(
        0,
        {
            "type": "link",
            "url": where.colab(pagename),
            "text": "Colab",
            "tooltip": "Open this chapter in Google Colab",
            "icon": "_static/images/logo_colab.png",
            "label": "colab-button",
        },
    )


def mend_roles(app, pagename, templatename, context, doctree) -> None:
    """A screen reader expects list items in a list; docutils gives references a withdrawn role."""
    if "citation-list" in context.get("body", ""):
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def first_words(doctree, least: int = 39, most: int = 200) -> str:
    """The first sentences of a page that stand in no box and hold no formula."""
    for paragraph in doctree.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.section):
            continue
        plain = paragraph.deepcopy()
        for formula in list(plain.findall(nodes.math)):
            formula.replace_self(nodes.Text("$"))
        words = ""
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", " ".join(plain.astext().split())):
            whole = re.search(r"[.?!]\W?$", sentence)  # it does not lead into a formula or a list
            if "$" in sentence or not whole or len(words) + len(sentence) >= most:
                break
            words = f"{words} {sentence}".strip()
        if len(words) >= least and not words[0].islower():
            return words
    return ""


def describe(app, pagename, templatename, context, doctree) -> None:
    """What a search engine, a messenger or a forum shows of a link to this page."""
    if doctree is None:
        return
    site = source.address().site
    book = app.config.html_title or app.config.project
    title = context.get("title") or book
    words = first_words(doctree) or f"{book}: derive, check and train networks with symmetries."
    properties = {
        "og:type": "article",
        "og:site_name": book,
        "og:title": html.unescape(re.sub(r"<[^>]+>", "", title)),
        "og:description": words,
        "og:url": f"{site}/{pagename}.html",
        "og:image": f"{site}/_static/{CARD}",
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": CARD_ALT,
    }
    names = {"description": words, "twitter:card": "summary_large_image"}
    tags = [("name", *pair) for pair in names.items()]
    tags += [("property", *pair) for pair in properties.items()]
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n    <meta {kind}="{name}" content="{html.escape(text)}" />' for kind, name, text in tags
    )


def setup(app):
    app.connect("source-read", read_chapter.starts)
    app.connect("config-inited", use_local_mathjax, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", add_buttons, priority=900)
    app.connect("html-page-context", mend_roles, priority=900)
    app.connect("html-page-context", describe, priority=900)
    app.connect("build-finished", copy_mathjax)
    lighter.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
