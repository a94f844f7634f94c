"""The book as one PDF: what is folded is open, one numbering, links that stay inside."""

import re
import shutil

import pytest
from pypdf import PdfReader

from tools import pdf, source

CSS = (source.ROOT / "book" / "_static" / "print.css").read_text("utf8")
PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>x</title><style>{css}</style>
</head><body><div id="jb-print-docs-body"><h1>Twice</h1><h2>Contents</h2></div>
<article class="bd-article"><h1>1. {title}<a class="headerlink" href="#">#</a></h1>
<p><a href="{link}">over there</a> <a href="api.html">away</a></p>
<h2>Its &amp; section<a class="headerlink" href="#">#</a></h2>
<details class="sd-dropdown"><summary>Answer</summary><p>FOLDED</p></details>
<details class="hide above-input"><summary>Show the code</summary><p>SETUP</p></details>
<pre>{long}</pre><p style="break-before: page">LAST</p></article></body></html>"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A site of two pages that lead to each other, two sheets each."""
    folder = tmp_path_factory.mktemp("small")
    for name, other in (("notation", "glossary"), ("glossary", "notation")):
        text = PAGE.format(
            css=CSS, title=name.title(), link=f"{other}.html#there", long="wide " * 60 + "END"
        )
        (folder / f"{name}.html").write_text(text, "utf8")
    return folder


def test_pages_have_their_titles_parts_and_sections(small):
    first, second = pdf.pages(small, ["notation", "glossary"])
    assert (first.title, first.part, first.sections) == (
        "1. Notation",
        "Before you begin",
        ["Its & section"],
    )
    assert (second.title, second.part) == ("1. Glossary", "Appendix")
    with pytest.raises(pdf.BookError, match="make book"):
        pdf.pages(small, ["notation", "references"])
    with pytest.raises(pdf.BookError, match="nowhere"):
        pdf.pages(small, ["nowhere"])


def test_the_whole_book_has_every_chapter_and_not_the_reference(site):
    names = [page.name for page in pdf.pages(site, [])]
    assert names == [page for page in source.pages() if page != "api"]


@pytest.mark.browser
@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="needs chromium")
def test_two_pages_become_one_book(small, tmp_path):
    target = tmp_path / "book.pdf"
    said = pdf.make(["notation", "glossary"], target, small)
    book = PdfReader(target)
    texts = [" ".join(page.extract_text().split()) for page in book.pages]
    front = len(book.pages) - 4
    assert "6 pages" in said
    assert "4 links" in said  # two of them in the list of contents
    assert re.search(r"Before you begin 1\. Notation 1 Appendix 1\. Glossary 3", texts[front - 1])
    assert "FOLDED" in texts[front]
    assert "END" in texts[front]
    assert not re.search("SETUP|Show the code|Twice|Contents", " ".join(texts[front:]))
    assert [re.search(r"\b([1-9])\b(?!\.)", text)[1] for text in texts[front:]] == list("1234")
    links = [annotation.get_object()["/A"] for annotation in book.pages[front]["/Annots"]]
    inside = [link["/D"][0] for link in links if link["/S"] == "/GoTo"]
    assert inside == [book.pages[front + 2].indirect_reference]
    assert [link["/URI"] for link in links if link["/S"] == "/URI"] == [
        f"{source.address().site}/api.html"
    ]
    marks = [(m.title, book.get_destination_page_number(m)) for m in flat(book.outline)]
    assert marks == [
        ("Before you begin", front),
        ("1. Notation", front),
        ("Its & section", front),
        ("Appendix", front + 2),
        ("1. Glossary", front + 2),
        ("Its & section", front + 2),
    ]


def flat(outline):
    for item in outline:
        yield from flat(item) if isinstance(item, list) else [item]
