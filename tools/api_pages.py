"""The pages of the reference as MyST Markdown, written from the syntax trees of the package.

Sphinx's autodoc reads reStructuredText and imports what it documents. The docstrings of `companion`
are Markdown with `$...$`, like the chapters, and their annotations say shapes that an import would
hide. Here nothing is imported, and a page is written for Sphinx's own Python domain, which gives
anchors, the index and the search.
"""

import ast
import copy
import re

import yaml

from tools.api import FUNCTION, STUDIES, Definition, Function, Module, Package
from tools.docstrings import Entries, Types, markdown, remark, sections
from tools.source import ROOT, address, chapter_path, has_code

Lines = list[str]
FOLDER = "api"
FEW = 3  # chapters are named by their titles, more of them by their numbers
UNSAID = re.compile(r"_|ABC$|Generic\b|Protocol\b|NamedTuple$|object$")
WORDS = r"(real or complex |complex |integer |boolean )?"
SHAPE = re.compile(WORDS + r"(\([^|()]*\))(?: or (\([^|()]*\)))?")


def page_of(name: str) -> str:
    """companion.systems.argon is on the page api/systems-argon; an experiment on that of all."""
    if name.startswith(f"{STUDIES}."):
        name = STUDIES
    return f"{FOLDER}/{name.removeprefix('companion.').replace('.', '-')}"


def kind(written: str) -> str:
    """A written type as code; a shape is code, the words around it are not."""
    if match := SHAPE.fullmatch(written):
        shapes = " or ".join(f"`{shape}`" for shape in match.groups()[1:] if shape)
        return f"{match[1] or ''}{shapes}"
    return f"`{written}`"


def chapter_numbers(toc: str) -> dict[str, str]:
    """Page -> number of the chapter ("" where the part has none), in reading order."""
    contents = yaml.safe_load(toc)
    found, count = {contents["root"]: ""}, 0
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            count += bool(part.get("numbered"))
            found[chapter["file"]] = str(count) if part.get("numbered") else ""
    return found


class Pages:
    """Writes every page; `toc` is the text of the table of contents."""

    def __init__(self, package: Package, toc: str) -> None:
        self.package = package
        self.numbers = chapter_numbers(toc)
        self.users: dict[str, list[str]] = {}
        for chapter in self.numbers:
            path = chapter_path(chapter)
            text = path.read_text("utf8") if path.exists() else ""
            if has_code(text):
                for entry in package.chapter(text).uses():
                    self.users.setdefault(entry, []).append(chapter)

    def all(self) -> dict[str, str]:
        """Page -> its text."""
        return {page_of(name): self.page(module) for name, module in self.package.public.items()}

    def page(self, module: Module) -> str:
        lines = [f"# {module.name}", "", *self.head(module)]
        lines += self.described(module, ast.get_docstring(module.tree) or "", [])
        passed_on: Lines = []
        for name in module.names:
            dotted = f"{module.name}.{name}"
            there = self.package.definition(dotted)
            place = self.package.entry(dotted)
            if there is None or place != dotted:
                passed_on.append(f"- `{place or dotted}`")
            else:
                lines += self.entry(dotted, name, *there)
        if passed_on:
            lines += ["Names that have their place elsewhere:", "", *passed_on, ""]
        if module.name == STUDIES:
            for study in self.package.studies.values():
                lines += self.study(study)
        return "\n".join(lines).rstrip() + "\n"

    def head(self, module: Module) -> Lines:
        """The anchor of a module, and the line that says who uses it and where its source is."""
        path, where = module.path.relative_to(ROOT).as_posix(), address()
        source = f"[Source]({where.url}/blob/{where.branch}/{path})"
        used = self.used_in(module.name)
        lines = [f"```{{py:module}} {module.name}", "```", ""]
        return [*lines, f"{used} {source}." if used else f"{source}.", ""]

    def used_in(self, entry: str) -> str:
        """The chapters that use an entry: a module is used where one of its names is."""
        users = set(self.users.get(entry, []))
        if entry in self.package.public:
            users |= {page for name, pages in self.users.items() for page in pages
                      if name.startswith(f"{entry}.")}  # fmt: skip
        pages = [page for page in self.numbers if page in users]
        if not pages:
            return ""
        if len(pages) <= FEW:
            return "Used in " + ", ".join(f"{{doc}}`/{page}`" for page in pages) + "."
        told = [(self.numbers[page], page) for page in pages]
        links = [f"{{doc}}`{number} </{page}>`" for number, page in told if number]
        titles = [f"{{doc}}`/{page}`" for number, page in told if not number]
        return f"Used in chapters {', '.join(links)}{''.join(f', {t}' for t in titles)}."

    # -- entries ---------------------------------------------------------------------------------

    def entry(self, dotted: str, name: str, module: Module, node: Definition) -> Lines:
        if isinstance(node, ast.ClassDef):
            return self.class_lines(dotted, module, node)
        if isinstance(node, FUNCTION):
            body = [*self.function_body(module, node), *self.users_line(dotted)]
            return fenced("function", name + signature(node), body)
        return fenced("data", name, [*data_body(module, node), *self.users_line(dotted)])

    def users_line(self, dotted: str) -> Lines:
        used = self.used_in(dotted)
        return ["", used, ""] if used else []

    def described(self, module: Module, doc: str, names: Entries, returns: str = "None") -> Lines:
        """A docstring, its arguments with their types, and what comes back."""
        lines, lists = sections(doc)
        lines += arguments_lines(names, lists.pop("Args", []))
        told = " ".join(text for _, text in lists.pop("Returns", []))
        if told or returns not in ("None", ""):
            shown = kind(returns) if returns not in ("None", "") else ""
            lines += ["", f"**Returns** {shown}{': ' if told and shown else ''}{told}", ""]
        for title, entries in lists.items():
            lines += listing(title, [(f"`{name}`" if name else "", text) for name, text in entries])
        return lines

    def function_body(self, module: Module, node: Function, skip: int = 0) -> Lines:
        types = Types(self.package, module)
        names = [(a.arg, types.written(a.annotation)) for a in arguments(node)[skip:]]
        doc = ast.get_docstring(node) or ""
        return self.described(module, doc, names, types.written(node.returns))

    def class_lines(self, dotted: str, module: Module, node: ast.ClassDef) -> Lines:
        head, names = self.construction(module, node)
        starts = [p for p in node.body if isinstance(p, FUNCTION) and p.name == "__init__"]
        docs = [ast.get_docstring(part) for part in (node, *starts)]
        body: Lines = []
        bases = [base for base in map(ast.unparse, node.bases) if not UNSAID.search(base)]
        if bases:
            body += ["Based on " + ", ".join(f"`{base}`" for base in bases) + ".", ""]
        body += self.described(module, "\n\n".join(filter(None, docs)), names)
        body += self.users_line(dotted)
        for home, method in self.package.methods(module, node).values():
            body += self.method_lines(home, method)
        return fenced("class", node.name + head, body)

    def construction(self, module: Module, node: ast.ClassDef) -> tuple[str, Entries]:
        """What a class is made with: the arguments of `__init__`, or the fields of a dataclass."""
        members: dict[str, tuple[str, ast.expr | None]] = {}
        for home, owner in reversed(self.package.family(module, node)):
            types = Types(self.package, home)
            for part in owner.body:
                if isinstance(part, FUNCTION) and part.name == "__init__":
                    members = {}
                elif is_record(owner) and isinstance(part, ast.AnnAssign):
                    name, value = ast.unparse(part.target), part.value
                    text = ast.unparse(value) if value is not None else ""
                    if text.startswith("field(") and "default" not in text:
                        value = None
                    if not name.startswith("_") and "init=False" not in text:
                        members[name] = (types.written(part.annotation), value)
        if members:
            told = [f"{name}=..." if value is not None else name
                    for name, (_, value) in members.items()]  # fmt: skip
            for place, (_, value) in enumerate(members.values()):
                if value is not None and not isinstance(value, ast.Call):
                    told[place] = told[place].replace("...", ast.unparse(value))
            return f"({', '.join(told)})", [(name, kind) for name, (kind, _) in members.items()]
        for home, owner in self.package.family(module, node):
            for part in owner.body:
                if isinstance(part, FUNCTION) and part.name == "__init__":
                    types = Types(self.package, home)
                    names = [(a.arg, types.written(a.annotation)) for a in arguments(part)[1:]]
                    return signature(part, bound=True), names
        return "", []

    def method_lines(self, module: Module, node: Function) -> Lines:
        marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
        if marks & {"property", "cached_property"}:
            return fenced("property", node.name, self.function_body(module, node, 1), 1)
        skip = 0 if "staticmethod" in marks else 1
        directive = next((m for m in ("staticmethod", "classmethod") if m in marks), "method")
        options = [":no-index-entry:"] if node.name == "__call__" else []
        body = self.function_body(module, node, skip)
        head = node.name + signature(node, bound=bool(skip))
        return fenced(directive, head, body, 1, options)

    def study(self, module: Module) -> Lines:
        """An experiment: what it is, after whom, how to run it, what differs."""
        name = module.name.rpartition(".")[2]
        said = {
            key: ast.literal_eval(node.value)
            for key in ("SUMMARY", "PAPER")
            if isinstance(node := module.defined[key], ast.Assign)
        }
        doc = markdown(ast.get_docstring(module.tree) or "").split("\n\n")[1:]
        return [
            "", f"## {name}", "", f"**{said['SUMMARY']}.** {said['PAPER']}.", "",
            *self.head(module), f"`python -m companion evaluate {name}`", "", "\n\n".join(doc),
        ]  # fmt: skip


def is_record(node: ast.ClassDef) -> bool:
    marks = [ast.unparse(mark) for mark in (*node.decorator_list, *node.bases)]
    return any("dataclass" in mark or mark.endswith("NamedTuple") for mark in marks)


def arguments(function: Function) -> list[ast.arg]:
    spec = function.args
    every = [*spec.posonlyargs, *spec.args, *filter(None, [spec.vararg]), *spec.kwonlyargs]
    return every + list(filter(None, [spec.kwarg]))


def signature(function: Function, bound: bool = False) -> str:
    """Names and defaults; the shapes stand below, where there is room. `bound`: without self."""
    function = copy.deepcopy(function)
    for argument in arguments(function):
        argument.annotation = None
    spec = function.args
    if bound:
        (spec.posonlyargs or spec.args).pop(0)
    return f"({ast.unparse(spec)})"


def arguments_lines(names: Entries, told: Entries) -> Lines:
    """A list of what the docstring tells, or a line with the types alone where it tells nothing."""
    types = dict(names)
    entries: Entries = []
    for name, text in told:
        kinds = [types.pop(part.strip().lstrip("*"), "") for part in name.split(",")]
        shown = ", ".join(kind(k) for k in dict.fromkeys(kinds) if k)
        label = ", ".join(f"`{part.strip()}`" for part in name.split(","))
        entries.append((f"{label} ({shown})" if shown else label, text))
    rest: dict[str, list[str]] = {}
    for name, written in types.items():
        if written:
            rest.setdefault(written, []).append(f"`{name}`")
    untold = [(", ".join(group), kind(written)) for written, group in rest.items()]
    if not entries and untold:
        return ["", "**Arguments** " + "; ".join(f"{n}: {k}" for n, k in untold) + ".", ""]
    return listing("Arguments", entries + untold)


def listing(title: str, entries: Entries) -> Lines:
    """One entry stands behind its title, several are a list."""
    # One line each: a line of a formula that begins with a minus would be a list of its own.
    told = [f"{name}: {text}".strip(": ") for name, text in entries]
    if len(told) == 1:
        return ["", f"**{title}** {told[0]}", ""]
    return ["", f"**{title}**", "", *(f"- {line}" for line in told), ""] if told else []


def fenced(directive: str, head: str, body: Lines, depth: int = 0, options: Lines = []) -> Lines:  # noqa: B006
    fence = ":" * (5 - depth)
    return ["", f"{fence}{{py:{directive}}} {head}", *options, "", *body, fence, ""]


def data_body(module: Module, node: Definition) -> Lines:
    """What a constant is equal to, if that fits a line, and what is said of it."""
    assert isinstance(node, (ast.Assign, ast.AnnAssign))
    text = " ".join(ast.unparse(node.value).split()) if node.value is not None else ""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        text = ""  # the value of several names at once
    value = f"`{text}`" if 0 < len(text) <= 80 and "`" not in text else ""
    return [": ".join(filter(None, [value, remark(module, node)])), ""]
