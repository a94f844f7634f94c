"""Numbers, counted as Sphinx counts them: per kind, per chapter, in reading order."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tools import source
from tools.blocks import HEADING, MATH, TARGET, Block, parse
from tools.source import ROOT, SourceError

PROOFS = {
    kind: kind.capitalize()
    for kind in (
        *("algorithm", "assumption", "axiom", "conjecture", "corollary", "criterion", "definition"),
        *("example", "lemma", "notation", "observation", "property", "proposition", "remark"),
        "theorem",
    )
}
LABEL = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Target:
    """Something a reader can be sent to."""

    page: str
    kind: str
    number: str
    title: str = ""


class Numbers:
    """All pages of the book and the number of every equation, theorem, figure, exercise in it."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.where = source.address(root)
        self.chapters = source.pages(root)
        self.cells = {
            page: source.read_cells(source.chapter_path(page, root).read_text("utf8"))
            for page in self.chapters
        }
        self.titles: dict[str, str] = {}
        self.targets: dict[str, Target] = {}
        self.figures: dict[tuple[str, int], str] = {}  # (page, code cell) -> figure number
        self._captions: dict[tuple[str, int], str] = {}  # (page, line) -> number without a label
        self._counts: dict[tuple[str, int | None], int] = defaultdict(int)
        for page in self.chapters:
            self._located(page, self._number_page, page)

    def _located(self, page: str, call, *arguments):
        try:
            return call(*arguments)
        except SourceError as error:
            raise SourceError(f"book/{page}.md, {error}") from None

    # -- numbers -----------------------------------------------------------------------------

    def _next(self, page: str, kind: str) -> str:
        chapter = self.chapters[page]
        self._counts[kind, chapter] += 1
        number = self._counts[kind, chapter]
        return str(number) if chapter is None else f"{chapter}.{number}"

    def _register(self, page: str, label: str, line: int, kind: str, number="", title="") -> None:
        if not LABEL.fullmatch(label):
            raise SourceError(
                f"line {line}: label {label!r}: use small letters, digits and single hyphens, "
                "so that its address on the web page is the label itself"
            )
        if label in self.targets:
            raise SourceError(
                f"line {line}: label {label!r} is taken in book/{self.targets[label].page}.md"
            )
        self.targets[label] = Target(page, kind, number, title)

    def _number_page(self, page: str) -> None:
        notebook = self.cells[page]
        code = 0
        for cell, first in zip(notebook.cells, notebook.metadata.source_map, strict=True):
            if cell.cell_type == "markdown":
                self._number(page, parse(cell.source.split("\n"), first + 1))
            else:
                figure = cell.metadata.get("mystnb", {}).get("figure", {})
                if "caption" in figure:
                    number = self._next(page, "figure")
                    self.figures[page, code] = number
                    if "name" in figure:
                        self._register(page, figure["name"], first, "figure", number)
                code += 1
        if page not in self.titles:
            raise SourceError("line 1: the page has no title (a line that begins with '# ')")

    def _number(self, page: str, blocks: list[Block]) -> None:
        for block in blocks:
            if block.kind == "text":
                self._number_text(page, block)
            elif block.kind == "directive":
                self._number_directive(page, block)

    def _number_text(self, page: str, block: Block) -> None:
        pending = ""
        for line in block.lines:
            if match := TARGET.match(line):
                pending = match[1]
            elif match := HEADING.match(line):
                if len(match[1]) == 1:
                    self.titles.setdefault(page, match[2])
                if pending:
                    self._register(page, pending, block.line, "section", title=match[2])
                    pending = ""
        for match in MATH.finditer("\n".join(block.lines)):
            if match[3]:
                number = self._next(page, "equation")
                self._register(page, match[3], block.line, "equation", number)

    def _number_directive(self, page: str, block: Block) -> None:
        name = block.name.removeprefix("prf:").removesuffix("-start")
        kind = None
        if block.name.startswith("prf:") and name in PROOFS and "nonumber" not in block.options:
            kind = name
        elif name == "exercise" and "nonumber" not in block.options:
            kind = "exercise"
        elif (name == "figure" and any(line.strip() for line in block.lines)) or (
            name == "table" and block.argument
        ):
            kind = name
        elif name == "math" and block.label:
            kind = "equation"
        if kind:
            number = self._next(page, kind)
            self._captions[page, block.line] = number
            if block.label:
                self._register(page, block.label, block.line, kind, number, block.argument)
        if name not in ("math", "code-block", "bibliography"):
            self._number(page, parse(block.lines, block.line))
