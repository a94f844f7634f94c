"""The project's address: written in _config.yml, quoted elsewhere, kept the same everywhere.

python -m tools.address show
python -m tools.address setup-cell                       the first code cell of every chapter
python -m tools.address check                            say which files quote another address
python -m tools.address set https://github.com/you/fork [--branch main]
"""

import argparse
import re
import sys
from pathlib import Path

from tools import source
from tools.source import ROOT, Address

# The files that quote the address besides _config.yml. notebooks/ follow from book/.
QUOTING = [
    "README.md",
    "pyproject.toml",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "book/*.md",
    "homework/*.md",
]
QUOTED = ["README.md", "pyproject.toml", "CITATION.cff"]  # must hold the address at least once


def quoting(root: Path) -> list[Path]:
    return sorted(path for pattern in QUOTING for path in root.glob(pattern))


def mine(address: Address) -> re.Pattern:
    """Every way in which this project's address can be written."""
    owner, name = (re.escape(part) for part in address.slug.split("/"))
    return re.compile(
        rf"github\.com/{owner}/{name}\b|githubusercontent\.com/{owner}/{name}\b"
        rf"|research\.google\.com/github/{owner}/{name}\b|mybinder\.org/v2/gh/{owner}/{name}\b"
        rf"|{owner}\.github\.io/{name}\b",
        re.IGNORECASE,
    )


def check(root: Path = ROOT) -> list[str]:
    """What disagrees with _config.yml."""
    where = source.address(root)
    found = []
    for path in quoting(root):
        if path.relative_to(root).as_posix() in QUOTED and not mine(where).search(
            path.read_text("utf8")
        ):
            found.append(f"{path.relative_to(root)} does not quote {where.url}")
    install = re.compile(r"git\+(https://\S+?)@(\S+)")
    for path in quoting(root):
        for url, branch in install.findall(path.read_text("utf8")):
            if (url, branch.strip("\"'`")) != (where.url, where.branch):
                found.append(f"{path.relative_to(root)} installs from {url}@{branch}")
    return found


def rewrite(url: str, branch: str, root: Path = ROOT) -> list[Path]:
    """Give the project a new address, in every file that quotes it."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise SystemExit(f"URL={url!r}: expected https://github.com/<owner>/<name>, no .git")
    old, new = source.address(root), Address(url, branch)
    changed = []
    for path in [root / "_config.yml", *quoting(root)]:
        before = path.read_text("utf8")
        after = before
        if path.name == "_config.yml":
            after = re.sub(r"^  branch: .*$", f"  branch: {branch}", after, flags=re.MULTILINE)
        after = after.replace(f"{old.url}@{old.branch}", f"{new.url}@{new.branch}")
        after = after.replace(f"{old.slug}/blob/{old.branch}", f"{new.slug}/blob/{new.branch}")
        after = after.replace(f"{old.slug}/{old.branch}", f"{new.slug}/{new.branch}")
        after = after.replace(old.site, new.site).replace(old.slug, new.slug)
        if after != before:
            path.write_text(after, "utf8")
            changed.append(path)
    return changed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The project's address.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("show", "setup-cell", "check"):
        commands.add_parser(name)
    setter = commands.add_parser("set")
    setter.add_argument("url")
    setter.add_argument("--branch", default=source.address().branch)
    options = parser.parse_args(arguments)
    if options.command == "show":
        print(source.address().url)
    elif options.command == "setup-cell":
        print(source.address().setup_cell)
    elif options.command == "check":
        found = check()
        print("\n".join(found), end="\n" if found else "")
        return 1 if found else 0
    else:
        for path in rewrite(options.url, options.branch):
            print(f"  {path.relative_to(ROOT)}")
        print("Now type: make notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
