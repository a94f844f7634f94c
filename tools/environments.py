"""Python environments for `tools/versions.py`: the oldest versions allowed, Colab's, the newest.

Colab's image cannot be installed outside Colab, but what a chapter meets there can: the Python, the
kernel and the exact versions of all that `companion` asks for. `tools/colab-constraints.txt` has
them, from the list that Colab publishes.
"""

import json
import os
import re
import shutil
import subprocess
import urllib.request
from datetime import date
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import source
from tools.source import ROOT

COLAB_LIST = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"
BASE = "base.json"  # in the folder of an environment
PINS = ROOT / "tools" / "colab-constraints.txt"
# What a Colab kernel is made of, and what our packages would import where it is installed.
KERNEL = ["ipykernel", "ipython", "ipywidgets", "jupyter-client", "pip", "setuptools", "traitlets"]
NEIGHBOURS = ["beartype", "jax", "jaxlib", "pandas", "pytest"]
PYTEST = ["beartype", "hypothesis", "packaging", "pytest>=8", "pytest-timeout"]
# A torch from PyPI brings its own CUDA libraries, Colab's has none: these are not Colab's to say.
CUDA = ("cuda-", "nvidia-", "triton")


# -- versions ------------------------------------------------------------------------------------


def dependencies(root: Path = ROOT) -> dict[str, Requirement]:
    """Name -> what pyproject.toml asks for, of everything a reader installs."""
    text = (root / "pyproject.toml").read_text("utf8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block, "pyproject.toml has no dependencies"
    found = map(Requirement, re.findall(r'^ *"(.+?)"', block[1], re.MULTILINE))
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def oldest(root: Path = ROOT) -> list[str]:
    """The lower bound of every dependency, as an exact pin."""
    pins = []
    for name, requirement in dependencies(root).items():
        bounds = [clause.version for clause in requirement.specifier if clause.operator == ">="]
        if len(bounds) != 1:
            raise SystemExit(f"pyproject.toml: {requirement} needs one lower bound, name>=version")
        pins.append(f"{name}=={bounds[0]}")
    return pins


def read_pins(path: Path = PINS) -> dict[str, str]:
    """Name -> version in a file of lines `name==version`."""
    lines = [line.split("#")[0].strip() for line in path.read_text("utf8").splitlines()]
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, version in pairs}


def write_pins(origin: str = COLAB_LIST, python: str = "", path: Path = PINS) -> int:
    """Rewrite the constraints from Colab's `pip freeze`, a file or an address; their number."""
    if origin.startswith("https://"):
        with urllib.request.urlopen(origin, timeout=60) as answer:
            text = answer.read().decode()
    else:
        text = Path(origin).read_text("utf8")
    found = {}
    for line in text.splitlines():
        pin = re.match(r"([\w.-]+)==(\S+)$", line) or re.match(
            r"([\w.-]+) @ \S*/\1-([\d.]+)(?:%2B|\+)", line
        )  # torch @ https://.../torch-2.11.0%2Bcpu-...: the version without the local part
        if pin and not canonicalize_name(pin[1]).startswith(CUDA):
            found[canonicalize_name(pin[1])] = pin[2]
    missing = {"torch", "numpy", "ipykernel"} - set(found)
    if missing:
        raise SystemExit(f"{origin}: no version of {sorted(missing)}; is it a `pip freeze`?")
    python = python or python_of(path)
    head = (
        "# What Colab has installed, as published in googlecolab/backend-info (pip-freeze.txt).\n"
        "# Rewrite: python -m tools.versions pins [--freeze FILE] [--python-version 3.13.x]\n"
        f"# Read on {date.today().isoformat()}.\n"
        f"# Python {python}\n"
    )
    lines = [f"{name}=={version}\n" for name, version in sorted(found.items())]
    path.write_text(head + "".join(lines), "utf8")
    return len(found)


def python_of(path: Path = PINS) -> str:
    """The Python that the constraints belong to."""
    stated = re.search(r"^# Python (\S+)$", path.read_text("utf8"), re.MULTILINE)
    if not stated:
        raise SystemExit(f"{path.name} does not say which Python it is for")
    return stated[1]


# -- environments --------------------------------------------------------------------------------


def clean(**more: str) -> dict[str, str]:
    """The variables of a fresh machine: none that leads Python here, or to settings of its own."""
    ours = ("PYTHON", "COMPANION_", "TQDM_", "VIRTUAL_ENV", "MPL", "JUPYTER")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **more}


def requirements(kind: str) -> tuple[list[str], list[str]]:
    """What to install into an environment before the book, and the constraints on the rest."""
    if kind == "colab":
        pins = read_pins()
        names = [*(name for name in dependencies() if name in pins), *KERNEL, *NEIGHBOURS]
        return [f"{name}=={pins[name]}" for name in names], [f"{n}=={v}" for n, v in pins.items()]
    if kind == "oldest":
        return [*oldest(), "ipykernel", "ipywidgets==7.7", *PYTEST], oldest()
    return [*dependencies(), "ipykernel", "ipywidgets", *PYTEST], []


def create(kind: str, python: str, folder: Path, torch_index: str = "") -> Path:
    """Make the environment in `folder`, or bring it up to date; its Python."""
    binary = folder / "bin" / "python"
    done = folder / "installed.json"
    wanted, bounds = requirements(kind)
    recipe = json.dumps([python, wanted, bounds])
    before = done.read_text() if done.exists() else "[null]"
    if before == recipe:
        return binary
    env = clean()
    if json.loads(before)[0] != python:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True, env=env)
    limits = folder / "constraints.txt"
    limits.write_text("\n".join(bounds) + "\n")
    command = [str(binary), "-m", "pip", "install", "--quiet", "--upgrade"]
    index = ["--extra-index-url", torch_index] if torch_index else []
    subprocess.run([*command, *index, "--constraint", str(limits), *wanted], check=True, env=env)
    if kind != "colab":  # there, the chapters install the book themselves
        subprocess.run([*command, "--constraint", str(limits), str(ROOT)], check=True, env=env)
    (folder / BASE).write_text(json.dumps(installed(binary), indent=1))
    done.write_text(recipe)
    return binary


def installed(python: Path) -> dict[str, str]:
    """Name -> version of everything in an environment."""
    listing = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    answer = subprocess.run(listing, check=True, capture_output=True, text=True, env=clean())
    found = json.loads(answer.stdout)
    return {canonicalize_name(entry["name"]): entry["version"] for entry in found}


def base(folder: Path) -> dict[str, str]:
    """Name -> version as the environment was made, whatever a notebook installed since."""
    return json.loads((folder / BASE).read_text())


def restore(folder: Path) -> None:
    """Remove what was installed since the environment was made."""
    python = folder / "bin" / "python"
    added = sorted(set(installed(python)) - set(base(folder)))
    if added:
        command = [str(python), "-m", "pip", "uninstall", "--quiet", "-y", *added]
        subprocess.run(command, check=True, env=clean())
    for left in folder.glob("lib/python*/site-packages/companion"):
        shutil.rmtree(left)  # what numba compiled: enough for `import companion` to succeed


def versions_of(folder: Path) -> dict[str, str]:
    """The Python and the packages that matter here, for the report."""
    ask = "import platform; print(platform.python_version())"
    command = [str(folder / "bin" / "python"), "-c", ask]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=clean())
    found = base(folder)
    names = [*dependencies(), "ipykernel", "ipython", "ipywidgets"]
    return {
        "python": answer.stdout.strip(),
        **{name: found[name] for name in names if name in found},
    }


# -- the book, as if it were at its address --------------------------------------------------------


def serve(folder: Path, root: Path = ROOT) -> dict[str, str]:
    """A repository with the working tree as its branch; the variables that make git find it.

    git is told to read the project's address as this folder, so that `%pip install git+https://...`
    in a chapter's first cell runs unchanged. Like GitHub it lets a client leave out old files.
    """
    where = source.address(root)
    branch = f"refs/heads/{where.branch}"

    def git(*arguments: str) -> str:
        command = ["git", "--git-dir", str(folder), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=root
        ).stdout.strip()

    subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
    git("fetch", "--quiet", str(root), f"+HEAD:{branch}")
    git("symbolic-ref", "HEAD", branch)
    (folder / "info" / "exclude").write_text(".venv\n")
    git("--work-tree", str(root), "add", "--all")
    author = ["-c", "user.name=book", "-c", "user.email=book@localhost"]
    parent = git("rev-parse", branch)
    tree = git("write-tree")
    git("update-ref", branch, git(*author, "commit-tree", tree, "-p", parent, "-m", "working tree"))
    git("config", "uploadpack.allowFilter", "true")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": where.url,
    }


def clone_megabytes(folder: Path, variables: dict[str, str]) -> float:
    """What pip's clone of the book brings over the network: the files of today, all old names."""
    command = ["git", "clone", "--quiet", "--filter=blob:none", source.address().url, str(folder)]
    subprocess.run(command, check=True, env={**os.environ, **variables})
    return megabytes(folder / ".git" / "objects")


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
