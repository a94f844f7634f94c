"""The whole book as one PDF: `python -m tools.pdf`, after `make book`.

Chromium prints each page of the built site (`book/_static/print.css` says how), and pypdf puts them
together: a list of contents with page numbers, one numbering, bookmarks for parts, chapters and
sections, and links between chapters that stay inside the file. The pages of the reference and of
the index are left to the web. `python -m tools.pdf mechanics noether` prints these pages alone.
"""

import argparse
import html
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urldefrag, urlsplit

import yaml

from tools.source import ROOT
from tools.source import address as source_address

SITE = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "symmetry-by-construction.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-pdf-header-footer", "--generate-pdf-document-outline",
    "--virtual-time-budget=60000",
)  # fmt: skip
STYLE = """<style>
@page {{ size: A4;
  @top-left {{ content: "{title}"; font: italic 8.5pt serif; color: #555; }}
  @bottom-center {{ content: counter(page, {digits}); font: 9pt serif; }} }}
@page :first {{ @top-left {{ content: none; }} }}
html {{ counter-reset: page {before}; }}
</style></head>"""
CONTENTS = """<!doctype html><meta charset="utf-8"><title>Contents</title>
<style>
body {{ font: 11pt/1.5 sans-serif; }} h1 {{ font-size: 26pt; margin: 45mm 0 2mm; }}
h2 {{ font-size: 11pt; margin: 5mm 0 1mm; break-after: avoid; }}
.author {{ margin-bottom: 25mm; color: #444; }} .contents {{ break-before: page; }}
a {{ color: inherit; text-decoration: none; display: flex; gap: 2mm; }}
a span:first-child {{ flex: 1; }}
</style></head>
<h1>{title}</h1><p class="author">{author}</p><div class="contents">{list}</div>"""


# The theme writes the first heading once more, without this link, for its own printing.
HEADING = re.compile(r"<h([12])>((?:(?!</?h[12]>).)*?)<a class=\"headerlink\"", re.DOTALL)


class BookError(Exception):
    """Something is missing that printing needs; says what to type."""


@dataclass
class Page:
    """A page of the book: its name, its title, the part that it opens (or ""), its first page."""

    name: str
    title: str
    part: str = ""
    sections: list[str] = field(default_factory=list)
    first: int = 0


def words(markup: str) -> str:
    """The text of a heading."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", markup)).split())


def pages(site: Path, names: list[str]) -> list[Page]:
    """The pages in the order of the table of contents, the ones it only globs left out.

    Of some names these alone; a part stands at the first page that is printed of it.
    """
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    found = [Page(toc["root"], "")]
    for part in toc["parts"]:
        caption = part["caption"]
        for chapter in part["chapters"]:
            listing = any("glob" in section for section in chapter.get("sections", []))
            if not listing and (not names or chapter["file"] in names):
                found.append(Page(chapter["file"], "", caption))
                caption = ""
    if names and toc["root"] not in names:
        found.pop(0)
    if unknown := set(names) - {page.name for page in found}:
        raise BookError(f"not in _toc.yml: {', '.join(sorted(unknown))}")
    for page in found:
        if not (site / f"{page.name}.html").exists():
            raise BookError(f"{site} has no {page.name}.html; type: make book")
        text = (site / f"{page.name}.html").read_text("utf8")
        headings = HEADING.findall(text)
        page.title = next(words(markup) for level, markup in headings if level == "1")
        page.sections = [words(markup) for level, markup in headings if level == "2"]
    return found


class Handler(SimpleHTTPRequestHandler):
    """Serves the site; `styles` has what is added to the head of a page, `extra` whole pages."""

    styles: ClassVar[dict[str, str]] = {}
    extra: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.removeprefix("/").removesuffix(".html")
        if name not in self.styles:
            return super().do_GET()
        text = self.extra.get(name) or Path(self.directory, f"{name}.html").read_text("utf8")
        body = text.replace("</head>", self.styles[name], 1).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args) -> None:
        pass


class Printer:
    """Chromium, and a server of the site, for as long as the book is printed."""

    def __init__(self, site: Path, folder: Path) -> None:
        found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        if not found:
            raise BookError("no chromium on PATH. Debian and Ubuntu: apt install chromium")
        self.browser, self.folder = found, folder
        handler = partial(Handler, directory=str(site))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def printed(self, name: str, title: str, before: int, digits: str = "decimal") -> Path:
        """A page as a PDF whose first page has the number `before` + 1."""
        quoted = title.replace("\\", "").replace('"', "'")
        Handler.styles[name] = STYLE.format(title=quoted, before=before, digits=digits)
        target = self.folder / f"{name}.pdf"
        done = subprocess.run(
            [self.browser, *FLAGS, f"--user-data-dir={self.folder / 'profile'}",
             f"--print-to-pdf={target}", f"{self.address}/{name}.html"],
            capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        if not target.exists():
            raise BookError(f"chromium did not print {name}: {done.stderr[-500:]}")
        return target

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def contents(book: list[Page]) -> str:
    """The title page and the list of chapters with their page numbers, as HTML."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    lines = []
    for page in book:
        if page.part:
            lines.append(f"<h2>{html.escape(page.part)}</h2>")
        title = html.escape(page.title)
        lines.append(
            f'<a href="{page.name}.html"><span>{title}</span><span>{page.first}</span></a>'
        )
    return CONTENTS.format(title=config["title"], author=config["author"], list="".join(lines))


def keep_inside(writer, address: str, starts: dict[str, int]) -> int:
    """Links to other pages of the book lead to their place in this file; how many.

    A link to a page that is on the web alone gets its address there.
    """
    from pypdf.generic import (
        ArrayObject,
        DictionaryObject,
        NameObject,
        NullObject,
        TextStringObject,
    )

    kept = 0
    for page in writer.pages:
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            uri = str(link.get("/A", {}).get("/URI", ""))
            if not uri.startswith(f"{address}/"):
                continue
            path = uri.removeprefix(f"{address}/")
            name = urldefrag(path)[0].removesuffix(".html")
            action = {NameObject("/S"): NameObject("/URI")}
            if name in starts:
                place = writer.pages[starts[name]].indirect_reference
                nothing = [NullObject()] * 3  # the place on the page, and the zoom: as they are
                action = {
                    NameObject("/S"): NameObject("/GoTo"),
                    NameObject("/D"): ArrayObject([place, NameObject("/XYZ"), *nothing]),
                }
                kept += 1
            else:
                action[NameObject("/URI")] = TextStringObject(f"{source_address().site}/{path}")
            link[NameObject("/A")] = DictionaryObject(action)
    return kept


def make(names: list[str], target: Path, site: Path = SITE) -> str:
    """Prints the pages and puts them together; says what came out."""
    try:
        from pypdf import PdfReader, PdfWriter
    except ModuleNotFoundError as error:
        raise BookError("no pypdf. Type: .venv/bin/python -m pip install pypdf") from error
    book = pages(site, names)
    writer = PdfWriter()
    with tempfile.TemporaryDirectory() as folder:
        printer = Printer(site, Path(folder))
        files, count = {}, 0
        for page in book:
            page.first = count + 1
            files[page.name] = PdfReader(printer.printed(page.name, page.title, count))
            count += len(files[page.name].pages)
            print(f"{page.name}: {len(files[page.name].pages)} pages", file=sys.stderr)
        Handler.extra["contents"] = contents(book)
        front = PdfReader(printer.printed("contents", "", 0, "lower-roman"))
        writer.append(front, import_outline=False)
        shift, above = len(front.pages), None
        for page in book:
            start = shift + page.first - 1
            writer.append(files[page.name], import_outline=False)
            if page.part:
                above = writer.add_outline_item(title=page.part, page_number=start, bold=True)
            entry = writer.add_outline_item(title=page.title, page_number=start, parent=above)
            for title, number in zip(page.sections, places(files[page.name]), strict=False):
                writer.add_outline_item(title=title, page_number=start + number, parent=entry)
        starts = {page.name: shift + page.first - 1 for page in book}
        kept = keep_inside(writer, printer.address, starts)
        printer.close()
        writer.add_metadata({"/Title": yaml.safe_load((ROOT / "_config.yml").read_text())["title"]})
        target.parent.mkdir(parents=True, exist_ok=True)
        writer.write(target)
    size = target.stat().st_size / 1e6
    return f"{target}: {shift + count} pages, {size:.1f} MB, {kept} links between pages kept"


def places(reader) -> list[int]:
    """The pages of a printed chapter, from 0, on which its sections begin."""
    # Chromium's own bookmarks: the headings of the second level are a list within the first. Their
    # places are right, their words are not where a line is broken.
    inner = next((item for item in reader.outline if isinstance(item, list)), [])
    return [
        reader.get_destination_page_number(item) or 0
        for item in inner
        if not isinstance(item, list)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pdf", description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", help="names of pages; none: the whole book")
    parser.add_argument("--out", type=Path, default=TARGET, help="the file to write")
    parser.add_argument("--site", type=Path, default=SITE, help="the folder of the built pages")
    options = parser.parse_args()
    try:
        print(make(options.pages, options.out, options.site))
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
