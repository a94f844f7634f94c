"""Every link inside the site leads to a page that exists, and to a place on it."""

import re
from functools import cache
from html import unescape
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

# A parser of HTML takes a minute for the whole site, and this two seconds.
TAG = re.compile(r"<([a-zA-Z]\w*)([^<>]*)>")
ATTRIBUTE = re.compile(r"""\s(href|src|id|name)="([^"]*)\"""")


class Site:
    """The built pages: the links and the anchors of each, read once."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.pages = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.html")
            if not path.relative_to(folder).as_posix().startswith(("_static", "_sources"))
        )
        self.read = cache(self._read)

    def _read(self, page: str) -> tuple[frozenset[str], frozenset[str]]:
        links, anchors = set(), set()
        for tag, inside in TAG.findall((self.folder / page).read_text("utf8")):
            for name, value in ATTRIBUTE.findall(inside):
                if name in ("href", "src"):
                    links.add(unescape(value))
                elif name == "id" or tag == "a":
                    anchors.add(unescape(value))
        return frozenset(links), frozenset(anchors)

    def dead(self, page: str) -> list[str]:
        """The links of a page that lead nowhere on this site."""
        found = []
        for link in sorted(self.read(page)[0]):
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            address, anchor = urldefrag(urljoin(page, link))
            target = unquote(urlsplit(address).path) or page
            if not (self.folder / target).is_file():
                found.append(link)
                continue
            inside = anchor and target.endswith(".html")
            if inside and unquote(anchor) not in self.read(target)[1]:
                found.append(link)
        return found


@pytest.fixture(scope="module")
def whole(site):
    return Site(site)


def test_no_link_is_dead(whole):
    assert len(whole.pages) > 20
    dead = {page: found for page in whole.pages if (found := whole.dead(page))}
    assert not dead, dead


def test_every_reference_is_cited_and_every_citation_listed(whole):
    text = (whole.folder / "references.html").read_text("utf8")
    entries = BeautifulSoup(text, "html.parser").select(".citation-list .citation")
    listed = {entry["id"] for entry in entries}
    cited = {
        anchor
        for page in whole.pages
        for address, anchor in map(urldefrag, whole.read(page)[0])
        if address.endswith("references.html") and anchor.startswith("id")
    }
    assert len(listed) > 20
    assert cited == listed


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">x</a><a href="#here">y</a><a href="b.html#not">z</a>'
        '<img src="none.png"><a href="https://example.org/none">w</a></p>',
        "utf8",
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>', "utf8")
    assert Site(tmp_path).dead("a.html") == ["b.html#not", "none.png"]
