"""With which versions the book is tested: the oldest allowed, Colab's, the newest.

    python -m tools.versions run colab             install, run, and write into tools/versions.json
    python -m tools.versions run oldest|newest     the same with other versions
    python -m tools.versions pins                  tools/colab-constraints.txt, from Colab's list
    python -m tools.versions page                  book/versions.md from tools/versions.json

`run` makes a virtual environment under --folder, gigabytes of it, and needs the network:
`--python python3.13` chooses the Python; `--torch-index https://download.pytorch.org/whl/cpu`
spares the CUDA libraries. In it the notebooks run as a stranger's would (`tools/run_all.py`); with
`--tests` the tests of the package run first. A second `run` uses the environment of the first.
"""

import argparse
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from tools import environments, run_all, source, versions_page
from tools.environments import PINS
from tools.source import ROOT
from tools.versions_page import KINDS

REPORT = ROOT / "tools" / "versions.json"
PAGE = ROOT / "book" / "versions.md"
# Tests of the package: the others ask for the tools of the book, or a browser.
FOREIGN = (
    r"^\s*(?:from|import) "
    r"(?:tools|bs4|selenium|nbformat|yaml|jupytext|benchmarks|distributed|dask|cluster_jobs|conftest|homework_\w+"
    r"|companion\.homework|importlib|reference)\b|companion import (?:\w+, )*homework"
)


def fingerprint(path: Path = PINS) -> str:
    """Of Colab's list: a report with another one is about other versions."""
    stated = [environments.python_of(path), *sorted(environments.read_pins(path).items())]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


def code_of(page: str, root: Path = ROOT) -> str:
    """A fingerprint of a notebook's code: with other code, what the report says is out of date."""
    notebook = json.loads(source.notebook_path(page, root).read_text("utf8"))
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def read(path: Path = REPORT) -> dict:
    return json.loads(path.read_text("utf8")) if path.exists() else {}


def write(report: dict, path: Path = REPORT) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf8")
    unfinished.replace(path)


# -- run -----------------------------------------------------------------------------------------


def package_tests(root: Path = ROOT) -> list[str]:
    """The test files that need `companion` and its dependencies only."""
    files = sorted((root / "tests").glob("test_*.py"))
    return [
        path.relative_to(root).as_posix()
        for path in files
        if not re.search(FOREIGN, path.read_text("utf8"), re.MULTILINE)
    ]


def test(kind: str, folder: Path, chosen: list[str]) -> dict:
    """Run the tests of the package with the Python of an environment."""
    results = folder / "pytest.txt"
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb", "short", "-rfE"]
    if kind == "oldest":  # old packages do what newer ones of their own dependencies deprecate
        command += ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"]
    command += ["-m", "not slow and not gpu and not browser", *chosen]
    began = time.monotonic()
    with results.open("w") as log:
        env = run_all.surroundings("ci", TQDM_DISABLE="1")
        subprocess.run(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
    text = results.read_text()
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", text[-400:])}
    return {
        "files": len(chosen),
        "of": len(package_tests()),
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0),
        "failures": re.findall(r"^(?:FAILED|ERROR) (.{1,300})", text, re.MULTILINE)[:40],
        "seconds": round(time.monotonic() - began),
    }


def install(page: str, home: Path, place: Path, variables: dict[str, str]) -> dict:
    """The first cell of a notebook alone, in the environment as it was made; what it downloads."""
    log = place / "pip.log"
    env = run_all.surroundings("ci", **variables, PIP_LOG=str(log), PIP_NO_CACHE_DIR="1")
    result = run_all.install(source.notebook_path(page), home, env)
    text = log.read_text()
    sizes = re.findall(r"Downloading \S+ \(([\d.]+) ([kM])B\)", text)
    near = set(re.findall(r" Processing (/\S+\.(?:whl|gz))", text))  # from a mirror on this machine
    brought = sum(float(size) / {"k": 1e3, "M": 1}[unit] for size, unit in sizes)
    brought += sum(Path(path).stat().st_size / 1e6 for path in near)
    result["megabytes"] = {
        "packages": round(brought, 1),
        "book": round(environments.clone_megabytes(place / "clone", variables), 1),
    }
    print(f"  first cell: {result}", flush=True)
    return result


def run(options: argparse.Namespace) -> int:
    kind, folder = options.kind, Path(options.folder or ROOT / ".cache" / "versions").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / kind
    environments.create(kind, options.python, home, options.torch_index)
    versions = environments.versions_of(home)
    entry = read().get(kind, {})
    if entry.get("versions") != versions:
        entry = {"versions": versions, "notebooks": {}}
    entry["platform"] = f"{platform.system()} {platform.machine()}"
    entry["pins"] = fingerprint() if kind == "colab" else None
    entry["packages"] = len(environments.base(home))
    entry["date"] = datetime.now(timezone.utc).date().isoformat()
    if options.tests is not None:
        entry["tests"] = test(kind, home, options.tests or package_tests())
        print(f"  tests: {entry['tests']}", flush=True)
        write({**read(), kind: entry})
    known = [page for page in source.chapters() if source.notebook_path(page).exists()]
    wanted = known if options.notebooks == ["all"] else options.notebooks
    if set(wanted) - set(known):
        raise SystemExit(f"no notebook {sorted(set(wanted) - set(known))}; there are {known}")
    if options.missing:
        wanted = [page for page in wanted if not current(entry, page)]
    with tempfile.TemporaryDirectory(prefix="book-") as scratch:
        place = Path(scratch)
        variables: dict[str, str] = {}
        if kind == "colab" and wanted:
            variables = environments.serve(place / "book.git")
            if not (options.missing and "install" in entry):
                environments.restore(home)
                entry["install"] = install(wanted[0], home, place, variables)
        for page in wanted:
            if kind == "colab" and (page == wanted[0] or not options.keep):
                environments.restore(home)
            env = run_all.surroundings(options.budget, **variables)
            result = run_all.run(source.notebook_path(page), home, env)
            result |= {"budget": options.budget, "code": code_of(page)}
            entry["notebooks"][page] = result
            write({**read(), kind: entry})
            print(
                f"  {'FAILED' if result['failed'] else 'ok':7}{page} {result['seconds']} s, "
                f"first cell {result['first_cell']} s, {len(result['different'])} of "
                f"{result['strict']} strict cells differ, {result['widgets']} widgets",
                flush=True,
            )
    if kind == "colab" and wanted:
        environments.restore(home)
    write({**read(), kind: entry})
    found = problems({kind: entry})
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


def current(entry: dict, page: str) -> bool:
    """Whether the report has a good run of the code that the notebook has today."""
    result = entry["notebooks"].get(page)
    return bool(result) and result["code"] == code_of(page) and not result["failed"]


def problems(report: dict) -> list[str]:
    """What a report says went wrong."""
    found = []
    for kind, entry in report.items():
        for page, result in entry["notebooks"].items():
            if result["failed"]:
                found.append(f"{kind}: {page} failed: {result['failed'][-300:]}")
            if result["changed"]:
                found.append(f"{kind}: {page} changed what was installed: {result['changed']}")
        found += [f"{kind}: {failure}" for failure in entry.get("tests", {}).get("failures", [])]
    return found


def page(root: Path = ROOT) -> str:
    """book/versions.md, as the report has it."""
    return versions_page.page(read(), source.chapters(root), current)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The versions that the book is tested with.")
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("kind", choices=KINDS)
    runner.add_argument("--python", default=shutil.which("python3") or sys.executable)
    runner.add_argument("--folder", help="where the environments are made (.cache/versions)")
    runner.add_argument("--torch-index", default="", help="another index, for torch without CUDA")
    runner.add_argument("--budget", default="ci", choices=["ci", "demo"])
    runner.add_argument("--notebooks", nargs="*", default=["all"], help="names, or nothing")
    runner.add_argument("--missing", action="store_true", help="only what has no good run yet")
    runner.add_argument(
        "--keep", action="store_true", help="install the book once, not for each notebook (colab)"
    )
    runner.add_argument("--tests", nargs="*", help="run tests too: these files, or all")
    pins = commands.add_parser("pins")
    pins.add_argument("--freeze", default=environments.COLAB_LIST, help="a file or an address")
    pins.add_argument("--python-version", default="", help="Colab's, from os-info.txt")
    commands.add_parser("page")
    options = parser.parse_args(arguments)
    if options.command == "run":
        return run(options)
    if options.command == "pins":
        count = environments.write_pins(options.freeze, options.python_version)
        print(f"  {PINS.relative_to(ROOT)}: {count} versions")
        return 0
    PAGE.write_text(page(), "utf8")
    print(f"  {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
