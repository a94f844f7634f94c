"""What the scripts know about the book: its address, its pages, the cells of a chapter."""

from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from myst_nb.core.read import read_myst_markdown_notebook

ROOT = Path(__file__).resolve().parents[1]

# The first code cell of every chapter. pip leaves an installed torch alone when its version is in
# range, and Colab's is: the install brings two small packages and companion itself.
SETUP_CELL = """\
try:
    import companion
except ModuleNotFoundError:
    %pip install --quiet git+{url}@{branch}"""


class SourceError(Exception):
    """A chapter holds something that cannot become a notebook; says where and what to write."""


@dataclass(frozen=True)
class Address:
    """Where the project lives, read from `repository` in _config.yml."""

    url: str
    branch: str

    @property
    def slug(self) -> str:
        return "/".join(self.url.rstrip("/").split("/")[-2:])

    @property
    def site(self) -> str:
        owner, name = self.slug.split("/")
        return f"https://{owner.lower()}.github.io/{name}"

    @property
    def raw(self) -> str:
        return f"https://raw.githubusercontent.com/{self.slug}/{self.branch}"

    def colab(self, page: str) -> str:
        return (
            "https://colab.research.google.com/github/"
            f"{self.slug}/blob/{self.branch}/notebooks/{page}.ipynb"
        )

    def binder(self, page: str) -> str:
        return (
            f"https://mybinder.org/v2/gh/{self.slug}/{self.branch}"
            f"?urlpath=lab/tree/notebooks/{page}.ipynb"
        )

    @property
    def setup_cell(self) -> str:
        return SETUP_CELL.format(url=self.url, branch=self.branch)


def address(root: Path = ROOT) -> Address:
    """The one address of the project."""
    repository = yaml.safe_load((root / "_config.yml").read_text("utf8"))["repository"]
    return Address(repository["url"].rstrip("/"), repository["branch"])


def pages(root: Path = ROOT) -> dict[str, int | None]:
    """Page name -> chapter number (None where the part is not numbered), in reading order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    found: dict[str, int | None] = {toc["root"]: None}
    chapter = 0
    for part in toc["parts"]:
        for entry in part["chapters"]:
            if part.get("numbered"):
                chapter += 1
                found[entry["file"]] = chapter
            else:
                found[entry["file"]] = None
    return found


def read_cells(text: str) -> nbformat.NotebookNode:
    """The cells of a chapter: Markdown as written, code with its tags, no outputs."""
    return read_myst_markdown_notebook(text, add_source_map=True)


def has_code(text: str) -> bool:
    """Whether a page has code cells, and so a notebook."""
    return any(cell.cell_type == "code" for cell in read_cells(text).cells)


def notebook_path(page: str, root: Path = ROOT) -> Path:
    return root / "notebooks" / f"{page}.ipynb"


def chapter_path(page: str, root: Path = ROOT) -> Path:
    return root / "book" / f"{page}.md"


def chapters(root: Path = ROOT) -> list[str]:
    """The pages that have code, in reading order."""
    return [page for page in pages(root) if has_code(chapter_path(page, root).read_text("utf8"))]


def code_cells(notebook: nbformat.NotebookNode) -> list[tuple[str, tuple[str, ...]]]:
    """(source, tags) of every code cell: what must agree between a chapter and its notebook."""
    return [
        (cell.source, tuple(cell.metadata.get("tags", ())))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
