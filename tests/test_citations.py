"""The bibliography: complete entries, links that lead to them, names as people write them."""

import re
from pathlib import Path

import pytest

from tools import citations

ROOT = Path(__file__).parents[1]
BIBLIOGRAPHY = citations.load(ROOT / "book" / "references.bib")
KEYS = sorted(BIBLIOGRAPHY.entries)
# Older than the habit of DOIs, in proceedings without them, or with one that nobody here could
# check. A new entry needs a DOI or a reason to stand here.
WITHOUT = {
    "cesa2022",
    "levina2004",
    "manakov1974",
    "noether1918",
    "schwarz1975",
    "sussman2014",
    "turaev2003",
    "weyl1946",
    "whittaker1937",
}
CITED = {
    key
    for page in (ROOT / "book").glob("*.md")
    for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text(encoding="utf-8"))
    for key in keys.replace(" ", "").split(",")
}


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_is_whole(key):
    entry = BIBLIOGRAPHY.entries[key]
    assert entry.persons["author"], "no author"
    assert re.fullmatch(r"1[6-9]\d\d|20\d\d", entry.fields["year"])
    assert entry.fields["year"] in key, "the key says another year"
    assert entry.fields["title"]
    if entry.type == "article":
        assert entry.fields["journal"]
    if entry.type == "inproceedings":
        assert entry.fields["booktitle"]
    if entry.type == "book":
        assert entry.fields["publisher"]


@pytest.mark.parametrize("key", KEYS)
def test_a_doi_is_one_and_a_link_in_the_notebooks(key):
    doi = BIBLIOGRAPHY.entries[key].fields.get("doi")
    assert (doi is None) == (key in WITHOUT)
    if doi is not None:
        assert re.fullmatch(r"10\.\d{4,5}/[^\s{}\\]+", doi)
        assert f"<https://doi.org/{doi}>" in BIBLIOGRAPHY.listing([key])


def test_no_paper_stands_there_twice():
    dois = [
        entry.fields["doi"].lower()
        for entry in BIBLIOGRAPHY.entries.values()
        if "doi" in entry.fields
    ]
    assert len(dois) == len(set(dois))


def test_what_is_cited_is_there_and_what_is_there_is_cited():
    assert not CITED - set(KEYS), "cited, and not in the bibliography"
    assert not set(KEYS) - CITED, "in the bibliography, cited by no page"


def test_and_others_is_no_person():
    assert BIBLIOGRAPHY.cite(["meurer2017"], textual=True) == "Meurer *et al.* (2017)"
    assert BIBLIOGRAPHY.cite(["meurer2017", "weyl1946"], textual=False) == (
        "(Meurer *et al.*, 2017; Weyl, 1946)"
    )
    (line,) = BIBLIOGRAPHY.listing(["meurer2017"]).splitlines()
    assert "Mateusz Paprocki *et al.* (2017)" in line
    assert "others" not in line


def test_two_names_and_one():
    assert BIBLIOGRAPHY.cite(["ma2023"], textual=True) == "Ma and Chan (2023)"
    assert BIBLIOGRAPHY.cite(["noether1918"], textual=True) == "Noether (1918)"
    assert BIBLIOGRAPHY.cite(["chen2018"], textual=True) == "Chen *et al.* (2018)"
