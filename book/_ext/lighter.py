"""A reader's browser loads what a page shows, and nothing else.

The theme brings 2,000 icons to every page, as a script and again as a font, and the index of the
search, which only the search page reads. MyST-NB writes pictures into the page itself, so that
nothing is seen before the last of them has come. After the build

- the icons are cut down to those that some page or script names;
- only the search page loads the index;
- pictures are files, which a browser fetches when the reader comes near them.

The cut files are made from those of the theme, never from those of an earlier build.
"""

import base64
import hashlib
import logging
import re
from importlib.util import find_spec
from pathlib import Path

THEME = Path(find_spec("pydata_sphinx_theme").origin).parent / "theme/pydata_sphinx_theme/static"
SCRIPT = "scripts/fontawesome.js"
STYLE = "styles/pydata-sphinx-theme.css"
FONT = "vendor/fontawesome/webfonts/fa-solid-900"

NAME = re.compile(r"\bfa-([a-z0-9]+(?:-[a-z0-9]+)*)")
# An icon in the script: name: [width, height, [other names], code, path or two paths]
ICON = re.compile(
    r'(?:"(?P<quoted>[a-z0-9-]+)"|(?P<plain>[a-z0-9]+)):'
    r'\[\d+,\d+,(?P<others>\[[^\]]*\]),"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\]'
)
ICONS = re.compile(r"\{(?:" + re.sub(r"\?P<\w+>", "?:", ICON.pattern) + r",?)+\}")
RULE = re.compile(r'\.fa-([a-z0-9-]+):before\{content:"[^"]*"\}')
FACE = re.compile(r'url\(([^)]*/fa-solid-900)\.woff2\) format\("woff2"\),url\([^)]*\)[^;}]*')
INDEX = re.compile(
    r'[ \t]*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?'
)
PICTURE = re.compile(
    r'<img (?P<before>[^>]*?)src="data:image/png;base64,(?P<data>[^"]+)" width="(?P<width>\d+)"'
)


def icons_named(site: Path) -> set[str]:
    """The icons that a page, or a script other than that of the icons, asks for."""
    files = [*site.rglob("*.html"), *(site / "_static").rglob("*.js")]
    return {
        name
        for file in files
        if file.name != Path(SCRIPT).name and "mathjax" not in file.parts
        for name in NAME.findall(file.read_text("utf8"))
    }


def cut_script(script: str, wanted: set[str]) -> str:
    """The script of the icons with those in `wanted` only."""

    def keep(found: re.Match) -> str:
        kept = []
        for icon in ICON.finditer(found[0]):
            others = re.findall(r'"([a-z0-9-]+)"', icon["others"])
            if wanted & {icon["quoted"] or icon["plain"], *others}:
                kept.append(icon[0])
        return "{" + ",".join(kept) + "}"

    return ICONS.sub(keep, script)


def cut_style(style: str, wanted: set[str]) -> str:
    """The style sheet of the theme with the rules of these icons, and the cut font."""
    style = RULE.sub(lambda rule: rule[0] if rule[1] in wanted else "", style)
    return FACE.sub(r'url(\1.woff) format("woff")', style)


def letters(style: str) -> set[int]:
    """The code points of a style sheet that only a font of icons has."""
    written = {int(code, 16) for code in re.findall(r'"\\([ef][0-9a-f]{3})"', style)}
    return written | {ord(letter) for letter in style if "\ue000" <= letter <= "\uf8ff"}


def cut_font(source: Path, target: Path, wanted: set[int]) -> None:
    """Writes a font that has these code points only."""
    from fontTools import subset

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every table it drops
    options = subset.Options(flavor="woff")  # woff2 would need one more package
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=wanted)
    cutter.subset(font)
    subset.save_font(font, str(target), options)


def lighten(app, exception) -> None:
    """After the build: icons and search index."""
    if exception or app.builder.format != "html":
        return
    site = Path(app.outdir)
    static = site / "_static"
    wanted = icons_named(site)
    script = cut_script((THEME / SCRIPT).read_text("utf8"), wanted)
    style = cut_style((THEME / STYLE).read_text("utf8"), wanted)
    (static / SCRIPT).write_text(script, "utf8")
    (static / STYLE).write_text(style, "utf8")
    cut_font(THEME / f"{FONT}.ttf", static / f"{FONT}.woff", letters(style))
    for page in site.rglob("*.html"):
        if page.name != "search.html":
            text = page.read_text("utf8")
            if (lighter := INDEX.sub("", text)) != text:
                page.write_text(lighter, "utf8")


def pictures_as_files(app, pagename, templatename, context, doctree) -> None:
    """Every picture of a code cell becomes a file of the site, named by its content."""
    folder = Path(app.outdir) / "_images"

    def write(found: re.Match) -> str:
        data = base64.b64decode(found["data"])
        name = f"{hashlib.sha256(data).hexdigest()[:20]}.png"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        across, down = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        height = round(int(found["width"]) * down / across)  # known before it comes: nothing jumps
        return (
            f'<img {found["before"]}src="{context["pathto"](f"_images/{name}", 1)}" '
            f'loading="lazy" width="{found["width"]}" height="{height}"'
        )

    if "body" in context:
        context["body"] = PICTURE.sub(write, context["body"])


def setup(app) -> None:
    app.connect("html-page-context", pictures_as_files, priority=900)
    app.connect("build-finished", lighten, priority=900)
