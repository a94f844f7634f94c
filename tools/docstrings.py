"""Docstrings and annotations of the package as MyST Markdown, for the pages of its reference.

A docstring is a text with `$...$` and lists (`Args:`, `Returns:`, `Raises:`). An annotation is read
for its shape: `Float[Tensor, "*batch two_d"]` is written `(..., 2d)`, and a name that a module
gives to a type is written as what it stands for.
"""

import ast
import copy
import inspect
import re

from tools.api import Module, Package

Entries = list[tuple[str, str]]
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):\s*$")
ENTRY = re.compile(r"^(\*{0,2}[A-Za-z_][\w.*]*(?:, \*{0,2}[A-Za-z_][\w.*]*)*)(?: \(.*?\))?: +(.*)$")
DISPLAY = re.compile(r"^ *\.\. math::\s*((?:.+\n?)+)", re.MULTILINE)
INLINE = re.compile(r"(?<![$\\])\$(?!\$)[^$]+\$(?!\$)")
ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
KINDS = {
    "Float": "", "Shaped": "", "Real": "", "Num": "", "Complex": "complex ", "Int": "integer ",
    "Bool": "boolean ", "Inexact": "real or complex ",
}  # fmt: skip
BATCH = {"*batch", "*shape", "*result", "..."}
SHAPES = re.compile(r"#\s*(\([^#:]*?\))(?:,? (?:real|checked|as)\b|[:.]|$)")


def markdown(doc: str) -> str:
    """A docstring as MyST: roles of reStructuredText replaced, examples fenced."""
    doc = re.sub(r":math:`([^`]+)`", r"$\1$", doc)
    doc = DISPLAY.sub(lambda match: f"$$\n{match[1].strip()}\n$$\n", doc)
    # A line of a formula that begins with a minus would be a list.
    doc = INLINE.sub(lambda match: " ".join(match[0].split()), doc)
    doc = ROLE.sub(r"`\1`", doc)
    doc = re.sub(r"::$", ":", doc, flags=re.MULTILINE)
    lines: list[str] = []
    prompt = False
    for line in doc.splitlines():
        if line.lstrip().startswith(">>>") and not prompt:
            lines += ["```python"]
            prompt = True
        elif prompt and not line.strip():
            lines += ["```"]
            prompt = False
        lines.append(line.strip() if prompt else line)
    return "\n".join([*lines, "```"] if prompt else lines)


def sections(doc: str) -> tuple[list[str], dict[str, Entries]]:
    """A docstring as its text and its lists: {"Args": [(name, text), ...], ...}."""
    text: list[str] = []
    lists: dict[str, Entries] = {}
    lines = markdown(doc).splitlines()
    while lines:
        line = lines.pop(0)
        match = SECTION.match(line)
        if not match:
            text.append(line)
            continue
        body: list[str] = []
        while lines and (not lines[0].strip() or lines[0].startswith(" ")):
            body.append(lines.pop(0))
        found = lists.setdefault(match[1], [])
        plain = match[1] in ("Returns", "Yields")  # a sentence, not a list of names
        for part in inspect.cleandoc("\n" + "\n".join(body)).splitlines():
            entry = None if plain else ENTRY.match(part)
            if entry:
                found.append((entry[1], entry[2]))
            elif found:
                name, before = found.pop()
                found.append((name, f"{before} {part.strip()}".strip()))
            else:
                found.append(("", part.strip()))
        text.append("")
    return text, lists


def shape(axes: str) -> str:
    """The axes of an annotation as one writes them: "*batch two_d" is (..., 2d)."""
    written = []
    for axis in axes.split():
        axis = axis.replace("#", "")
        if axis in BATCH:
            axis = "..."
        elif axis.startswith("*"):
            axis = f"[{axis[1:]}]"
        written.append(re.sub(r"^two_", "2", axis))
    return f"({', '.join(written)}{',' if len(written) == 1 and written != ['...'] else ''})"


class Types(ast.NodeTransformer):
    """Writes the annotations of a module with shapes, and type names as what they stand for."""

    def __init__(self, package: Package, module: Module) -> None:
        self.package = package
        self.module = module

    def written(self, annotation: ast.expr | None) -> str:
        """An annotation in words and shapes; "" for none."""
        if annotation is None:
            return ""
        node = self.visit(copy.deepcopy(annotation))
        return ast.unparse(node).replace("'", "")

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str) and node.value.isidentifier():  # a forward reference
            return ast.Name(node.value)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        there = self.package.definition(f"{self.module.name}.{node.id}")
        if there is None or not isinstance(there[1], ast.Assign) or node.id.isupper():
            return node
        home, alias = there
        if said := SHAPES.match(comment(home, alias)):
            return ast.Name(re.sub(r"(\d) (?=[A-Za-z])", r"\1", said[1]))
        if isinstance(alias.value, ast.Call):  # T = TypeVar("T")
            return node
        return Types(self.package, home).visit(copy.deepcopy(alias.value))

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        name = ast.unparse(node.value)
        if name in KINDS and isinstance(node.slice, ast.Tuple):
            axes = ast.literal_eval(node.slice.elts[1])
            return ast.Name("Tensor" if axes.strip() == "..." else f"{KINDS[name]}{shape(axes)}")
        if name == "Literal":
            return node
        return self.generic_visit(node)  # type: ignore[return-value]


def comment(module: Module, node: ast.stmt) -> str:
    """The comment at the end of a statement: there the name of a type says its shapes."""
    line = module.text.splitlines()[(node.end_lineno or node.lineno) - 1]
    rest = line.encode()[node.end_col_offset or 0 :].decode().strip()
    return rest if rest.startswith("#") else ""


def remark(module: Module, node: ast.stmt) -> str:
    """What is said of a constant: the string below it, or the comment above or behind it."""
    body, lines = module.tree.body, module.text.splitlines()
    after = body[body.index(node) + 1] if node in body[:-1] else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return markdown(inspect.cleandoc(str(after.value.value)))
    said = [comment(module, node).lstrip("# ")]
    for line in reversed(lines[: node.lineno - 1]):
        if not line.startswith("#"):
            break
        said.insert(0, line.lstrip("# "))
    return " ".join(said).strip()
