"""The names that the modules of companion define, read from their syntax trees; nothing is run."""

import ast
from dataclasses import dataclass, field
from functools import cache

from tools.source import ROOT


@dataclass
class Class:
    """What a class of the package offers: its own names, and those of its bases."""

    names: set[str] = field(default_factory=set)
    arguments: set[str] = field(default_factory=set)
    bases: list[str] = field(default_factory=list)


@dataclass
class Module:
    """What a module of the package defines."""

    names: set[str] = field(default_factory=set)
    arguments: set[str] = field(default_factory=set)  # of its functions and methods
    classes: dict[str, Class] = field(default_factory=dict)


def arguments(function: ast.FunctionDef | ast.Lambda) -> set[str]:
    """Its arguments, without self and cls."""
    a = function.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    return {argument.arg for argument in every} - {"self", "cls"}


def bound(tree: ast.AST) -> set[str]:
    """Names that code gives a meaning to, at any depth."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            found |= arguments(node)
    return found


def imported(tree: ast.AST, known: set[str]) -> set[str]:
    """The modules of companion that code imports; a package counts with all its modules."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found -= {"companion"}
    return {name for name in known if any(name == f or name.startswith(f + ".") for f in found)}


def read_class(node: ast.ClassDef) -> Class:
    """Methods, fields, buffers and every `self.x = ...` of a class."""
    made = Class(bases=[ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases])
    for item in node.body:
        if isinstance(item, ast.AnnAssign | ast.Assign):
            targets = [item.target] if isinstance(item, ast.AnnAssign) else item.targets
            fields = {target.id for target in targets if isinstance(target, ast.Name)}
            made.names |= fields
            made.arguments |= fields if isinstance(item, ast.AnnAssign) else set()
        elif isinstance(item, ast.FunctionDef):
            made.names.add(item.name)
            made.arguments |= arguments(item)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            made.names.add(inner.attr)
        elif isinstance(inner, ast.Call) and ast.unparse(inner.func).endswith("register_buffer"):
            made.names |= {str(a.value) for a in inner.args[:1] if isinstance(a, ast.Constant)}
    return made


@cache
def package() -> dict[str, Module]:
    """Every module of companion, by its full name."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "companion").rglob("*.py")
    }
    modules = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text("utf8"))
        module = modules[name] = Module()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                module.names.add(node.name)
            else:
                module.names |= bound(node)
            if isinstance(node, ast.ClassDef):
                module.classes[node.name] = read_class(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                module.arguments |= arguments(node)
        for made in module.classes.values():
            module.arguments |= made.arguments
    return modules
