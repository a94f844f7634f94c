"""The public names of the package, and what a name in a chapter means; nothing is imported.

The list of public modules is in `book/api.md`, in groups, for the reader. A module's public names
are its `__all__` or, without one, the functions, the classes and the constants in capitals that it
defines itself (and no underscore before them). The names of types in annotations are no part of it:
the reference writes the shapes they stand for. An experiment is a module to run and no library: it
has an entry, its names have none.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tools.source import ROOT

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
STUDIES = "companion.experiments"
LISTED = re.compile(r"^```\{modules\}\n(.*?)^```", re.DOTALL | re.MULTILINE)
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTIONS = re.compile(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^(`{3,}|:{3,}).*$|^\$\$.*?\$\$", re.DOTALL | re.MULTILINE)
LITERAL = re.compile(r"(?<![`\w}])`([^`\n]+)`(?!`)")
NAME = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(\(.*\))?")


@dataclass(frozen=True)
class Module:
    """A module of the package: its dotted name, its text and its syntax tree."""

    name: str
    path: Path
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @cached_property
    def defined(self) -> dict[str, Definition]:
        """Name -> statement, of what stands at the top of the module."""
        found: dict[str, Definition] = {}
        for statement in self.tree.body:
            if isinstance(statement, (*FUNCTION, ast.ClassDef)):
                found.setdefault(statement.name, statement)
            elif isinstance(statement, ast.Assign):
                for target in statement.targets:
                    for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                        if isinstance(part, ast.Name):
                            found.setdefault(part.id, statement)
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found.setdefault(statement.target.id, statement)
        return found

    @cached_property
    def imported(self) -> dict[str, str]:
        """What its imports of the package call a name -> the dotted name."""
        return imports(self.tree.body)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its public names, in the order of the source; passed-on ones at the end."""
        listed = self.defined.get("__all__")
        if isinstance(listed, ast.Assign):
            names = ast.literal_eval(listed.value)
        else:
            names = [name for name, node in self.defined.items() if self._is_public(name, node)]
        order = {name: place for place, name in enumerate(self.defined)}
        return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))

    @staticmethod
    def _is_public(name: str, node: Definition) -> bool:
        capital = name.isupper() and len(name) > 1  # T = TypeVar("T") is no constant
        return not name.startswith("_") and (isinstance(node, (*FUNCTION, ast.ClassDef)) or capital)


def imports(statements: Iterable[ast.AST]) -> dict[str, str]:
    """Local name -> dotted name, for everything that statements import from the package."""
    found = {}
    for node in statements:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "companion":
                    found[alias.asname or "companion"] = alias.name if alias.asname else "companion"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "companion":
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


class Package:
    """Every module of the package by its name, and which of them are public."""

    def __init__(self, root: Path = ROOT) -> None:
        self.modules: dict[str, Module] = {}
        self._entries: dict[str, str | None] = {}
        self._chapters: dict[str, Chapter] = {}
        for path in sorted((root / "companion").rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            text = path.read_text("utf8")
            self.modules[name] = Module(name, path, text, ast.parse(text))
        listed = LISTED.findall((root / "book" / "api.md").read_text("utf8"))
        self.public = {
            f"companion.{name}": self.modules[f"companion.{name}"]
            for group in listed
            for name in group.split()
        }

    def chapter(self, text: str) -> "Chapter":
        """A chapter by its text, read once: its page and the reference both ask."""
        if text not in self._chapters:
            self._chapters[text] = Chapter(text, self)
        return self._chapters[text]

    @cached_property
    def studies(self) -> dict[str, Module]:
        """The experiments that can be run by name: those that say what they are."""
        return {
            name: module
            for name, module in self.modules.items()
            if name.startswith(f"{STUDIES}.")
            and "._" not in name
            and {"NAME", "SUMMARY", "PAPER"} <= module.defined.keys()
        }

    def definition(self, dotted: str) -> tuple[Module, Definition] | None:
        """Where a name is defined, through any number of imports."""
        home, _, name = dotted.rpartition(".")
        module = self.modules.get(home)
        if module is None:
            return None
        if name in module.defined:
            return module, module.defined[name]
        return self.definition(module.imported[name]) if name in module.imported else None

    @cached_property
    def places(self) -> dict[tuple[str, str], str]:
        """(module of the definition, name there) -> the dotted name with the entry.

        A name has one entry: in the module that defines it if that is public, otherwise in the
        first that passes it on.
        """
        found: dict[tuple[str, str], str] = {}
        for module in self.public.values():
            for name in module.names:
                if there := self.definition(f"{module.name}.{name}"):
                    key = (there[0].name, self.own_name(there, name))
                    if key not in found or there[0] is module:
                        found[key] = f"{module.name}.{name}"
        return found

    @staticmethod
    def own_name(there: tuple[Module, Definition], name: str) -> str:
        """The name at its definition: an import may have changed it."""
        return there[1].name if isinstance(there[1], (*FUNCTION, ast.ClassDef)) else name

    def entry(self, dotted: str) -> str | None:
        """The entry of a module, a name or a method, whatever path a chapter takes to it."""
        if dotted not in self._entries:
            self._entries[dotted] = self._entry(dotted)
        return self._entries[dotted]

    def _entry(self, dotted: str) -> str | None:
        if dotted in self.public or dotted in self.studies:
            return dotted
        home, _, name = dotted.rpartition(".")
        if there := self.definition(dotted):
            return self.places.get((there[0].name, self.own_name(there, name)))
        owner = self.definition(home)
        if owner and isinstance(owner[1], ast.ClassDef):
            for module, base in self.family(*owner):
                place = self.entry(f"{module.name}.{base.name}")
                if place and name in self.methods(module, base):
                    return f"{place}.{name}"
        return None

    def family(self, module: Module, node: ast.ClassDef) -> list[tuple[Module, ast.ClassDef]]:
        """A class and the classes of the package that it is based on, nearest first."""
        found = [(module, node)]
        for base in node.bases:
            name = ast.unparse(base).split("[")[0]
            head, _, rest = name.partition(".")
            dotted = module.imported.get(head, f"{module.name}.{head}")
            there = self.definition(f"{dotted}.{rest}" if rest else dotted)
            if there and isinstance(there[1], ast.ClassDef):
                found += self.family(there[0], there[1])
        return found

    def methods(self, module: Module, node: ast.ClassDef) -> dict[str, tuple[Module, Function]]:
        """The public methods of a class: its own, and those of bases that are not public."""
        found: dict[str, tuple[Module, Function]] = {}
        for home, base in self.family(module, node):
            if base is not node and (home.name, base.name) in self.places:
                continue
            for part in base.body:
                called = isinstance(part, FUNCTION) and part.name == "__call__"
                if isinstance(part, FUNCTION) and (
                    not part.name.startswith("_") or (called and ast.get_docstring(part))
                ):
                    found.setdefault(part.name, (home, part))
        return found

    @cached_property
    def unique(self) -> dict[str, str]:
        """Bare name -> entry, for names that only one entry has and that are no plain word."""
        every: dict[str, set[str]] = {}
        for entry in self.places.values():
            every.setdefault(entry.rpartition(".")[2], set()).add(entry)
        return {
            name: entries.pop()
            for name, entries in every.items()
            if len(entries) == 1 and ("_" in name or re.search(r"[a-z][A-Z]", name))
        }


@dataclass(frozen=True)
class Scope:
    """What names mean in a chapter or a module: its imports, and what it binds itself."""

    package: Package
    imported: dict[str, str]
    bound: frozenset[str] = frozenset()

    def meaning(self, text: str) -> str | None:
        """The entry that `text` in backticks names, or None where there could be another.

        `companion.x.y`; `x.y` of a public module; `y` if the code here imports it, or if no other
        entry has that name. Not if the code here gives the name a meaning of its own.
        """
        match = NAME.fullmatch(text.strip())
        if not match:
            return None
        head, _, rest = match[1].partition(".")
        if len(head) == 1 and not rest:  # a symbol
            return None
        tail = f".{rest}" if rest else ""
        if head in self.bound:
            return None
        if head in self.imported:
            return self.package.entry(self.imported[head] + tail)
        if rest and f"companion.{head}" in self.package.public:
            return self.package.entry(f"companion.{match[1]}")
        if head == "companion":
            return self.package.entry(match[1])
        if head in self.package.unique:
            return self.package.entry(self.package.unique[head] + tail)
        return None


class Chapter:
    """The code and the inline literals of a chapter, and what they use of the package."""

    def __init__(self, text: str, package: Package) -> None:
        cells = [OPTIONS.sub("", cell) for cell in CELL.findall(text)]
        code = re.sub(r"^(\s*)%.*$", r"\1pass", "\n".join(cells), flags=re.MULTILINE)
        self.nodes = list(ast.walk(ast.parse(code)))
        self.prose = FENCED.sub("", CELL.sub("", text))
        bound = {
            n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        for node in self.nodes:
            if isinstance(node, (*FUNCTION, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
        self.scope = Scope(package, imports(self.nodes), frozenset(bound))

    def uses(self) -> set[str]:
        """The entries that the chapter calls in its code or names in its text."""
        imported, package = self.scope.imported, self.scope.package
        named = set(imported.values())
        for node in self.nodes:
            chain: list[str] = []
            while isinstance(node, ast.Attribute):
                chain.insert(0, node.attr)
                node = node.value
            if chain and isinstance(node, ast.Name) and node.id in imported:
                named.add(".".join([imported[node.id], *chain]))
        entries = {package.entry(dotted) for dotted in named}
        entries |= {self.scope.meaning(text) for text in set(LITERAL.findall(self.prose))}
        return {entry for entry in entries if entry}


@cache
def package() -> Package:
    return Package()
