"""A page loads what it shows; and the measurement of its weight counts each file once."""

import base64
import gzip
import re
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

from benchmarks import site as benchmark
from tools import source

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import house
import lighter

PAGES = [*source.pages(), "search", "genindex"]


def test_weight_counts_files_once_and_compresses_text_only(tmp_path):
    (tmp_path / "a b.html").write_bytes(b"x" * 5000)
    (tmp_path / "p.png").write_bytes(b"y" * 2000)
    host = "http://127.0.0.1:1"
    urls = [f"{host}/a%20b.html", f"{host}/p.png?v=1", f"{host}/p.png?v=1", "data:,x", f"{host}/no"]
    found = benchmark.weight(tmp_path, urls)
    assert found["files"] == 2
    assert found["kB"] == 7.0
    assert found["kB_compressed"] == (len(gzip.compress(b"x" * 5000, 6)) + 2000) / 1e3


SCRIPT = (
    'a={moon:[384,512,[127769,"night"],"f186","M1"],"arrow-up":[1,2,[],"f062",["M2","M3"]]},'
    'b={x:[1,2,[],"f1"]},c={sun:[512,512,[9728],"f185","M4"]};go(a,b,c)'
)


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [({"arrow-up"}, ["arrow-up"]), ({"night"}, ["moon"]), ({"sun", "moon"}, ["moon", "sun"])],
)
def test_cut_script_keeps_the_icons_that_are_named(wanted, kept):
    cut = lighter.cut_script(SCRIPT, wanted)
    assert [icon["quoted"] or icon["plain"] for icon in lighter.ICON.finditer(cut)] == kept
    assert cut.endswith(";go(a,b,c)")
    assert 'b={x:[1,2,[],"f1"]}' in cut, "not an icon, and gone"


def test_icons_and_their_font_are_small_and_whole(site):
    static = site / "_static"
    wanted = lighter.icons_named(site)
    script = (static / lighter.SCRIPT).read_text("utf8")
    there = set()
    for icon in lighter.ICON.finditer(script):
        there |= {icon["quoted"] or icon["plain"], *re.findall(r'"([a-z0-9-]+)"', icon["others"])}
    known = {
        icon["quoted"] or icon["plain"]
        for icon in lighter.ICON.finditer((lighter.THEME / lighter.SCRIPT).read_text("utf8"))
    }
    assert len(known) > 1000, "the theme writes its icons in another way: lighter.py cuts nothing"
    assert wanted & known, "no page names an icon: this test sees nothing"
    assert wanted & known <= there
    assert len(script) < 100_000
    style = (static / lighter.STYLE).read_text("utf8")
    assert f"{lighter.FONT}.woff)" in style
    from fontTools.ttLib import TTFont

    font = TTFont(static / f"{lighter.FONT}.woff")
    whole = TTFont(lighter.THEME / f"{lighter.FONT}.ttf")
    letters = lighter.letters(style) & set(whole.getBestCmap())
    assert letters
    assert letters <= set(font.getBestCmap())
    assert (static / f"{lighter.FONT}.woff").stat().st_size < 20_000


@pytest.mark.parametrize("page", PAGES)
def test_page_asks_for_no_more_than_it_shows(page, site):
    text = (site / f"{page}.html").read_text("utf8")
    assert ("searchindex.js" in text) == (page == "search")
    assert "data:image/png" not in text, "a picture inside the page: nothing is seen before it"
    for markup in re.findall(r'<img [^>]*loading="lazy"[^>]*>', text):
        picture = BeautifulSoup(markup, "html.parser").img
        assert (site / page).parent.joinpath(picture["src"]).is_file()
        assert int(picture["height"]) > 0, "the page jumps when the picture comes"


def test_picture_of_a_cell_becomes_a_file_of_its_shape(tmp_path):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (960).to_bytes(4, "big") + (480).to_bytes(4, "big")
    data = base64.b64encode(header).decode()
    context = {
        "body": f'<img alt="A line." src="data:image/png;base64,{data}" width="480" style="x">',
        "pathto": lambda name, _: f"../{name}",
    }
    app = SimpleNamespace(outdir=tmp_path)
    lighter.pictures_as_files(app, "api/x", "page.html", context, None)
    picture = BeautifulSoup(context["body"], "html.parser").img
    assert (picture["alt"], picture["width"], picture["height"]) == ("A line.", "480", "240")
    assert picture["src"].startswith("../_images/")
    assert (tmp_path / picture["src"][3:]).read_bytes() == header


def test_card_is_small_and_of_the_size_that_is_promised(site):
    data = (site / "_static" / house.CARD).read_bytes()
    assert len(data) < 50_000
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [1200, 630]


def shared(site, page: str) -> dict[str, str]:
    """What somebody who is sent a link to the page sees of it."""
    text = (site / f"{page}.html").read_text("utf8")
    found = re.findall(r'<meta (?:name|property)="([^"]*)" content="([^"]*)" />', text)
    title = re.search(r"<h1>([^\n]*?)<a class=\"headerlink", text)
    assert title, f"{page} has no title"
    return {name: unescape(words) for name, words in found} | {
        "title": unescape(re.sub(r"<[^>]+>", "", title[1]))
    }


def test_shared_links_say_what_the_page_is(site):
    where = source.address().site
    words = {}
    for page in source.pages():
        tags = shared(site, page)
        assert tags["og:title"].strip() == tags["title"].strip()
        assert tags["og:image"] == f"{where}/_static/{house.CARD}"
        assert tags["og:url"] == f"{where}/{page}.html"
        assert tags["og:description"] == tags["description"]
        assert not re.search(r"[$`{}\\]", tags["description"]), f"{page}: {tags['description']}"
        assert 39 <= len(tags["description"]) <= 205, f"{page}: {tags['description']}"
        words[page] = tags["description"]
    assert len(set(words.values())) == len(words), "two pages describe themselves in the same words"
