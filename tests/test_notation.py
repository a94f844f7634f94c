"""The symbol tables of the chapters and of the page on notation name things that exist in the code.

What is checked: every name between backticks in the column of code of the symbol tables, and in
the list of systems. Nothing is run. The chapter's cells and the files of `companion` are read as
syntax trees; a name exists if it is

- bound in the chapter's own code cells (variable, function, argument, import), or
- a letter of the shape that the same row of the table gives, or
- defined in a module of `companion` that the chapter imports (on the page on notation: that the
  table's caption names), as a function, a class, a constant, an argument or an attribute.

In `a.b` the name b must belong to a: to the module, to the class, to the class that the chapter
makes a from where that can be read off, and otherwise to some class of those modules. So a name
that was renamed or moved is found; a letter that stands for another quantity is not.
"""

import ast
import inspect
import re

import pytest
import torch

from companion import symbolic
from companion.lagrangian import LagrangianNetwork
from tools import source
from tools.names import Class, Module, arguments, bound, imported, package

# Tables of the page on notation whose caption names no module: where the text above them says to
# look.
WHERE = {
    "Mechanics": ("symbolic", "systems"),
    "What sympy does with them": ("symbolic",),
    "The layer": ("invariants", "lagrangian"),
    "The network: arguments and methods of `net`": ("lagrangian",),
}
# (page, what stands between backticks) -> why it is right although no rule finds it.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("notation", "V"): "what the cells of mechanics call it; no function of the package takes it",
    ("notation", "alpha_1"): "an argument of Model, which the experiments of Part IV share",
    ("notation", "alpha_2"): "an argument of Model, which the experiments of Part IV share",
    ("argon", "downhill"): "a key of the optimiser's state, and not an attribute",
}
# What a code cell holds, without its tags. The reader of chapters takes ten times as long.
CELL = re.compile(
    r"^```\{code-cell\}.*\n(?:---\n(?:.*\n)*?---\n|(?::.*\n)*)((?:.*\n)*?)^```", re.MULTILINE
)
BUILTIN = {"tuple", "range", "torch"}


class Names:
    """What exists on one page (or in one table): its own names, and some modules of companion."""

    def __init__(self, cells: list[str], modules: set[str]) -> None:
        known = package()
        tree = ast.parse("\n".join(re.sub(r"^(\s*)%.*$", r"\1pass", c, flags=re.M) for c in cells))
        self.tree, self.own = tree, bound(tree)
        self.modules = {name: known[name] for name in modules | imported(tree, set(known))}
        self.every: dict[str, list[Class]] = {}
        for module in known.values():
            for name, made in module.classes.items():
                self.every.setdefault(name, []).append(made)
        self.classes = {n for module in self.modules.values() for n in module.classes}
        self.made = self._made()
        self.alias = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }

    def _made(self) -> dict[str, set[str]]:
        """Variable -> the classes of companion that the page makes it from, where all are."""
        made: dict[str, set[str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                name = ast.unparse(node.targets[0])
                called = node.value.func if isinstance(node.value, ast.Call) else None
                made.setdefault(name, set()).add(
                    ast.unparse(called).split(".")[-1] if called else ""
                )
        loose = {a for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.Lambda)
                 for a in arguments(n)}  # fmt: skip
        return {n: c for n, c in made.items() if c <= set(self.every) and n not in loose}

    def offers(self, name: str, attribute: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a class of the package has the attribute, its own or inherited."""
        if name in seen:  # two modules have classes of one name, one the other's base
            return False
        if name not in self.every:
            return name == "Module" and hasattr(torch.nn.Module, attribute)
        return any(
            attribute in found.names
            or any(self.offers(base, attribute, seen | {name}) for base in found.bases)
            for found in self.every[name]
        )

    def exists(self, name: str) -> bool:
        return (
            name in self.own | BUILTIN
            or any(name in m.names | m.arguments for m in self.modules.values())
            or any(module.endswith(f".{name}") for module in package())
            or any(self.offers(c, name) for c in self.classes)
        )

    def modules_called(self, owner: ast.expr) -> list[Module]:
        """The modules that this expression may stand for: none if it is a variable of the page."""
        if not isinstance(owner, ast.Name) or (owner.id in self.own and owner.id not in self.alias):
            return []
        name = self.alias.get(owner.id, owner.id)
        return [module for full, module in package().items() if full.endswith(f".{name}")]

    def belongs(self, attribute: str, owner: ast.expr) -> bool:
        """Whether `owner.attribute` can be right."""
        root = ast.unparse(owner.func if isinstance(owner, ast.Call) else owner).split(".")[-1]
        if isinstance(owner, ast.Name) and root == "torch":
            return hasattr(torch, attribute)
        if ast.unparse(owner) == "torch.linalg":
            return hasattr(torch.linalg, attribute)
        if here := self.modules_called(owner):
            return any(attribute in module.names for module in here)
        if root in self.every:
            return self.offers(root, attribute)
        return any(self.offers(c, attribute) for c in self.made.get(root, self.classes)) or (
            isinstance(owner, ast.Name) and root in self.own and hasattr(torch.Tensor, attribute)
        )

    def missing(self, code: str) -> list[str]:
        """The names in an expression that do not exist; the expression itself if it is none."""
        try:
            tree = ast.parse(re.sub(r"=(?=[,)])", "=...", code.lstrip(".")), mode="eval")
        except SyntaxError:
            return [code]
        wrong = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and not self.exists(node.id):
                wrong.append(node.id)
            elif isinstance(node, ast.Attribute) and not self.belongs(node.attr, node.value):
                wrong.append(ast.unparse(node))
            elif isinstance(node, ast.keyword) and not self.exists(node.arg or ""):
                wrong.append(f"{node.arg}=")
        return wrong


def tables(text: str):
    """(caption, rows of cells) of every pipe table; the first row is the head."""
    caption, rows = "", []
    for line in [*text.split("\n"), ""]:
        if match := re.match(r"^[:`]{3,}\{table\} (.*)$", line):
            caption = match[1]
        if line.startswith("|"):
            # A bar inside a formula is written \lvert, so every bar parts two cells.
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            yield caption, [row for row in rows if not set("".join(row)) <= set("-: ")]
            caption, rows = "", []


def codes(text: str):
    """(caption, row, what stands between backticks in the column of code) of symbol tables."""
    for caption, (head, *rows) in tables(text):
        if head[0] in ("symbol", "operation") and re.match(r"code\b|function\b", head[1]):
            for row in rows:
                for code in re.findall(r"`([^`]+)`", row[1]):
                    yield caption, row, code


def names_of(page: str, caption: str) -> Names:
    """The names that a table of this page may use."""
    known = package()
    if page == "notation":
        wanted = WHERE.get(caption) or tuple(re.findall(r"`([\w.]+)`", caption))
        found = {m for m in known for w in wanted if f"{m}.".startswith(f"companion.{w}.")}
        assert found, f"notation.md: the table {caption!r} names no module of companion"
        return Names([], found)
    return Names(CELL.findall(source.chapter_path(page).read_text("utf8")), set())


def problems(page: str, text: str) -> list[str]:
    """The names in the symbol tables of a page that do not exist, and where they stand."""
    scopes: dict[str, Names] = {}
    found = []
    for caption, row, code in codes(text):
        if (page, code) in EXCEPTIONS:
            continue
        where = caption if page == "notation" else ""
        if where not in scopes:
            scopes[where] = names_of(page, caption)
        shape = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`[^`]+`", " ".join(row[2:])))))
        wrong = scopes[where].missing(code)
        found += [f"{row[0]}: `{code}`: there is no {name}" for name in wrong if name not in shape]
    return found


PAGES = [page for page in source.pages() if page not in ("references", "students", "instructors")]


@pytest.fixture(scope="module")
def texts():
    return {page: source.chapter_path(page).read_text("utf8") for page in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_a_symbol_table_exists(page, texts):
    assert not problems(page, texts[page])


def test_every_chapter_has_a_symbol_table(texts):
    numbered = [page for page, number in source.pages().items() if number is not None]
    chapters = [page for page in numbered if CELL.search(texts[page])]  # the others have no code
    assert len(chapters) > 20
    assert [page for page in chapters if not list(codes(texts[page]))] == []


def test_the_exceptions_are_used(texts):
    used = {(page, code) for page in PAGES for _, _, code in codes(texts[page])}
    assert set(EXCEPTIONS) <= used


def not_of(cls: type, code: str) -> list[str]:
    """What is wrong with an entry that claims to be an argument or a method of a class."""
    call = ast.parse(code, mode="eval").body
    name = ast.unparse(call.func if isinstance(call, ast.Call) else call)
    known = set(inspect.signature(cls).parameters)
    method = getattr(cls, name, None)
    if name not in known and not callable(method):
        return [f"`{name}` is neither an argument nor a method of {cls.__name__}"]
    if not isinstance(call, ast.Call):
        return []
    listed = [a.id for a in call.args if isinstance(a, ast.Name)] + [k.arg for k in call.keywords]
    takes = set(inspect.signature(method).parameters)
    return [f"{name} has no argument `{arg}`" for arg in listed if arg not in takes]


def entries(text: str, caption: str) -> list[str]:
    """The code of one table of the page on notation."""
    found = [code for this, _, code in codes(text) if this == caption]
    assert found, f"the page on notation has no table {caption!r}"
    return found


def test_the_table_of_the_network_lists_what_the_network_has(texts):
    caption = "The network: arguments and methods of `net`"
    listed = entries(texts["notation"], caption)
    assert [w for code in listed for w in not_of(LagrangianNetwork, code)] == []


@pytest.mark.parametrize(
    "false", ["batch", "NoisyMeasurements", "rollout(q, qdot, dt, many)", "lagrangians"]
)
def test_what_the_network_does_not_have_is_found(false):
    assert len(not_of(LagrangianNetwork, false)) == 1
    assert not_of(LagrangianNetwork, "rollout(q, qdot, dt, steps)") == []


def test_the_functions_of_symbolic_are_there(texts):
    listed = entries(texts["notation"], "What sympy does with them")
    assert [name for name in listed if inspect.isfunction(getattr(symbolic, name, None))] == listed


def test_the_listed_systems_have_these_arguments(texts):
    """The table `Systems` of the page on notation: classes, and arguments of one of them."""
    classes = {
        name: made
        for full, module in package().items()
        if full.startswith("companion.systems")
        for name, made in module.classes.items()
    }
    (rows,) = [rows for caption, rows in tables(texts["notation"]) if caption == "Systems"]
    for systems, parameters in rows[1:]:
        names = re.findall(r"`(\w+)`", systems)
        known = set().union(*(classes[name].arguments for name in names))
        listed = set(re.findall(r"`(\w+)`", parameters)) - {"lagrangian"}  # "no `lagrangian`"
        assert listed <= known, f"{systems}: {listed - known}"


@pytest.mark.parametrize(
    ("page", "right", "wrong"),
    [
        ("notation", "`noether_charge`", "`noether_charges`"),  # another name
        ("notation", "`Descriptors`", "`Describers`"),
        ("notation", "`layer.curvature`", "`layer.hessian`"),  # not of a layer
        ("noether", "`symbolic.variation`", "`groups.variation`"),  # another module
        ("lagrangian_network", "`net.momentum`", "`net.impulse`"),  # not of this network
        ("permutations", "`Descriptors.radial`", "`Descriptors.angular`"),  # not of this class
        ("argon", "`relative(r)`", "`relative(whereabouts)`"),  # no such argument
        ("symmetry_control", "`Model(alpha_1, alpha_2, beta)`", "`Model(alpha_3)`"),
        ("mechanics", "`H_shadow`", "`H shadow`"),  # no expression
    ],
)
def test_a_false_name_is_found(page, right, wrong, texts):
    assert right in texts[page]
    found = problems(page, texts[page].replace(right, wrong, 1))
    assert len(found) == 1
    assert wrong in found[0]
