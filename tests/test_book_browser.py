"""Every page in a browser, at the width of a desk and of a phone, without the network."""

import json
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from accessibility import prepare, violations
from conftest import serve

from benchmarks.site import weight
from tools import source

pytestmark = pytest.mark.browser
WIDTHS = (1280, 390)
THEMES = ("light", "dark")
# Of the reference the list and four of its pages; one program writes the others in the same way.
REFERENCE = ("api", "api/invariants", "api/systems", "api/plotting", "api/testing")
PAGES = [*dict.fromkeys([*source.pages(), *REFERENCE, "search", "genindex"])]
LIGHT = 900  # kB, as compressed by a server; the theme as it comes makes it 1300 to 1600


chapters = cache(source.chapters)  # they are parsed to find them


@dataclass
class Visit:
    """A page in the browser, mathematics and all."""

    browser: Any
    url: str
    page: str
    width: int
    mathematics: str | None = None  # the version of MathJax
    logs: dict[str, list] = field(default_factory=lambda: {"browser": [], "performance": []})

    def widths(self):
        """Every width in turn, beginning with that of the window: the page is not loaded again."""
        for width in sorted(WIDTHS, key=lambda width: width != self.width):
            self.resize(width)
            yield width

    def resize(self, width: int) -> None:
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        self.browser.execute_async_script(  # until it is drawn
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )
        self.width = width

    def log(self, kind: str) -> list[dict]:
        """What the browser has logged since the page was asked for."""
        self.logs[kind].extend(self.browser.get_log(kind))
        return self.logs[kind]

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


def load(browser, url: str, page: str = "", width: int = WIDTHS[0]) -> Visit:
    """Opens a page, and waits until its formulas are set."""
    browser.get("about:blank")
    visit = Visit(browser, url, page, width)
    visit.resize(width)
    for kind in visit.logs:  # forget the page before
        browser.get_log(kind)
    browser.set_script_timeout(120)
    browser.get(url)
    visit.mathematics = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        if (!document.querySelector('script[src*=mathjax]')) return done(null);
        const wait = () => window.MathJax?.startup?.promise
            ? MathJax.startup.promise.then(() => done(MathJax.version)) : setTimeout(wait, 20);
        wait();
        """
    )
    time.sleep(0.2)  # late scripts: search index, toggles, fonts of the mathematics
    return visit


@pytest.fixture(scope="module", params=PAGES)
def visit(request, browser, server) -> Visit:
    """A page of the book: loaded once, and the window made narrow where a test asks for it."""
    return load(browser, f"{server}/{request.param}.html", request.param)


def test_console_is_silent(visit):
    errors = [entry for entry in visit.log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors, f"{visit.page}: {errors}"


def test_nothing_comes_from_another_host(visit, server):
    asked_for = visit.requests()
    assert asked_for, "the log of requests is empty: this test sees nothing"
    away = [url for url in asked_for if not url.startswith((server, "data:", "about:", "blob:"))]
    assert not away, f"{visit.page} asks for {away}"


def test_mathematics_is_set(visit):
    page = visit.page
    found = visit.browser.execute_script(
        """
        const article = document.querySelector('article') || document.body;
        const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
        const raw = [];
        while (walker.nextNode()) {
            const node = walker.currentNode;
            if (node.parentElement.closest('pre, code, script, style, mjx-container')) continue;
            if (/[$][$]|\\\\[(\\[]|[{][a-z:-]+[}]`|```|:::/.test(node.data)) raw.push(node.data);
        }
        return {
            sources: article.querySelectorAll('.math').length,
            set: article.querySelectorAll('mjx-container').length,
            errors: [...article.querySelectorAll('mjx-merror, [data-mjx-error]')]
                .map(node => node.getAttribute('data-mjx-error') || node.textContent),
            raw: raw,
            fonts: [...document.fonts].filter(f => /MJX/.test(f.family) && f.status === 'error')
                .map(f => f.family),
        };
        """
    )
    assert not found["raw"], f"{page} shows its source: {found['raw'][:3]}"
    assert not found["errors"], f"{page}: MathJax says {found['errors'][:3]}"
    assert not found["fonts"], f"{page}: fonts not loaded: {found['fonts']}"
    if found["sources"]:
        assert visit.mathematics, f"{page} has formulas and no MathJax"
        assert found["set"] >= found["sources"], f"{page}: some formulas are not set"


WIDE = """
const limit = document.documentElement.clientWidth;
const free = node => {  // inside something that scrolls or clips by itself?
    for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
        if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(up).overflowX))
            return false;
    return true;
};
return {
    page: document.documentElement.scrollWidth - limit,
    parts: [...document.querySelectorAll('article *')]
        .filter(node => node.getClientRects().length)
        .filter(node => node.getBoundingClientRect().right > limit + 1 && free(node))
        .map(node => node.outerHTML.slice(0, 120)),
};
"""


def test_page_does_not_scroll_sideways(visit):
    for width in visit.widths():
        wide = visit.browser.execute_script(WIDE)
        here = f"{visit.page} at {width} px"
        assert wide["page"] <= 0, f"{here} is {wide['page']} px too wide: {wide['parts']}"
        assert not wide["parts"], f"{here}: cut off: {wide['parts'][:3]}"


LONG = """
return [...document.querySelectorAll('article span.math mjx-container')].filter(node => {
    const block = node.closest('p, li, dd, td, th, h1, h2, h3, h4, figcaption, summary');
    return block && block.clientWidth && !block.closest('table')
        && node.getBoundingClientRect().width > block.clientWidth + 1;
}).map(node => node.closest('p, li, dd, h1, h2, h3, h4, figcaption, summary')
    .textContent.slice(0, 100));
"""


def test_formulas_in_a_line_fit_the_line(visit):
    for width in visit.widths():
        long = visit.browser.execute_script(LONG)
        here = f"{visit.page} at {width} px"
        assert not long, f"{here}: a formula is cut off; set it on its own line: {long}"


def test_pictures_say_what_they_show(visit):
    browser, page = visit.browser, visit.page
    silent = browser.execute_script(
        """
        const said = text => text && text.trim().length > 10 && !/[/]_images[/]|[.]png$/.test(text);
        return [...document.querySelectorAll('article img')].filter(i => !said(i.alt))
            .concat([...document.querySelectorAll('article figure svg')]
                .filter(s => !said(s.getAttribute('aria-label')) && !s.closest('mjx-container')))
            .map(node => node.outerHTML.slice(0, 120));
        """
    )
    assert not silent, f"{page}: no alt text: {silent}"


def test_pictures_are_loaded(visit):
    browser, page = visit.browser, visit.page
    broken = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const loaded = image => {
            image.loading = 'eager';  // and not only when the reader comes near
            return image.decode().then(() => null, () => image.src);
        };
        Promise.all([...document.images].map(loaded)).then(all => done(all.filter(src => src)));
        """
    )
    assert not broken, f"{page}: {broken}"


def test_pictures_are_seen_in_the_dark(visit):
    browser, page = visit.browser, visit.page
    dim = browser.execute_script(
        """
        const root = document.documentElement;
        const before = root.dataset.theme;
        root.dataset.theme = 'dark';
        const bright = picture => {
            const [r, g, b, a = 1] = getComputedStyle(picture).backgroundColor.match(/[0-9.]+/g);
            return a == 1 && Math.min(r, g, b) > 200;
        };
        const dim = [...document.querySelectorAll('article figure img, article .cell_output img, '
            + 'article figure svg[role=img]')].filter(picture => !bright(picture))
            .map(picture => picture.outerHTML.slice(0, 120));
        root.dataset.theme = before;
        return dim;
        """
    )
    assert not dim, f"{page}: drawn for a white ground, and shown without one: {dim}"


def test_sliders_move_by_keyboard(visit):
    if visit.browser.find_elements("css selector", "article input[type=range]"):
        for width in visit.widths():
            sliders_move(visit.browser, visit.page, width)


def sliders_move(browser, page: str, width: int) -> None:
    from selenium.webdriver.common.keys import Keys

    state = """
        const box = arguments[0].closest('figure');
        const shown = [...box.querySelectorAll('[data-frame]')]  // a frame may have several layers
            .filter(f => getComputedStyle(f).display !== 'none').map(f => f.dataset.frame);
        return [[...new Set(shown)].join(), box.querySelector('output').textContent,
                document.activeElement === arguments[0]];
    """
    for slider in browser.find_elements("css selector", "article input[type=range]"):
        if not slider.is_displayed():
            browser.execute_script(  # in a folded block: open it, as a reader would
                """
                for (let up = arguments[0].parentElement; up; up = up.parentElement) {
                    if (up.tagName === 'DETAILS') up.open = true;
                    if (up.classList.contains('toggle-hidden'))
                        up.querySelector('button.toggle-button').click();
                }
                """,
                slider,
            )
        assert slider.get_attribute("tabindex") != "-1", f"{page}: Tab skips a slider"
        assert slider.accessible_name, f"{page}: a slider without a name"
        browser.execute_script("arguments[0].focus()", slider)
        first = browser.execute_script(state, slider)
        assert first[2], f"{page}: a slider cannot be focused"
        at_end = slider.get_attribute("value") == slider.get_attribute("max")
        slider.send_keys(Keys.ARROW_LEFT if at_end else Keys.ARROW_RIGHT)
        second = browser.execute_script(state, slider)
        assert first[0] != second[0], f"{page} at {width} px: the frame does not change"
        assert first[1] != second[1], f"{page} at {width} px: its label does not change"
        assert len(first[0].split(",")) == len(second[0].split(",")) == 1, "one frame at a time"
        box = slider.find_element("xpath", "ancestor::figure[1]").rect
        assert box["width"] <= width, f"{page}: the slider is wider than the page"


def test_buttons_open_the_right_notebook(visit):
    browser, page = visit.browser, visit.page
    links = browser.execute_script(
        "return [...document.querySelectorAll('header a, .article-header-buttons a')]"
        ".map(link => link.href)"
    )
    colab = {link for link in links if "colab.research" in link}
    binder = {link for link in links if "mybinder" in link}
    where = source.address()
    if page in chapters():
        assert colab == {where.colab(page)}
        assert binder == {where.binder(page)}
    else:
        assert not colab
        assert not binder


def test_there_is_one_search_box(visit):
    browser, page = visit.browser, visit.page
    for width in visit.widths():
        boxes = browser.find_elements("css selector", "form.bd-search input[type=search]")
        visible = [box for box in boxes if box.is_displayed()]
        assert len(visible) <= 1, f"{page} at {width} px: {len(visible)} search boxes"


def test_page_is_light(visit, site):
    found = weight(site, visit.requests())
    assert 0 < found["kB_compressed"] < LIGHT, f"{visit.page} weighs {found}"


def test_nothing_stands_between_a_page_and_its_reader(visit):
    """The last one: the page is not what it was, when axe has been there."""
    prepare(visit.browser)
    for width in visit.widths():
        for theme in THEMES:
            found = violations(visit.browser, theme, colours_only=theme != THEMES[0])
            assert not found, f"{visit.page} at {width} px, {theme}: {found}"


DAMAGED = """<!doctype html><title>damaged</title><body style="margin:0"><header></header><article>
<p>raw $$ x $$ and {eq}`y`</p><span class="math">\\(z\\)</span>
<div style="width:2000px">wide</div>
<figure><img src="missing.png"><svg></svg></figure>
<figure><g data-frame="0"></g><input type="range" max="3" value="0"><output>0</output></figure>
<img src="https://example.invalid/x.png" alt="a picture from another host">
<script>console.error("broken")</script></article></body>"""


@pytest.mark.parametrize(
    "check",
    [
        test_console_is_silent,
        test_nothing_comes_from_another_host,
        test_mathematics_is_set,
        test_page_does_not_scroll_sideways,
        test_pictures_say_what_they_show,
        test_pictures_are_loaded,
        test_pictures_are_seen_in_the_dark,
        test_sliders_move_by_keyboard,
        test_nothing_stands_between_a_page_and_its_reader,
    ],
)
def test_the_checks_find_a_damaged_page(check, browser, tmp_path):
    (tmp_path / "damaged.html").write_text(DAMAGED, "utf8")
    with serve(tmp_path) as server:
        seen = load(browser, f"{server}/damaged.html", "damaged", 390)
        arguments = (seen, server) if check is test_nothing_comes_from_another_host else (seen,)
        with pytest.raises(AssertionError):
            check(*arguments)
