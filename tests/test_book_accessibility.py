"""A page by keyboard, by voice, in the dark. (axe-core over every page: test_book_browser.py.)"""

import time

import pytest
from accessibility import prepare, violations
from conftest import serve
from test_book_browser import THEMES, load

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DAMAGED = """<!doctype html><html lang="en" data-theme="light"><title>damaged</title>
<style>html {background: white} [data-theme=dark] {background: #121212; color: white}</style>
<body><main><h1>Damaged</h1>%s</main></body></html>"""


@pytest.mark.parametrize(
    ("damage", "themes"),
    [
        ('<p style="color: #999">pale</p>', ["light"]),
        ('<p style="color: #555">dim</p>', ["dark"]),
        ("<pre><code><span class='c' style='color: #999'># x</span></code></pre>", ["light"]),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', ["light", "dark"]),
        ('<a href="x.html"></a>', ["light", "dark"]),
        ('<input type="range">', ["light", "dark"]),
        ('<div role="list"><div role="doc-biblioentry">book</div></div>', ["light", "dark"]),
        ("<details><summary>S</summary><a href='y.html'></a></details>", ["light", "dark"]),
    ],
    ids=["contrast", "dark", "code", "alt", "link", "slider", "roles", "folded"],
)
def test_the_audit_finds_a_damaged_page(damage, themes, browser, tmp_path):
    (tmp_path / "damaged.html").write_text(DAMAGED % damage, "utf8")
    with serve(tmp_path) as address:
        load(browser, f"{address}/damaged.html")
        prepare(browser)
        assert [theme for theme in THEMES if violations(browser, theme)] == themes


CHAPTER = "start"  # few formulas: loaded fast


@pytest.fixture
def chapter(browser, server):
    """A chapter at the width of a desk, with nothing pressed yet."""
    load(browser, f"{server}/{CHAPTER}.html")
    return browser


def press(browser, *keys) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_the_first_key_leads_past_the_menu(chapter):
    from selenium.webdriver.support.wait import WebDriverWait

    press(chapter, "\ue004")  # Tab
    link = chapter.switch_to.active_element
    assert link.get_attribute("textContent") == "Skip to main content"
    WebDriverWait(chapter, 5).until(lambda _: link.is_displayed())  # it slides into view
    press(chapter, "\ue007", "\ue004")  # Enter, and Tab to what comes next
    assert chapter.execute_script(
        "return document.querySelector('#main-content').contains(document.activeElement)"
    )


def test_tab_goes_through_a_chapter_and_out_of_it(chapter):
    """Every step moves the focus to something visible, on to the links below the text."""
    seen = """
        const node = document.activeElement, box = node.getBoundingClientRect();
        const style = getComputedStyle(node);
        window.been ??= new Set();
        const known = window.been.has(node);
        window.been.add(node);
        return [node.tagName, node.outerHTML.slice(0, 100), known,
            box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight
                && style.visibility === 'visible' && Number(style.opacity) > 0,
            style.outlineStyle !== 'none' || style.boxShadow !== 'none',
            !!node.closest('.prev-next-footer, footer')];
    """
    press(chapter, "\ue004", "\ue007")  # past the menu
    for _ in range(400):
        press(chapter, "\ue004")
        tag, markup, known, visible, marked, below = chapter.execute_script(seen)
        assert tag != "BODY", "the focus is lost"
        assert not known, f"the focus is caught at {markup}"
        assert visible, f"the focus is out of sight: {markup}"
        assert marked, f"nothing shows that this has the focus: {markup}"
        if below:
            return
    pytest.fail("400 steps, and the text has no end")


def test_copy_button_copies_the_code(chapter):
    chapter.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    blocks = chapter.find_elements("css selector", "article .cell_input div.highlight")
    assert all(block.find_elements("css selector", "button.copybtn") for block in blocks)
    block = next(block for block in blocks if block.is_displayed())
    button = block.find_element("css selector", "button.copybtn")
    assert button.accessible_name
    chapter.execute_script("arguments[0].focus()", button)
    press(chapter, "\ue007")
    copied = chapter.execute_async_script(
        "const done = arguments[0]; setTimeout(() => navigator.clipboard.readText().then(done, "
        "error => done(String(error))), 100)"
    )
    assert copied.strip() == block.find_element("css selector", "pre").text.strip()


def test_theme_is_chosen_with_a_button_and_kept(chapter, server):
    themes = set()
    state = "return [document.documentElement.dataset.mode, document.documentElement.dataset.theme]"
    for _ in range(3):
        chapter.execute_script("document.querySelector('.theme-switch-button').click()")
        mode, theme = chapter.execute_script(state)
        themes.add((mode, theme))
    assert {("light", "light"), ("dark", "dark")} <= themes
    while chapter.execute_script(state)[0] != "dark":
        chapter.execute_script("document.querySelector('.theme-switch-button').click()")
    load(chapter, f"{server}/glossary.html", width=390)
    assert chapter.execute_script(state) == ["dark", "dark"]
    chapter.execute_script("localStorage.clear()")


def test_search_finds_a_word_without_the_network(browser, server):
    visit = load(browser, f"{server}/search.html?q=leapfrog", width=390)
    deadline = time.monotonic() + 20
    found = []
    while not found and time.monotonic() < deadline:
        found = browser.find_elements("css selector", "#search-results li a")
        time.sleep(0.1)
    assert found, "nothing found"
    assert found[0].get_attribute("href").startswith(server)
    assert all(url.startswith((server, "data:", "about:")) for url in visit.requests())


def test_search_box_has_a_name(chapter):
    boxes = chapter.find_elements("css selector", "form.bd-search input[type=search]")
    assert boxes
    assert all(chapter.execute_script("return arguments[0].ariaLabel", box) for box in boxes)
