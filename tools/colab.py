"""From the MyST Markdown of a chapter to Markdown that Colab, Jupyter and GitHub all show.

Plain Markdown passes through untouched. Directives, roles, labels and targets are rewritten, with
the numbers that the web page has: `tests/test_book_pages.py` compares the two. What is not known
here is an error that names the file, the line and what to write, so no raw directive reaches a
reader on Colab.

The rewriting works on the text and not on Sphinx's document tree: it needs no build, so a stale
notebook is found in a second, and what the author wrote is what Colab shows.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tools import citations
from tools.blocks import HEADING, MATH, TARGET, Block, display_math, escape, fold, parse
from tools.numbers import PROOFS, Numbers, Target
from tools.source import ROOT, SourceError

BOXES = {
    "note": "Note", "tip": "Tip", "hint": "Hint", "important": "Important", "warning": "Warning",
    "caution": "Caution", "attention": "Attention", "danger": "Danger", "error": "Error",
    "seealso": "See also",
}  # fmt: skip
# The words of each numbered kind, as the web page prints them.
WORDS = {"figure": "Figure", "table": "Table", "exercise": "Exercise", **PROOFS}
# In a line of text, tried in this order: what stands in `code` or in $mathematics$ is left alone.
INLINE = re.compile(
    r"\{(?P<role>[a-z][a-z:]*)\}`(?P<content>[^`]+)`"
    r"|(?P<code>(?P<ticks>`+).*?(?P=ticks))"
    r"|(?P<math>\$(?!\$)(?:\\.|[^$\\])+\$)"
    r"|!\[(?P<alt>[^\]]*)\]\((?P<file>[^)\s]+)\)"
    r"|\[(?P<text>[^\]]*)\]\((?!https?:|mailto:)(?P<page>[^)\s]+)\)",
    re.DOTALL,
)
# MyST that Colab would show raw, and what to do about it.
LEFTOVERS = (
    (r"\{[a-z:]+\}`", "a role without its closing backtick"),
    (r"\[\^", "a footnote: Colab shows it raw; say it in the text or in a {dropdown}"),
    (r"\$\$", "a formula between $$ must stand alone, from the start of a line to the end of one"),
)


@dataclass
class Cell:
    """A cell of the finished notebook; `code` is the index of the chapter's code cell."""

    text: str = ""
    code: int | None = None
    folded: bool = False


class Book(Numbers):
    """Every page as a list of notebook cells."""

    def __init__(self, root: Path = ROOT) -> None:
        super().__init__(root)
        self.cited: list[str] = []
        self.bibliography = citations.load(root / "book" / "references.bib")

    # -- cells -------------------------------------------------------------------------------

    def notebook_cells(self, page: str) -> list[Cell]:
        """The cells of notebooks/<page>.ipynb, in order."""
        self.cited = []
        cells = self._located(page, self._cells, page)
        if self.cited:
            cells.append(Cell("## References\n\n" + self.bibliography.listing(self.cited)))
        return cells

    def _cells(self, page: str) -> list[Cell]:
        notebook = self.cells[page]
        cells: list[Cell] = []
        self._code = 0
        after_solution = False
        for cell, first in zip(notebook.cells, notebook.metadata.source_map, strict=True):
            if cell.cell_type == "markdown":
                for part in self._markdown(page, parse(cell.source.split("\n"), first + 1)):
                    if part.text == "solution-end":
                        after_solution = True
                        continue
                    if after_solution and not part.text.startswith("#"):
                        raise SourceError(
                            f"line {first + 1}: after {{solution-end}} comes text that Colab would "
                            "fold into the solution; begin it with a heading or an exercise"
                        )
                    after_solution = False
                    cells.append(part)
                continue
            cells.append(Cell(code=self._code))
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            if "caption" in figure:
                number = self.figures[page, self._code]
                caption = self._inline(page, figure["caption"].strip(), first)
                cells.append(Cell(f"**Figure {number}.** {caption}"))
            self._code += 1
        return cells

    def _markdown(self, page: str, blocks: list[Block]) -> list[Cell]:
        """Cells of one Markdown cell, cut before every heading so that Colab can fold sections."""
        cells: list[Cell] = []
        lines: list[str] = []

        def flush() -> None:
            text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
            if text:
                cells.append(Cell(text))
            lines.clear()

        for block in blocks:
            if block.kind == "directive" and block.name == "solution-start":
                flush()
                cells.append(Cell(f"##### {self._solution(block)}", folded=True))
                continue
            if block.kind == "directive" and block.name == "solution-end":
                flush()
                cells.append(Cell("solution-end"))
                continue
            rendered = self._block(page, block)
            heading = block.kind == "text" or block.name.startswith("exercise")
            for line in rendered:
                if heading and HEADING.match(line):
                    flush()
                lines.append(line)
        flush()
        return cells

    # -- blocks ------------------------------------------------------------------------------

    def _body(self, page: str, block: Block, flat: bool = False) -> list[str]:
        lines: list[str] = []
        for inner in parse(block.lines, block.line):
            lines += self._block(page, inner, flat)
        while lines and not lines[0].strip():
            lines.pop(0)
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    def _block(self, page: str, block: Block, flat: bool = False) -> list[str]:
        """`flat`: inside a quotation, where a formula must stay on one line."""
        if block.kind == "verbatim":
            return block.lines
        if block.kind == "text":
            return self._text(page, block, flat)
        lines = self._directive(page, block, flat)
        return ["", *(block.indent + line if line else "" for line in lines), ""]

    def _directive(self, page: str, block: Block, flat: bool) -> list[str]:
        name, argument = block.name, self._inline(page, block.argument, block.line)
        kind = name.removeprefix("prf:")
        if name == "prf:proof":
            body = self._body(page, block, flat)
            if block.folded:
                return fold("Proof", body)
            return [f"**Proof.** {body[0]}", *body[1:]] if body else []
        if name.startswith("prf:") and kind in PROOFS:
            number = self._captions.get((page, block.line), "")
            title = f"**{PROOFS[kind]} {number}**".replace(" **", "**")
            return self._box(page, block, f"{title} ({argument})" if argument else title)
        if name == "admonition":
            return self._box(page, block, f"**{argument}**")
        if name in BOXES:
            return self._box(page, block, f"**{BOXES[name]}**")
        if name in ("dropdown", "toggle"):
            return fold(argument or "Show", self._body(page, block, flat))
        if name in ("exercise", "exercise-start"):
            title = f"#### Exercise {self._captions.get((page, block.line), '')}".rstrip()
            return [f"{title}: {argument}" if argument else title, "", *self._body(page, block)]
        if name == "exercise-end":
            return []
        if name == "solution":
            if not block.folded:
                raise SourceError(f"line {block.line}: fold the solution with :class: dropdown")
            return fold(self._solution(block), self._body(page, block, flat))
        if name == "figure":
            return self._figure(page, block, argument)
        if name == "table":
            number = self._captions.get((page, block.line), "")
            return [f"**Table {number}.** {argument}", "", *self._body(page, block, flat)]
        if name == "math":
            number = self._captions.get((page, block.line), "")
            return display_math("\n".join(block.lines), number, block.line, flat)
        if name == "code-block":
            return [f"```{block.argument}", *block.lines, "```"]
        if name == "bibliography":
            return []
        raise SourceError(
            f"line {block.line}: no rule turns {{{name}}} into Markdown for Colab; use another "
            "directive or teach tools/colab.py this one"
        )

    def _box(self, page: str, block: Block, title: str) -> list[str]:
        if block.folded:
            return fold(title.strip("*"), self._body(page, block))
        body = self._body(page, block, flat=True)
        return [f"> {title}", ">", *(f"> {line}".rstrip() for line in body)]

    def _solution(self, block: Block) -> str:
        target = self.targets.get(block.argument)
        if target is None or target.kind != "exercise":
            raise SourceError(f"line {block.line}: solution of unknown exercise {block.argument!r}")
        return f"Solution to Exercise {target.number}"

    def _figure(self, page: str, block: Block, argument: str) -> list[str]:
        alt = block.options.get("alt")
        if not alt:
            raise SourceError(f"line {block.line}: the figure needs :alt: (what is there)")
        width = f' width="{block.options["width"]}"' if "width" in block.options else ""
        lines = [f'<img src="{self._file(argument, block.line)}" alt="{escape(alt)}"{width}>']
        caption = self._body(page, block)
        if caption:
            number = self._captions[page, block.line]
            lines += ["", f"**Figure {number}.** {caption[0]}", *caption[1:]]
        return lines

    def _file(self, path: str, line: int) -> str:
        if path.startswith(("http:", "https:")):
            raise SourceError(f"line {line}: {path}: keep pictures in book/_static")
        if not (self.root / "book" / path).is_file():
            raise SourceError(f"line {line}: there is no file book/{path}")
        return f"{self.where.raw}/book/{path}"

    # -- text --------------------------------------------------------------------------------

    def _text(self, page: str, block: Block, flat: bool) -> list[str]:
        kept = [
            line for line in block.lines if not TARGET.match(line) and not line.startswith("% ")
        ]
        text = "\n".join(kept)
        pieces: list[str] = []
        position = 0
        for match in MATH.finditer(text):
            pieces.append(self._inline(page, text[position : match.start()], block.line))
            number = self.targets[match[3]].number if match[3] else ""
            math = display_math(match[2], number, block.line, flat)
            pieces.append("\n".join(match[1] + line for line in math))
            position = match.end()
        pieces.append(self._inline(page, text[position:], block.line))
        return "".join(pieces).split("\n")

    def _inline(self, page: str, text: str, line: int) -> str:
        bare = INLINE.sub("", text)
        for pattern, advice in LEFTOVERS:
            if re.search(pattern, bare):
                raise SourceError(f"from line {line}: {advice}")

        def rewrite(match: re.Match) -> str:
            if match["role"]:
                return self._role(page, match["role"], match["content"], line)
            if match["file"]:
                return self._image(match["alt"], match["file"], line)
            if match["page"]:
                return self._link(match["text"], match["page"], line)
            if match["math"]:  # in a quotation, the ">" of a second line would join the formula
                return match[0].replace("\n", " ")
            return match[0]

        return INLINE.sub(rewrite, text)

    def _image(self, alt: str, path: str, line: int) -> str:
        if not alt:
            raise SourceError(f"from line {line}: the image {path} needs alt text")
        return f"![{alt}]({self._file(path, line)})"

    def _link(self, text: str, path: str, line: int) -> str:
        page = path.removesuffix(".md")
        if not text or page not in self.chapters:
            raise SourceError(
                f"from line {line}: link [{text}]({path}): write [text](page.md) with a page of "
                "_toc.yml, or {doc}`page`, or {ref}`label`"
            )
        return f"[{text}]({self.where.site}/{page}.html)"

    def _role(self, page: str, role: str, content: str, line: int) -> str:
        if role == "math":
            return f"${content}$"
        if role in ("cite", "cite:p", "cite:t"):
            keys = [key.strip() for key in content.split(",")]
            for key in keys:
                if key not in self.bibliography:
                    raise SourceError(f"from line {line}: {key!r} is not in references.bib")
                if key not in self.cited:
                    self.cited.append(key)
            return self.bibliography.cite(keys, textual=role == "cite:t")
        named = re.fullmatch(r"(.*?)\s*<([^>]+)>", content, re.DOTALL)
        text, label = (named[1], named[2]) if named else ("", content)
        if role == "doc":
            if label not in self.titles:
                raise SourceError(f"from line {line}: no page {label!r} in _toc.yml")
            return f"[{text or self.titles[label]}]({self.where.site}/{label}.html)"
        if role not in ("eq", "ref", "numref", "prf:ref"):
            raise SourceError(
                f"from line {line}: no rule turns the role {{{role}}} into Markdown for Colab"
            )
        target = self.targets.get(label)
        if target is None:
            raise SourceError(f"from line {line}: nothing is labelled {label!r}")
        fits = {
            "eq": ("equation",),
            "numref": ("figure", "table", "exercise"),
            "prf:ref": tuple(PROOFS),
            "ref": ("section", "exercise"),
        }[role]
        if target.kind not in fits:
            raise SourceError(
                f"from line {line}: {{{role}}} cannot point at the {target.kind} {label!r}; "
                "use {eq} for equations, {prf:ref} for theorems and their kin, {numref} for "
                "figures and tables, {ref} for sections and exercises"
            )
        if target.kind == "equation":
            text, anchor = f"({target.number})", f"equation-{label}"
        else:
            number = f"{WORDS.get(target.kind, '')} {target.number}".strip()
            text, anchor = text or number or target.title, label
        return text if target.page == page else f"[{text}]({self._site(target, anchor)})"

    def _site(self, target: Target, anchor: str) -> str:
        return f"{self.where.site}/{target.page}.html#{anchor}"
