"""The reference of the package, in the web book.

- Before the table of contents is read, `api/*.md` are written: a page for each public module, from
  its docstrings (`tools/api_pages.py`). They stand beside the chapters; nobody edits them by hand.
- In a chapter, `companion.x`, `x.y` or a name that the chapter imports is a link to its entry. The
  notebooks are not made here and have no such links.
- The words of the glossary are entries of the index, and so are the places that explain them.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools import api
from tools.api_pages import FOLDER, Pages, page_of
from tools.docstrings import markdown

TERM = re.compile(r"^\*\*(.+?)\*\*(.*)$", re.MULTILINE)
PLACE = re.compile(r"\{(?:prf:ref|ref|eq|numref)\}`(?:[^`<]*<)?([^`<>]+)>?`")


def write_pages(app, config) -> None:
    """Writes what has changed: an unchanged page is not read again."""
    toc = Path(app.srcdir, config.external_toc_path).read_text("utf8")
    if f"glob: {FOLDER}/" not in toc:
        return
    source = Path(app.srcdir)
    (source / FOLDER).mkdir(exist_ok=True)
    api.package.cache_clear()
    wanted = {source / f"{page}.md": text for page, text in Pages(api.package(), toc).all().items()}
    for path in (source / FOLDER).glob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text("utf8") != text:
            path.write_text(text, "utf8")


def settings(app, config) -> None:
    """The heading of a page says the module; entries need not repeat it."""
    config.add_module_names = False
    config.toc_object_entries_show_parents = "hide"
    config.html_domain_indices = False  # the page api.html is the list of modules, and better
    # A chapter's sidebar has the parts and their chapters, and not the pages of the reference too.
    config.html_theme_options = {**config.html_theme_options, "collapse_navigation": True}


class ModuleList(SphinxDirective):
    """`{modules}`: a group of modules, each with the first sentence of its docstring."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = []
        for name in " ".join(self.content).split():
            module = api.package().public[f"companion.{name}"]
            self.env.note_dependency(str(module.path))
            doc = markdown(module.tree.body[0].value.value)
            summary = " ".join(re.split(r"\n\s*\n", doc)[0].split())
            lines.append(f"- {{py:mod}}`{module.name}`: {summary}")
        return self.parse_text_to_nodes("\n".join(lines))


class LinkNames(SphinxTransform):
    """A name of the package in a text leads to its entry."""

    default_priority = 500

    def scope(self) -> api.Scope | None:
        """What names mean on this page."""
        package, page = api.package(), self.env.docname
        for name, module in package.public.items():
            if page == page_of(name):
                # An argument may have the name of a function: `energy`, `fit`. No class is one.
                own = {n: f"{name}.{n}" for n in module.names if n[0].isupper() or "_" in n}
                return api.Scope(package, module.imported | own)
        text = Path(self.env.doc2path(page)).read_text("utf8")
        return package.chapter(text).scope

    def apply(self, **kwargs) -> None:
        if FOLDER not in self.env.found_docs:
            return
        scope = self.scope()
        for literal in list(self.document.findall(nodes.literal)):
            entry = None if literal.get("classes") else scope.meaning(literal.astext())
            parent = literal.parent
            while parent is not None and not isinstance(
                parent, (nodes.reference, addnodes.pending_xref, nodes.title)
            ):
                parent = parent.parent
            if entry is None or parent is not None:
                continue
            link = addnodes.pending_xref(
                "",
                literal.deepcopy(),
                refdomain="py",
                reftype="mod" if entry in api.package().modules else "obj",
                reftarget=entry,
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            literal.replace_self(link)


class IndexTerms(SphinxTransform):
    """Words of the glossary in the index: at their entry, and at each place that it leads to."""

    default_priority = 501

    def apply(self, **kwargs) -> None:
        for node in self.document.findall(addnodes.index):
            for _, name, place, *_ in node["entries"][:1]:
                if name.startswith("module; "):  # under its name, and not under "module" too
                    node["entries"] = entry_of(name.removeprefix("module; "), place)["entries"]
        glossary = Path(self.env.srcdir, "glossary.md")
        if not glossary.exists() or "glossary" not in self.env.found_docs:
            return
        if self.env.docname == "glossary":
            for paragraph in list(self.document.findall(nodes.paragraph)):
                first = next((child for child in paragraph if child.astext()), None)
                if isinstance(first, nodes.strong):
                    term = word(first.astext())
                    place = nodes.make_id(f"term-{term}")
                    paragraph["ids"].append(place)
                    paragraph.insert(0, entry_of(term, place, main=True))
            return
        places: dict[str, list[str]] = {}
        for term, text in TERM.findall(glossary.read_text("utf8")):
            for place in PLACE.findall(text):
                places.setdefault(place, []).append(word(term))
        for node in list(self.document.findall(nodes.Element)):
            for place in node.get("ids", []):
                for term in places.pop(place, []):
                    node.parent.insert(node.parent.index(node), entry_of(term, place))


def word(term: str) -> str:
    """A term of the glossary as the index has it: without formulas and the full stop."""
    return re.sub(r"\s*\$[^$]*\$", "", term).strip().rstrip(".")


def entry_of(term: str, place: str, main: bool = False) -> addnodes.index:
    return addnodes.index(entries=[("single", term, place, "main" if main else "", None)])


def setup(app):
    app.connect("config-inited", settings, priority=90)
    app.connect("config-inited", write_pages, priority=100)
    app.add_directive("modules", ModuleList)
    app.add_transform(LinkNames)
    app.add_transform(IndexTerms)
    return {"version": "2", "parallel_read_safe": False, "parallel_write_safe": True}
