"""Feedback: one page a student, made by nbgrader's template, with nothing live and nothing hidden.

nbgrader's own feedback prints the hidden tests, and runs what a student wrote into it. Here hidden
tests are cut out first, of outputs only text and pictures stay, HTML passes bleach's whitelist, and
a content security policy forbids every script that is not the template's own.
"""

import base64
import functools
import hashlib
import html
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import bleach
import nbconvert
import nbgrader
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert.exporters.exporter import ResourcesDict
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from nbgrader.api import Gradebook
from nbgrader.preprocessors import (
    ClearHiddenTests,
    ClearMarkScheme,
    GetGrades,
    NbGraderPreprocessor,
)

__all__ = ["FeedbackExporter", "Harmless", "Marked", "markdown", "notice", "page"]

TAGS = """
    a abbr b blockquote br code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li
    ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul
"""
PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
IMAGES = ("image/png", "image/jpeg")
TEMPLATES = Path(nbgrader.__file__).parent / "server_extensions" / "formgrader"
CDN = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/2.7.7/"
MATHJAX = f"{CDN}MathJax.js?config=TeX-AMS_CHTML-full,Safe"
SETTINGS = r"""window.MathJax = {messageStyle: "none", tex2jax: {
  inlineMath: [["$", "$"], ["\\(", "\\)"]], displayMath: [["$$", "$$"], ["\\[", "\\]"]],
  processEscapes: true, processEnvironments: true}};"""
MACROS = re.compile(r"\\(href|style|class|cssId|require|unicode|Html\w*|html\w*)(?![A-Za-z])")


MARKDOWN = 20_000  # characters; rendering takes the square of what is written to make it slow
SHOWN = 200_000  # characters of a whole notebook
SECONDS = 60.0  # for one page


def _attribute(tag: str, name: str, value: str) -> bool:
    """Which attributes stay: pictures come from inside the page, and no link is a data: link."""
    if name == "src":
        return tag == "img" and PICTURE.fullmatch(value) is not None
    if name == "href":
        return tag == "a" and not value.lstrip().lower().startswith("data:")
    return name in ("class", "id", "alt", "title", "colspan", "rowspan", "start", "open", "style")


_cleaner = bleach.Cleaner(
    tags=set(TAGS.split()),
    attributes=_attribute,
    protocols={"http", "https", "mailto", "data"},
    css_sanitizer=CSSSanitizer(allowed_css_properties=["color", "text-align", "font-weight"]),
    strip=True,
)


def clean(text: str) -> str:
    """HTML without anything that runs or fetches; the words stay."""
    return _cleaner.clean(text)


@pass_context
def markdown(context: Any, source: str) -> str:
    """Somebody's Markdown as HTML, cleaned after it was rendered. A filter of nbconvert's."""
    plain = f"<pre>{html.escape(source[:SHOWN])}</pre>"
    if len(source) > MARKDOWN:
        return plain
    pictures = context.get("cell", {}).get("attachments", {})
    renderer = IPythonRenderer(
        escape=False, attachments=pictures, exclude_anchor_links=True, embed_images=False
    )
    try:
        return clean(MarkdownWithMath(renderer=renderer).render(source))
    except InvalidNotebook:  # it names a picture that is not there
        return plain


class Harmless(NbGraderPreprocessor):
    """Cuts out hidden tests, mark schemes, what is long, and outputs but text and pictures."""

    def preprocess(
        self, nb: NotebookNode, resources: ResourcesDict
    ) -> tuple[NotebookNode, ResourcesDict]:
        for step in (ClearHiddenTests(enforce_metadata=False), ClearMarkScheme()):
            step.enforce_metadata = False
            nb, resources = step.preprocess(nb, resources)
        left = SHOWN
        for cell in nb.cells:
            kept = cell.metadata.get("nbgrader")
            cell.metadata = NotebookNode({"nbgrader": kept} if kept else {})
            cell.source, left = _cut(cell.source, left)
            if cell.cell_type == "code":
                cell.outputs = [o for o in map(self._output, cell.outputs) if o is not None]
                for output in cell.outputs:
                    if "text" in output:
                        output.text, left = _cut(output.text, left)
                    elif "text/plain" in output.get("data", {}):
                        output.data["text/plain"], left = _cut(output.data["text/plain"], left)
        return nb, resources

    @staticmethod
    def _output(output: NotebookNode) -> NotebookNode | None:
        if output.output_type in ("stream", "error"):
            return output
        data = output.get("data", {})
        safe = {}
        for kind in IMAGES:
            if re.fullmatch(r"[A-Za-z0-9+/=\s]+", str(data.get(kind, ""))):
                safe = {kind: data[kind]}
        if not safe and "text/plain" in data:
            safe = {"text/plain": data["text/plain"]}
        if not safe:
            return None
        return NotebookNode(output_type="display_data", data=NotebookNode(safe), metadata={})


def _cut(text: str, left: int) -> tuple[str, int]:
    """(a text, or its beginning if more than `left` characters were to come, what is left)."""
    shown = text if len(text) <= left else f"{text[:left]}\n(the rest is too long to be shown)"
    return shown, max(0, left - len(text))


class Marked(NbGraderPreprocessor):
    """Says of a written answer that nobody has marked yet that this is so, instead of `0`."""

    def preprocess(
        self, nb: NotebookNode, resources: ResourcesDict
    ) -> tuple[NotebookNode, ResourcesDict]:
        about = resources["nbgrader"]
        with Gradebook(about["db_url"]) as gradebook:
            done = gradebook.find_submission_notebook(
                about["notebook"], about["assignment"], about["student"]
            )
            waiting = {grade.name for grade in done.grades if grade.needs_manual_grade}
        for cell in nb.cells:
            meta = cell.metadata.get("nbgrader", {})
            if meta.get("solution") and meta.get("grade") and meta.get("grade_id") in waiting:
                said = meta.get("comment") or ""
                meta["comment"] = f"*Not marked yet.* {said}".strip()
        return nb, resources


class FeedbackExporter(nbconvert.HTMLExporter):
    """nbgrader's feedback page, with its Markdown cleaned, and MathJax as its only script."""

    def __init__(self, **kwargs: Any) -> None:
        style = next((TEMPLATES / "static").rglob("bootstrap.min.css")).parent  # moved in 0.9.6
        kwargs.setdefault("template_name", "feedback")
        kwargs.setdefault("extra_template_basedirs", [str(TEMPLATES / "templates")])
        kwargs.setdefault("extra_template_paths", [str(style)])
        super().__init__(**kwargs)
        self.register_filter("markdown2html", markdown)

    def from_notebook_node(
        self, nb: NotebookNode, resources: Any = None, **kw: Any
    ) -> tuple[str, Any]:
        text, resources = super().from_notebook_node(nb, resources, **kw)
        return _with_policy(text), resources


def _with_policy(page: str) -> str:
    """The page with MathJax as its only script, and a policy that forbids any other."""
    soup = BeautifulSoup(page, features="html.parser")
    for script in soup.find_all("script"):  # the template's, which want eval, and what came through
        script.decompose()
    for text in soup.find_all(string=MACROS):  # of MathJax, which could make a link that runs
        if text.find_parent(["pre", "code", "style"]) is None:
            text.replace_with(MACROS.sub(r"\\text{\1}", text))
    settings = base64.b64encode(hashlib.sha256(SETTINGS.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; font-src {CDN}; style-src 'unsafe-inline' {CDN}; "
        f"script-src {CDN} 'sha256-{settings}'; base-uri 'none'; form-action 'none'"
    )
    if soup.head is None:
        raise ValueError("nbgrader's template makes a page without a head")
    meta = soup.new_tag("meta", attrs={"http-equiv": "Content-Security-Policy", "content": policy})
    soup.head.insert(0, meta)
    first = soup.new_tag("script")
    first.string = SETTINGS
    soup.head.append(first)
    soup.head.append(soup.new_tag("script", attrs={"src": MATHJAX}))
    return str(soup)


def page(
    notebook: NotebookNode, student: str, assignment: str, db_url: str, notes: list[str]
) -> str:
    """The feedback on an autograded notebook, as HTML; `notes` are said at its top."""
    resources = ResourcesDict()
    resources["metadata"] = ResourcesDict(name=assignment)
    resources["nbgrader"] = {
        "notebook": assignment,
        "assignment": assignment,
        "student": student,
        "db_url": db_url,
    }
    said = "\n".join(f"- {html.escape(note)}" for note in notes)
    about = f"# {html.escape(student)}: {assignment}\n\n{said}"
    shown = new_notebook(cells=[new_markdown_cell(about), *notebook.cells])
    with _alarm(SECONDS):
        return _exporter().from_notebook_node(shown, resources=resources)[0]


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside the block after so many seconds, where the system can do that."""
    if not hasattr(signal, "setitimer") or current_thread() is not main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeoutError(f"the page took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: what is raised while Python clears up an object is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, min(seconds, 1.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@functools.cache
def _exporter() -> FeedbackExporter:
    """One for all students: most of its time goes into compiling the template."""
    exporter = FeedbackExporter()
    for step in (GetGrades, Marked, Harmless, CSSHTMLHeaderPreprocessor):
        exporter.register_preprocessor(step, enabled=True)
    return exporter


def notice(student: str, file: str, message: str, title: str = "not graded") -> str:
    """The feedback on what could not be graded, or cannot be shown, as HTML."""
    who, what, why = (html.escape(text) for text in (f"{student}: {title}", file, message))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
        f"<title>{who}</title></head>\n<body><h1>{who}</h1>\n<p><code>{what}</code>"
        f"</p>\n<p>{why}</p></body></html>\n"
    )
