"""The glossary is in order, has every defined word, and each entry leads to where it is defined."""

import re

import pytest

from tools import source
from tools.numbers import Numbers

TEXT = source.chapter_path("glossary").read_text("utf8")
ENTRIES = re.findall(r"^\*\*(.+?)\*\*(.*)$", TEXT, re.MULTILINE)
# Bold words of definitions without an entry: `acts` is under action, the rest are one page's names.
NO_TERMS = {"acts", "four layers", "linear shears", "none"}


@pytest.fixture(scope="module")
def book():
    return Numbers()


def test_entries_are_in_order_and_under_their_letter():
    words = [re.sub(r"[^a-z]", "", term.lower()) for term, _ in ENTRIES]
    assert words == sorted(set(words))
    letter = ""
    for line in TEXT.split("\n"):
        if line.startswith("## "):
            letter = line[3:]
        elif line.startswith("**"):
            assert line[2] == letter


def test_every_entry_leads_somewhere(book):
    terms = {term.rstrip(".").lower() for term, _ in ENTRIES}
    for term, text in ENTRIES:
        if match := re.search(r"See \*(.+)\*", text):
            assert match[1].lower() in terms, f"{term}: there is no entry {match[1]!r}"
            continue
        links = re.findall(r"\{[a-z:]+\}`(?:[^`<]*<)?([^`<>]+)>?`", text)
        assert links, f"{term}: says not where it is defined"
        for link in links:
            assert link in book.targets or link in book.chapters, f"{term}: nothing named {link!r}"


def test_every_word_of_a_definition_is_here(book):
    missing = []
    for page in book.chapters:
        chapter = source.chapter_path(page).read_text("utf8")
        for body in re.findall(
            r"^:::\{prf:definition\}(.*?)^:::$", chapter, re.DOTALL | re.MULTILINE
        ):
            words = {re.sub(r"s$", "", w) for w in re.findall(r"\*\*([^*]+)\*\*", body)}
            words -= {re.sub(r"s$", "", w) for w in NO_TERMS}
            missing += [f"{page}: {w}" for w in words if w.lower() not in TEXT.lower()]
    assert not missing
