"""book/versions.md from tools/versions.json: what was installed, what ran, what happened."""

from collections.abc import Callable

from tools import environments

KINDS = {"oldest": "Oldest allowed", "colab": "Colab's", "newest": "Newest"}
HEAD = """\
# Versions tested

% Written by `python -m tools.versions page` from tools/versions.json. Do not edit.

Packages change, and books that run break. So this one is run with three sets of versions: the
lowest that its bounds allow, those that Colab has installed, and the newest there were. What lies
between was not tried.

:::{table} What was installed, what was run with it, and when.
:name: tab-versions

"""
COLAB = """\
:::

## What does the first cell do on Colab?

It installs the package of this book, {added}. Nothing else: {untouched}

We ran it in Colab's environment as published, on Python {python} where Colab has {theirs}, with
torch {torch} as PyPI has it and no GPU. It brought {download:.0f} MB over the network, {book:.0f}
of them the book with its stored networks, and took {processor:.0f} seconds of one processor, pip's
work included.

## Does *Run all* reach the end?

{summary}

:::{{table}} Every notebook in a clean kernel and an empty folder, with Colab's versions.
:name: tab-versions-notebooks

"""
TAIL = """\
:::

*Strict* are the cells whose output must not depend on the machine; `make test` compares it with the
page, and here it was compared with other versions of everything. Widgets, which the page cannot
show, were made and moved once at the end.

## Run it again

`make colab` makes the environment, some gigabytes of it, and the report from which this page is
made. It needs Python {minor} and a network. `python -m tools.versions pins` reads Colab's list of
today; `python -m tools.versions run oldest --tests` and `newest` repeat the other columns.
"""


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def words(names: list[str]) -> str:
    """`a`, `b` and `c`"""
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def page(report: dict, chapters: list[str], current: Callable[[dict, str], bool]) -> str:
    """The page; `current(entry, chapter)` says whether the code run is the chapter's of today."""
    kinds = [kind for kind in KINDS if kind in report]
    text = HEAD + row("", *(KINDS[kind] for kind in kinds)) + row("---", *["---"] * len(kinds))
    found = {  # with what Colab's first cell brings
        kind: report[kind]["versions"] | report[kind].get("install", {}).get("added", {})
        for kind in kinds
    }
    for name in ("python", *environments.dependencies(), "ipykernel", "ipython", "ipywidgets"):
        cells = (found[kind].get(name, "") for kind in kinds)
        text += row("Python" if name == "python" else f"`{name}`", *cells)

    def count(entry: dict) -> str:
        ran = [name for name in chapters if current(entry, name)]
        return f"{len(ran)} of {len(chapters)}" if ran else "not run"

    text += row("tests of the package", *(tests(report[kind]) for kind in kinds))
    text += row("notebooks, *Run all*", *(count(report[kind]) for kind in kinds))
    text += row("date", *(report[kind]["date"] for kind in kinds))
    if "colab" not in report:
        return text + ":::\n"
    python = ".".join(environments.python_of().split(".")[:2])
    return text + colab(report["colab"], chapters, current) + TAIL.format(minor=python)


def tests(entry: dict) -> str:
    found = entry.get("tests")
    if not found:
        return "not run"
    some = f" ({found['files']} of {found['of']} files)" if found["files"] < found["of"] else ""
    return (
        f"{found['passed']} pass" + (f", {found['failed']} fail" if found["failed"] else "") + some
    )


def colab(entry: dict, chapters: list[str], current: Callable[[dict, str], bool]) -> str:
    """What happened with Colab's versions."""
    install, versions = entry["install"], entry["versions"]
    added = [name for name in install["added"] if name != "symmetry-by-construction"]
    changed = [
        f"{name} from {old} to {new}"
        for result in [install, *entry["notebooks"].values()]
        for name, (old, new) in result["changed"].items()
    ]
    untouched = f"all {entry['packages']} packages of our copy stay as they are, torch first."
    if changed:
        untouched = "but it changed " + ", ".join(dict.fromkeys(changed)) + "."
    ran = {name: entry["notebooks"][name] for name in chapters if current(entry, name)}
    missing = [name for name in chapters if name not in ran]
    different = sum(len({d["cell"] for d in result["different"]}) for result in ran.values())
    summary = (
        f"Where it was tried, yes: {len(ran)} of {len(chapters)} notebooks. "
        if missing
        else f"Yes, in all {len(ran)} notebooks. "
    ) + (
        f"{sum(result['cells'] for result in ran.values())} cells of code ran, "
        f"{sum(result['widgets'] for result in ran.values())} widgets moved, and of "
        f"{sum(result['strict'] for result in ran.values())} strict cells {different} showed "
        "something else than is stored."
    )
    if missing:
        summary += f" Not yet run as they are today: {words(missing)}."
    text = COLAB.format(
        added=words(added),
        untouched=untouched,
        python=versions["python"],
        theirs=environments.python_of(),
        torch=versions["torch"],
        download=sum(install["megabytes"].values()),
        book=install["megabytes"]["book"],
        processor=install["processor"],
        summary=summary,
    )
    text += row("notebook", "cells", "strict", "as stored", "widgets")
    text += row("---", "---", "---", "---", "---")
    for name, result in ran.items():
        same = result["strict"] - len({d["cell"] for d in result["different"]})
        text += row(f"{{doc}}`{name}`", result["cells"], result["strict"], same, result["widgets"])
    return text
