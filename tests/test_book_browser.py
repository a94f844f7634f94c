"""Every page in a browser, at the width of a desk and of a phone, without the network."""

import json
import time

import pytest
from conftest import serve

from tools import source

pytestmark = pytest.mark.browser
WIDTHS = (1280, 390)
PAGES = [*source.pages(), "search", "genindex"]


@pytest.fixture(scope="module", params=[(page, width) for page in PAGES for width in WIDTHS])
def visit(request, browser, server):
    """One page, loaded at one width, mathematics and all: (browser, page, width, log, MathJax)."""
    page, width = request.param
    return load(browser, f"{server}/{page}.html", page, width)


def load(browser, url, page, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get("about:blank")
    for kind in ("browser", "performance"):  # forget the page before
        browser.get_log(kind)
    browser.get(url)
    mathematics = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        if (!document.querySelector('script[src*=mathjax]')) return done(null);
        const wait = () => window.MathJax?.startup?.promise
            ? MathJax.startup.promise.then(() => done(MathJax.version)) : setTimeout(wait, 20);
        wait();
        """
    )
    time.sleep(0.2)  # late scripts: search index, toggles, fonts of the mathematics
    logs = {kind: browser.get_log(kind) for kind in ("browser", "performance")}
    return browser, page, width, logs, mathematics


def requests(logs) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in logs["performance"]]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_console_is_silent(visit):
    _, page, width, logs, _ = visit
    errors = [entry for entry in logs["browser"] if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors, f"{page} at {width} px: {errors}"


def test_nothing_comes_from_another_host(visit, server):
    _, page, width, logs, _ = visit
    away = [
        url for url in requests(logs) if not url.startswith((server, "data:", "about:", "blob:"))
    ]
    assert requests(logs), "the log of requests is empty: this test sees nothing"
    assert not away, f"{page} at {width} px asks for {away}"


def test_mathematics_is_set(visit):
    browser, page, _, _, mathematics = visit
    found = browser.execute_script(
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
        assert mathematics, f"{page} has formulas and no MathJax"
        assert found["set"] >= found["sources"], f"{page}: some formulas are not set"


def test_page_does_not_scroll_sideways(visit):
    browser, page, width, _, _ = visit
    wide = browser.execute_script(
        """
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
    )
    assert wide["page"] <= 0, f"{page} at {width} px is {wide['page']} px too wide: {wide['parts']}"
    assert not wide["parts"], f"{page} at {width} px: cut off: {wide['parts'][:3]}"


def test_formulas_in_a_line_fit_the_line(visit):
    browser, page, width, _, _ = visit
    long = browser.execute_script(
        """
        return [...document.querySelectorAll('article span.math mjx-container')].filter(node => {
            const block = node.closest('p, li, dd, td, th, h1, h2, h3, h4, figcaption, summary');
            return block && block.clientWidth && !block.closest('table')
                && node.getBoundingClientRect().width > block.clientWidth + 1;
        }).map(node => node.closest('p, li, dd, h1, h2, h3, h4, figcaption, summary')
            .textContent.slice(0, 100));
        """
    )
    assert not long, f"{page} at {width} px: a formula is cut off; set it on its own line: {long}"


def test_pictures_say_what_they_show(visit):
    browser, page, _, _, _ = visit
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
    browser, page, _, _, _ = visit
    broken = browser.execute_script(
        "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    )
    assert not broken, f"{page}: {broken}"


def test_sliders_move_by_keyboard(visit):
    from selenium.webdriver.common.keys import Keys

    browser, page, width, _, _ = visit
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
    browser, page, _, _, _ = visit
    links = browser.execute_script(
        "return [...document.querySelectorAll('header a, .article-header-buttons a')]"
        ".map(link => link.href)"
    )
    colab = {link for link in links if "colab.research" in link}
    binder = {link for link in links if "mybinder" in link}
    where = source.address()
    if page in source.chapters():
        assert colab == {where.colab(page)}
        assert binder == {where.binder(page)}
    else:
        assert not colab
        assert not binder


def test_there_is_one_search_box(visit):
    browser, page, _, _, _ = visit
    boxes = browser.find_elements("css selector", "form.bd-search input[type=search]")
    visible = [box for box in boxes if box.is_displayed()]
    assert len(visible) <= 1, f"{page}: {len(visible)} search boxes"


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
        test_sliders_move_by_keyboard,
    ],
)
def test_the_checks_find_a_damaged_page(check, browser, tmp_path):
    (tmp_path / "damaged.html").write_text(DAMAGED, "utf8")
    with serve(tmp_path) as server:
        seen = load(browser, f"{server}/damaged.html", "damaged", 390)
        arguments = (seen, server) if check is test_nothing_comes_from_another_host else (seen,)
        with pytest.raises(AssertionError):
            check(*arguments)
