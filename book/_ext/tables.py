"""Tables that the reader sorts and filters: every `<table>` of the class `sortable`.

From Markdown: `:class: sortable` under `:::{table} Caption`. From a code cell: HTML output that has
`<table class="sortable">` with one row of `<th>` in its `<thead>`. What tables.js makes of it is
told there. Only pages with such a table load it; without JavaScript, in Colab, in JupyterLab and on
paper the table is a table.
"""

import re
import shutil
from pathlib import Path

HERE = Path(__file__).parent
SORTABLE = re.compile(r'<table\b[^>]*\bclass="(?:[^"]*\s)?sortable[\s"]')
FILES = ("tables.js", "tables.css")


def copy_files(app) -> None:
    """Into the site's own folder: Jupyter Book would put a .js of book/_static on every page."""
    if app.builder.format == "html":
        target = Path(app.outdir) / "_static"
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy2(HERE / name, target / name)


def load_files(app, pagename, templatename, context, doctree) -> None:
    """On the pages that have such a table."""
    if SORTABLE.search(context.get("body", "")):
        app.add_js_file("tables.js", loading_method="defer")
        app.add_css_file("tables.css")


def setup(app):
    app.connect("builder-inited", copy_files)
    app.connect("html-page-context", load_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
