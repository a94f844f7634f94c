"""The page of all exercises says what the chapters' titles say."""

import pytest

from tools import exercises, source
from tools.numbers import Numbers
from tools.source import SourceError


@pytest.fixture(scope="module")
def book():
    return Numbers()


def test_the_page_is_what_the_titles_say(book):
    page = source.chapter_path(exercises.PAGE).read_text("utf8")
    assert page == exercises.write(book), "type: python -m tools.exercises make"


def test_every_exercise_is_listed_once(book):
    page = exercises.write(book)
    labels = [label for label, target in book.targets.items() if target.kind == "exercise"]
    assert labels
    assert all(page.count(f"{{ref}}`{label}`") == 1 for label in labels)


def test_a_title_is_read():
    read = exercises.read("ex-a", "a", "1.2", "Where? ★★ · 15 min · proof and sympy", True)
    assert (read.name, read.stars, read.minutes) == ("Where?", 2, 15)
    assert read.kinds == ("proof", "code")
    hard = exercises.read("ex-b", "a", "1.3", "Why not? ★★★ · open", False)
    assert (hard.stars, hard.minutes, hard.kinds) == (3, None, ("open",))


@pytest.mark.parametrize(
    ("title", "complaint"),
    [
        ("Where?", "write it like"),
        ("Where? ★★ · 5 min", "'5 min' is no kind"),  # it is told, not guessed
        ("Where? ★★★★ · 5 min", "write it like"),
        ("Where? ★★ · 5 min · guess", "'guess' is no kind"),
        ("Where? ★★ · proof", "minutes, or the kind open"),
        ("Where? ★★ · 5 min · open", "minutes, or the kind open"),
    ],
)
def test_a_title_that_lacks_something_is_refused(title, complaint):
    with pytest.raises(SourceError, match=complaint):
        exercises.read("ex-a", "a", "1.2", title, True)


def small_book(root, title):
    (root / "book").mkdir(exist_ok=True)
    (root / "_toc.yml").write_text("root: one\nparts: []\n")
    (root / "_config.yml").write_text("repository: {url: https://github.com/a/b, branch: main}\n")
    (root / "book" / "one.md").write_text(
        f"# One\n\n:::{{exercise}} {title}\n:label: ex-one\n\nText.\n:::\n"
    )


def test_a_changed_title_makes_the_page_stale(tmp_path):
    small_book(tmp_path, "Where? ★ · 5 min · code")
    assert exercises.stale(tmp_path)
    exercises.make(tmp_path)
    assert not exercises.stale(tmp_path)
    small_book(tmp_path, "Where? ★ · 10 min · code")
    assert exercises.stale(tmp_path)


def test_the_easy_ones_come_first_then_the_short_ones():
    titles = ("open ★★ · open", "hard ★★★ · 5 min · proof", "long ★★ · 20 min · code",
              "short ★★ · 10 min · code", "easy ★ · 30 min · proof")  # fmt: skip
    table = exercises.listing(
        [exercises.read(f"ex-{title[:4]}", "a", "1.1", title, False, "IV") for title in titles]
    )
    names = [row.split(": ")[1].split(" |")[0] for row in table.split("\n")[2:]]
    assert names == ["easy", "short", "long", "open", "hard"]
    assert table.split("\n")[5] == "| {ref}`ex-open`: open | IV | ★★ | – | open |"


def test_every_exercise_has_a_part(book):
    assert {e.part for e in exercises.collect(book)} >= {"I", "II", "III", "IV", "V"}


def test_the_count_adds_up(book):
    """Stars against kinds, counted from the page itself."""
    page = exercises.write(book)
    rows = [row.split(" | ") for row in page.split("\n") if row.startswith("| {ref}")]
    for stars in exercises.LEVELS:
        here = [row for row in rows if row[2] == "★" * stars]
        kinds = [sum(kind in row[4] for row in here) for kind in exercises.KINDS]
        assert f"| {'★' * stars} | {' | '.join(map(str, [*kinds, len(here)]))} |" in page


def test_a_chapter_has_all_kinds(book):
    """DESIGN: two to prove, two to program, two to measure, one open. At least one of each."""
    wanted = {*exercises.KINDS}
    lacking = {
        page: wanted - {kind for e in exercises.collect(book) if e.page == page for kind in e.kinds}
        for page, number in book.chapters.items()
        if number is not None and source.has_code(source.chapter_path(page).read_text("utf8"))
    }
    assert not {page: kinds for page, kinds in lacking.items() if kinds}
