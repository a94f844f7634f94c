"""What a source must be to become an assignment: everything that is wrong with it, in words.

nbgrader is silent about most mistakes: a solution that is not marked goes out to the students, a
test without an answer earns points for nothing.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

__all__ = ["ANSWER", "REGIONS", "TEST", "WRITTEN", "Place", "identity", "problems"]

SETUP = """\
try:
    import companion
except ModuleNotFoundError:
    %pip install --quiet git+{url}@{branch}"""

# The first line of a cell: what a reader sees, and how a cell is known whose metadata were lost.
ANSWER = re.compile(r"#\s*Question ([\w-]+): your answer\s*", re.IGNORECASE)
TEST = re.compile(r"#\s*Check of question ([\w-]+) \((\d+(?:\.\d+)?) points?\)\s*", re.IGNORECASE)
WRITTEN = re.compile(
    r"\*\*Question ([\w-]+): your answer\*\* \((\d+(?:\.\d+)?) points?, marked by hand\)\s*",
    re.IGNORECASE,
)
REGIONS = ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")


def identity(cell: NotebookNode) -> str:
    """The grade_id of a cell, or an empty string."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


@dataclass(frozen=True)
class Place:
    """The repository that holds a course folder, as its `_config.yml` says; empty without one."""

    url: str
    branch: str
    folder: str
    pages: tuple[str, ...]  # of the book, for links

    @classmethod
    def of(cls, course: Path) -> "Place":
        root = course.resolve().parent
        config = root / "_config.yml"
        if not config.exists():
            return cls("", "", "", ())
        repository = yaml.safe_load(config.read_text("utf8"))["repository"]
        pages = tuple(sorted(path.stem for path in (root / "book").glob("*.md")))
        where = course.resolve().name
        return cls(repository["url"].rstrip("/"), repository["branch"], where, pages)

    @property
    def slug(self) -> str:
        return "/".join(self.url.split("/")[-2:])

    @property
    def site(self) -> str:
        owner, _, name = self.slug.partition("/")
        return f"https://{owner.lower()}.github.io/{name}"

    def colab(self, name: str) -> str:
        return (
            f"https://colab.research.google.com/github/{self.slug}/blob/{self.branch}/"
            f"{self.folder}/student/{name}.ipynb"
        )


def problems(source: NotebookNode, place: Place, name: str) -> Iterator[str]:
    """Everything that keeps a source from being an assignment, in words."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        yield f"the name {name!r}: small letters, digits and _ only, a letter first"
    yield from _front_matter(source.metadata.get("homework"), place)
    seen: dict[str, int] = {}
    waiting = ""  # the answer cell that still has no test
    answer = ""
    for number, cell in enumerate(source.cells, 1):
        meta = cell.metadata.get("nbgrader", {})
        own = identity(cell)
        where = f"cell {number}" + (f" ({own})" if own else "")
        yield from (f"{where}: {problem}" for problem in _regions(cell))
        if meta:
            missing = {"grade", "solution", "locked", "grade_id"} - set(meta)
            if missing:
                yield f"{where}: its nbgrader metadata lack {', '.join(sorted(missing))}"
                continue
            if meta.get("schema_version") != 3:
                yield f"{where}: schema_version must be 3"
            if not re.fullmatch(r"[A-Za-z0-9-]+", own):
                yield f"{where}: a grade_id has letters, digits and hyphens only"
            if own in seen:
                yield f"{where}: cell {seen[own]} has the same grade_id"
            seen[own] = number
        grade, solution = bool(meta.get("grade")), bool(meta.get("solution"))
        if grade and not isinstance(meta.get("points"), int | float):
            yield f"{where}: points are missing"
            continue
        yield from (f"{where}: {problem}" for problem in _marker(cell, grade, solution, own))
        if solution and not grade:
            if waiting:
                yield f"cell {seen[waiting]} ({waiting}): no test cell before the next answer"
            waiting = answer = own
        elif grade and not solution:
            if not answer:
                yield f"{where}: no answer cell above it"
            waiting = ""
            yield from (f"{where}: {problem}" for problem in _test_cell(cell.source, own))
    if waiting:
        yield f"cell {seen[waiting]} ({waiting}): no test cell after it"
    yield from _setup(source, place)


def _front_matter(about: Any, place: Place) -> Iterator[str]:
    if not isinstance(about, dict):
        yield "the front matter has no block `homework:` (title, part, minutes, chapters, ...)"
        return
    kinds = {"title": str, "part": str, "minutes": int, "chapters": list, "objectives": list}
    for key, kind in kinds.items():
        if not isinstance(about.get(key), kind) or not about[key]:
            yield f"homework.{key} is missing, or is not of type {kind.__name__}"
            return
    for page in about["chapters"]:
        if place.pages and page not in place.pages:
            yield f"homework.chapters: the book has no page {page!r}"
    for key, value in about.items():
        if key.endswith("_limit") and not (isinstance(value, int | float) and value > 0):
            yield f"homework.{key} must be a positive number, got {value!r}"


def _regions(cell: NotebookNode) -> Iterator[str]:
    """What is wrong with the lines `### BEGIN ...` and `### END ...` of a cell."""
    inside = ""
    meta = cell.metadata.get("nbgrader", {})
    for line in cell.source.split("\n"):
        found = re.search(rf"(BEGIN|END) ({'|'.join(REGIONS)})", line)
        if not found:
            continue
        if line.strip() != f"### {found[0]}":
            yield f"{line.strip()!r} must be a line of its own, `### {found[0]}`"
        if found[1] == "BEGIN" and inside:
            yield f"BEGIN {found[2]} inside a region {inside}"
        if found[1] == "END" and inside != found[2]:
            yield f"END {found[2]} without its BEGIN"
        inside = found[2] if found[1] == "BEGIN" else ""
        if found[2] == "SOLUTION" and not meta.get("solution"):
            yield "a solution in a cell that is not an answer cell"
        if found[2] == "HIDDEN TESTS" and (not meta.get("grade") or meta.get("solution")):
            yield "hidden tests in a cell that is not a test cell"
        if found[2] == "MARK SCHEME" and not (meta.get("solution") and meta.get("grade")):
            yield "a mark scheme in a cell that is not a written answer"
    if inside:
        yield f"BEGIN {inside} without its END"


def _marker(cell: NotebookNode, grade: bool, solution: bool, own: str) -> Iterator[str]:
    """What is wrong with the first line of an answer or a test."""
    first = cell.source.split("\n")[0]
    if not (grade or solution):
        if any(marker.fullmatch(first) for marker in (ANSWER, TEST, WRITTEN)):
            yield f"{first!r} in a cell without nbgrader's metadata"
        return
    points = cell.metadata.nbgrader.get("points")
    if grade and solution:
        kind, marker, wanted = (
            "markdown",
            WRITTEN,
            "**Question {}: your answer** ({} points, marked by hand)",
        )
    elif grade:
        kind, marker, wanted = "code", TEST, "# Check of question {} ({} points)"
    else:
        kind, marker, wanted = "code", ANSWER, "# Question {}: your answer"
    question = own if grade else own.removeprefix("answer-")
    wanted = wanted.format(question, f"{points:g}" if grade else "")
    found = marker.fullmatch(first)
    if not grade and not own.startswith("answer-"):
        yield f"the grade_id of an answer cell is answer-QUESTION, not {own!r}"
    if cell.cell_type != kind:
        yield f"must be a {kind} cell"
    if not found:
        yield f"the first line must be {wanted!r}, not {first!r}"
    elif found[1] != question:
        yield f"the first line speaks of question {found[1]!r}, the metadata of {question!r}"
    elif grade and float(found[2]) != points:
        yield f"the first line says {found[2]} points, the metadata say {points:g}"
    if solution and "### BEGIN SOLUTION" not in cell.source:
        yield "has no lines `### BEGIN SOLUTION` and `### END SOLUTION`"


def _test_cell(source: str, own: str) -> Iterator[str]:
    """What is wrong with the code of a test cell."""
    lines = source.split("\n")
    begins = [n for n, line in enumerate(lines, 1) if line.strip() == "### BEGIN HIDDEN TESTS"]
    ends = [n for n, line in enumerate(lines, 1) if line.strip() == "### END HIDDEN TESTS"]
    hidden = [range(a + 1, b) for a, b in zip(begins, ends, strict=False)]
    try:
        blocks = [node for node in ast.parse(source).body if isinstance(node, ast.With)]
        visible = [x for n, x in enumerate(lines, 1) if not any(n in region for region in hidden)]
        ast.parse("\n".join(visible))
    except SyntaxError as e:
        yield f"is not Python, with or without its hidden tests ({e.msg}, line {e.lineno})"
        return
    calls = [ast.unparse(node.items[0].context_expr) for node in blocks]
    if calls != [f"check({own!r})"]:
        yield f'must have exactly one block `with check("{own}") as ask:`, not {calls}'
        return
    inside = range(blocks[0].lineno + 1, (blocks[0].end_lineno or 0) + 1)
    for number in (n for region in hidden for n in region if lines[n - 1].strip()):
        comment = lines[number - 1].lstrip().startswith("#")
        if number not in inside and not comment:
            yield f"the hidden line {number} is outside of `with check`, where it would not count"
            return


def _setup(source: NotebookNode, place: Place) -> Iterator[str]:
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    if not code or identity(code[0]) != "setup":
        yield "the first code cell must be the set-up cell, with the grade_id `setup`"
        return
    meta, text = code[0].metadata.nbgrader, code[0].source
    if not meta.get("locked") or meta.get("grade") or meta.get("solution"):
        yield "cell setup: must be locked, and neither grade nor solution"
    if "check = checker(globals())" not in text:
        yield "cell setup: must have the line `check = checker(globals())`"
    install = SETUP.format(url=place.url, branch=place.branch)
    if place.url and not text.strip().startswith(install):
        yield (
            "cell setup: must begin as every chapter does; print it with\n"
            "    python -m tools.address setup-cell"
        )
