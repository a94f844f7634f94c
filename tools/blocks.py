"""MyST Markdown as blocks: text, code fences kept as they are, and directives."""

import re
from dataclasses import dataclass, field

from tools.source import SourceError

FENCE = re.compile(r"^( *)(`{3,}|:{3,}|~{3,})(.*)$")
DIRECTIVE = re.compile(r"^\{([\w:-]+)\}[ \t]*(.*)$")
MATH = re.compile(
    r"^([ \t]*)\$\$(.*?)\$\$(?:[ \t]*\(([^)\s]+)\))?[ \t]*$", re.DOTALL | re.MULTILINE
)
TARGET = re.compile(r"^\(([^)\s]+)\)=[ \t]*$")
HEADING = re.compile(r"^(#{1,6}) +(.*?)\s*$")


@dataclass
class Block:
    """A stretch of a Markdown cell: plain text, a code fence kept as it is, or a directive."""

    kind: str  # "text" | "verbatim" | "directive"
    lines: list[str]
    line: int
    name: str = ""
    argument: str = ""
    options: dict[str, str] = field(default_factory=dict)
    indent: str = ""

    @property
    def folded(self) -> bool:
        return "dropdown" in self.options.get("class", "").split()

    @property
    def label(self) -> str:
        return self.options.get("label") or self.options.get("name") or ""


def parse(lines: list[str], first: int) -> list[Block]:
    """Split lines into blocks; `first` is the number of the first line in the file."""
    blocks: list[Block] = []
    text: list[str] = []
    start = first
    i = 0
    while i < len(lines):
        match = FENCE.match(lines[i])
        if not match:
            text.append(lines[i])
            i += 1
            continue
        if text:
            blocks.append(Block("text", text, start))
            text = []
        indent, ticks, info = match.groups()
        if ticks[0] == "`" and "`" in info:
            raise SourceError(
                f"line {first + i}: a backtick in the title of a ``` block makes it plain text; "
                "open and close this block with ::: instead"
            )
        close = re.compile(rf"^ *{re.escape(ticks[0])}{{{len(ticks)},}}[ \t]*$")
        end = next((j for j in range(i + 1, len(lines)) if close.match(lines[j])), None)
        if end is None:
            raise SourceError(f"line {first + i}: the block {lines[i].strip()} is never closed")
        body = [
            line[len(indent) :] if line.startswith(indent) else line for line in lines[i + 1 : end]
        ]
        directive = DIRECTIVE.match(info.strip())
        if directive:
            options, skipped = _options(body)
            name, argument = directive.groups()
            blocks.append(
                Block("directive", body[skipped:], first + i + 1 + skipped, name, argument, options,
                      indent)
            )  # fmt: skip
        elif ticks[0] == ":":
            raise SourceError(f"line {first + i}: expected :::{{name}}, found {lines[i].strip()}")
        else:
            blocks.append(Block("verbatim", lines[i : end + 1], first + i))
        i = end + 1
        start = first + i
    if text:
        blocks.append(Block("text", text, start))
    return blocks


def _options(body: list[str]) -> tuple[dict[str, str], int]:
    """The `:key: value` lines at the top of a directive, and how many lines they take."""
    options = {}
    count = 0
    for line in body:
        match = re.match(r"^:([\w-]+):[ \t]*(.*)$", line)
        if not match:
            break
        options[match[1]] = match[2].strip()
        count += 1
    while count < len(body) and not body[count].strip():
        count += 1
    return options, count


def display_math(body: str, number: str, line: int, flat: bool) -> list[str]:
    """A displayed formula: `$$`, the formula, its number as a tag, `$$`."""
    lines = [text.strip() for text in body.strip().split("\n")]
    if any(re.search(r"(?<!\\)%", text) for text in lines):
        raise SourceError(f"from line {line}: a % in a formula hides the rest of the line")
    if any(not text for text in lines):
        raise SourceError(f"from line {line}: an empty line in a formula ends it")
    if re.search(r"\\begin\{(align|gather|equation|eqnarray)\*?\}", body):
        raise SourceError(
            f"from line {line}: write \\begin{{aligned}} or \\begin{{gathered}} in $$: the other "
            "environments number themselves, and differently on Colab"
        )
    if "\\\\" in body and "\\begin{" not in body:
        raise SourceError(f"from line {line}: put a formula of several rows into aligned")
    if number:
        lines.append(f"\\tag{{{number}}}")
    if flat:
        return [f"$$ {' '.join(lines)} $$"]
    return ["$$", *lines, "$$"]


def fold(title: str, body: list[str]) -> list[str]:
    """A block the reader opens; the empty lines make Markdown inside it work."""
    html = re.sub(r"`([^`]+)`", lambda match: f"<code>{escape(match[1])}</code>", title)
    return ["<details>", f"<summary><b>{html}</b></summary>", "", *body, "", "</details>"]


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
