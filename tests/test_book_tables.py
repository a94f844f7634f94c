"""Tables that sort and filter: in a browser, by keyboard, with and without JavaScript."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
from accessibility import prepare, violations
from conftest import ROOT, serve

from tools import source

EXTENSION = ROOT / "book" / "_ext"
ROWS = [  # model, error, kind, minutes, stars
    ("plain", "3.1e-1 ± 2e-2", "field", "15", "★★"),
    ("augmented", "0.16", "field, copies", "5", "★"),
    ("scalars", "5e-3", "energy", "100", "★★★"),
    ("frame", "-", "field", "", "★★"),
    ("exact", '<td data-sort="2e-4">\\(2\\cdot10^{-4}\\)</td>', "energy", "15", "★"),
]
HEADS = ("model", "error", "kind", "minutes", "level")
PAGE = """<!doctype html><html lang="en" data-theme="light">
<head><meta charset="utf-8"><title>t</title>
<link rel="stylesheet" href="tables.css">{script}</head><body><main>
<h1>Tables</h1>{tables}</main></body></html>"""


def table(classes="sortable", rows=ROWS, heads=HEADS):
    body = "".join(
        "<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row) + "</tr>"
        for row in rows
    )
    head = "".join(h if h.startswith("<th") else f"<th>{h}</th>" for h in heads)
    return f'<table class="{classes}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


SCRIPT = '<script src="tables.js" defer></script>'


def page(folder: Path, *tables: str, script: str = SCRIPT) -> None:
    for name in ("tables.js", "tables.css"):
        (folder / name).write_bytes((EXTENSION / name).read_bytes())
    (folder / "t.html").write_text(PAGE.format(script=script, tables="".join(tables)), "utf8")


@pytest.fixture
def show(browser, tmp_path):
    """Shows tables; returns what asks the browser."""
    with serve(tmp_path) as address:
        number = itertools.count()  # two pages of the same second are one to the browser's cache

        def load(*tables, **options):
            page(tmp_path, *tables, **options)
            browser.get(f"{address}/t.html?{next(number)}")
            return browser

        yield load


def first_column(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('tbody tr')].filter(r => r.offsetHeight)"
        ".map(r => r.cells[0].textContent)"
    )


def status(browser):
    return browser.find_element("css selector", "output").text


def press(browser, text, *keys):
    """The button with this text: focus it and press the keys."""
    from selenium.webdriver.common.by import By

    (button,) = [b for b in browser.find_elements(By.TAG_NAME, "button") if b.text.startswith(text)]
    browser.execute_script("arguments[0].focus()", button)
    for key in keys:
        button.send_keys(key)


def choose(browser, name, value):
    """Puts a value into the field with this label, as a reader would."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    labels = browser.find_elements(By.CSS_SELECTOR, ".sortable-bar label")
    (label,) = [x for x in labels if x.text.split("\n")[0].startswith(name)]
    control = browser.find_element(By.ID, label.get_attribute("for"))
    assert control.accessible_name.startswith(name)
    if control.tag_name == "select":
        Select(control).select_by_visible_text(value)
    else:
        control.clear()
        control.send_keys(value)


ORDERS = {
    "error": ["exact", "scalars", "augmented", "plain", "frame"],  # as numbers, the dash last
    "minutes": ["augmented", "plain", "exact", "scalars", "frame"],  # 5 before 15; equal ones stay
    "level": ["augmented", "exact", "plain", "frame", "scalars"],
    "model": ["augmented", "exact", "frame", "plain", "scalars"],
}


@pytest.mark.browser
@pytest.mark.parametrize("name", ORDERS)
def test_a_head_sorts_up_down_and_back(name, show):
    from selenium.webdriver.common.keys import Keys

    browser = show(table())
    before = first_column(browser)
    press(browser, name, Keys.ENTER)
    assert first_column(browser) == ORDERS[name]
    head = browser.find_element("css selector", "th[aria-sort]")
    assert (head.text, head.get_attribute("aria-sort")) == (name, "ascending")
    assert status(browser) == f"5 of 5 rows, by {name}, ascending"
    press(browser, name, Keys.SPACE)
    assert head.get_attribute("aria-sort") == "descending"
    down = first_column(browser)
    empty = [row for row in ("frame",) if name in ("error", "minutes")]
    assert down[len(down) - len(empty) :] == empty, "an empty cell comes last in both directions"
    keys = {row[0]: row[HEADS.index(name)] for row in ROWS}
    up = [keys[row] for row in ORDERS[name] if row not in empty]
    assert [keys[row] for row in down if row not in empty] == up[::-1]
    press(browser, name, Keys.ENTER)
    assert first_column(browser) == before
    assert not browser.find_elements("css selector", "th[aria-sort]")


@pytest.mark.browser
def test_another_head_takes_over(show):
    from selenium.webdriver.common.keys import Keys

    browser = show(table())
    press(browser, "model", Keys.ENTER)
    press(browser, "error", Keys.ENTER)
    assert first_column(browser) == ORDERS["error"]
    assert [h.text for h in browser.find_elements("css selector", "th[aria-sort]")] == ["error"]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("kind", "field", ["plain", "augmented", "frame"]),  # "field, copies" counts as both
        ("kind", "copies", ["augmented"]),
        ("minutes", "at most 15", ["plain", "augmented", "exact"]),  # an empty cell is no number
        ("level", "★★", ["plain", "frame"]),
        ("search", "fi COP", ["augmented"]),  # all words, whatever their case
        ("search", "no such", []),
    ],
)
def test_a_field_filters(field, value, left, show):
    browser = show(table())
    choose(browser, field, value)
    assert first_column(browser) == left
    assert status(browser) == f"{len(left)} of 5 rows"


@pytest.mark.browser
def test_filters_and_order_hold_together_and_are_undone(show):
    from selenium.webdriver.common.keys import Keys

    browser = show(table())
    choose(browser, "kind", "field")
    choose(browser, "minutes", "at most 15")
    press(browser, "error", Keys.ENTER)
    assert first_column(browser) == ["augmented", "plain"]
    choose(browser, "kind", "all")
    assert first_column(browser) == ["exact", "augmented", "plain"]
    press(browser, "show all", Keys.ENTER)
    assert first_column(browser) == [row[0] for row in ROWS]
    assert status(browser) == "5 of 5 rows"


@pytest.mark.browser
def test_which_columns_have_a_menu(show):
    heads = ("model", "error", '<th data-filter="none">kind</th>', "minutes", "level")
    labels = [
        [x.text.split("\n")[0].split(" all")[0].strip()
         for x in show(t).find_elements("css selector", "label")]
        for t in (table(), table(heads=heads), table("sortable no-filter"))
    ]  # fmt: skip
    assert labels == [
        ["search", "kind", "minutes", "level"],  # nobody chooses among measured numbers
        ["search", "minutes", "level"],
        [],
    ]


@pytest.mark.browser
@pytest.mark.parametrize(
    "plain",
    [
        table("other"),
        table(rows=[('<td colspan="5">all</td>',), *ROWS]),
        table().replace("<thead><tr>", "<thead><tr><th>two</th></tr><tr>"),
        table(rows=ROWS[:1]),
    ],
    ids=["another class", "spans", "two heads", "one row"],
)
def test_other_tables_stay_as_they_are(plain, show):
    assert not show(plain).find_elements("css selector", "button, label, output")


@pytest.mark.browser
def test_without_javascript_it_is_a_table(show):
    browser = show(table(), script="")
    assert first_column(browser) == [row[0] for row in ROWS]
    assert not browser.find_elements("css selector", "button, label")


@pytest.mark.browser
def test_two_tables_do_not_mix(show):
    from selenium.webdriver.common.by import By

    browser = show(table(), table())
    ids = [n.get_attribute("id") for n in browser.find_elements(By.CSS_SELECTOR, "input, select")]
    assert len(ids) == len(set(ids)) > 2
    browser.find_element(By.CSS_SELECTOR, "input").send_keys("plain")
    assert first_column(browser) == ["plain", *(row[0] for row in ROWS)]


@pytest.mark.browser
def test_the_stripes_of_what_is_left_stay_even(show):
    """Hidden rows come last: the theme colours every other row of all."""
    browser = show(table())
    choose(browser, "kind", "energy")
    asked = "return [...document.querySelectorAll('tr')].map(row => row.hidden)"
    assert browser.execute_script(asked) == [False, False, False, True, True, True]


@pytest.mark.browser
def test_the_audit_finds_nothing(browser, site, tmp_path):
    """axe-core, in light and dark, on a table in the theme of the book, sorted and filtered."""
    from selenium.webdriver.common.keys import Keys

    style = '<link rel="stylesheet" href="theme.css"><link rel="stylesheet" href="house.css">'
    shutil.copy(site / "_static" / "styles" / "pydata-sphinx-theme.css", tmp_path / "theme.css")
    shutil.copy(ROOT / "book" / "_static" / "house.css", tmp_path / "house.css")
    page(tmp_path, table("sortable table"), script=style + SCRIPT)
    with serve(tmp_path) as address:
        browser.get(f"{address}/t.html")
        choose(browser, "kind", "field")
        press(browser, "error", Keys.ENTER)
        prepare(browser)
        found = {theme: violations(browser, theme) for theme in ("light", "dark")}
    assert not any(found.values()), found


# -- which pages load the script, on the built site ----------------------------------------------


def test_only_pages_with_such_a_table_load_the_script(site):
    seen = set()
    for name in source.pages():
        text = (site / f"{name}.html").read_text("utf8")
        has = bool(re.search(r'<table[^>]*class="[^"]*\bsortable\b', text))
        assert ("_static/tables.js" in text) == has, name
        assert ("_static/tables.css" in text) == has, name
        seen |= {name} if has else set()
    assert "exercises" in seen
    assert (site / "_static" / "tables.js").read_bytes() == (EXTENSION / "tables.js").read_bytes()


def test_jupyter_book_does_not_see_the_script():
    assert not list((ROOT / "book" / "_static").rglob("*.js"))
