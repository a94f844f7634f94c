"""Citations and reference lists for the notebooks, from book/references.bib."""

from pathlib import Path

from pybtex.database import BibliographyData, Entry, Person, parse_file
from pybtex.richtext import Text


class Bibliography:
    """The entries of references.bib, cited by author and year as on the web page."""

    def __init__(self, data: BibliographyData) -> None:
        self.entries = data.entries

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def cite(self, keys: list[str], textual: bool) -> str:
        """`(Noether, 1918; Weyl, 1946)`, or `Noether (1918)` as part of a sentence."""
        if textual:
            return ", ".join(f"{self._who(key)} ({self._year(key)})" for key in keys)
        return "(" + "; ".join(f"{self._who(key)}, {self._year(key)}" for key in keys) + ")"

    def listing(self, keys: list[str]) -> str:
        """A Markdown list of the entries, in alphabetical order."""
        entries = sorted((self._who(key), self._year(key), key) for key in keys)
        return "\n".join(f"- {self._full(self.entries[key])}" for _, _, key in entries)

    def _year(self, key: str) -> str:
        return self.entries[key].fields["year"]

    def _who(self, key: str) -> str:
        people = self.entries[key].persons["author"]
        if len(people) > 2 or is_others(people[-1]):
            return f"{last_name(people[0])} *et al.*"
        return " and ".join(last_name(person) for person in people)

    def _full(self, entry: Entry) -> str:
        people = entry.persons["author"]
        names = [full_name(person) for person in people if not is_others(person)]
        authors = ", ".join(names) + (" *et al.*" if is_others(people[-1]) else "")
        parts = [f"{authors} ({entry.fields['year']})", f"*{plain(entry.fields['title'])}*"]
        where = entry.fields.get("journal") or entry.fields.get("booktitle")
        if where:
            volume = entry.fields.get("volume")
            parts.append(plain(where) + (f" {volume}" if volume else ""))
        if "publisher" in entry.fields:
            parts.append(plain(entry.fields["publisher"]))
        if "doi" in entry.fields:
            parts.append(f"<https://doi.org/{entry.fields['doi']}>")
        elif "url" in entry.fields:
            parts.append(f"<{entry.fields['url']}>")
        return ". ".join(parts)


def load(path: Path) -> Bibliography:
    return Bibliography(parse_file(str(path), bib_format="bibtex"))


def plain(latex: str) -> str:
    """LaTeX accents and braces as Unicode."""
    return str(Text.from_latex(latex))


def is_others(person: Person) -> bool:
    """Whether this is no name but the BibTeX `and others`."""
    return str(person) == "others"


def last_name(person: Person) -> str:
    return plain(" ".join(person.prelast_names + person.last_names))


def full_name(person: Person) -> str:
    return plain(" ".join(person.first_names + person.middle_names)) + " " + last_name(person)
