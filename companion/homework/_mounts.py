"""What of this machine a sandbox shows: enough for Python and its packages, and nothing else."""

import contextlib
import functools
import os
import site
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["HOME", "PACKAGE", "environment", "hidden", "links", "mounts", "shown", "sites"]

PACKAGE = Path(__file__).resolve().parents[1]
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
HOME = "/tmp/student"


def mounts(hide: Iterable[Path], disk: int) -> list[str]:
    """bubblewrap's arguments: what is shown, and folders in memory of `disk` bytes to write in.

    Folders of `hide` that lie inside of what is shown are empty. Raises ValueError if that would
    take from Python what it needs, or if the operator's home would be shown.
    """
    folders = shown()
    # Of a sandbox that root starts, the kernel's own settings would be writable through /proc.
    command = ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    for folder in ("/dev/shm", "/tmp"):
        command += ["--size", str(disk), "--perms", "1777", "--tmpfs", folder]
    command += ["--dir", HOME, "--dir", f"{HOME}/.cache"]
    for source in SYSTEM:
        if os.path.islink(source):
            command += ["--symlink", os.readlink(source), source]
        elif os.path.isdir(source):
            command += ["--ro-bind", source, source]
    for source in SETTINGS:
        command += ["--ro-bind-try", source, source]
    for folder in folders:
        command += ["--ro-bind", str(folder), str(folder)]
    for link, target in links(Path(sys.executable), folders):
        command += ["--symlink", target, str(link)]
    for folder in hidden(hide, folders):
        command += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    fonts = font_list()
    if fonts is not None:
        command += ["--ro-bind", str(fonts), f"{HOME}/.cache/matplotlib/{fonts.name}"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


def environment(home: str) -> dict[str, str]:
    """The environment of the process: nothing of the operator's."""
    return {
        "HOME": home,
        "USER": "student",
        "LOGNAME": "student",
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp" if home == HOME else home,
        "XDG_CACHE_HOME": f"{home}/.cache",
        "MPLCONFIGDIR": f"{home}/.cache/matplotlib",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "IPYTHONDIR": f"{home}/.ipython",
        "NUMBA_CACHE_DIR": f"{home}/.cache/numba",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INDEX": "1",  # an installation fails at once, and not after its retries
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def sites() -> list[Path]:
    """The folders of packages that this process uses."""
    known = [*site.getsitepackages(), site.getusersitepackages()]
    named = ("site-packages", "dist-packages")  # on the path by somebody's .pth file
    folders = [Path(folder) for folder in sys.path if folder]
    return [f for f in folders if (str(f) in known or f.name in named) and f.is_dir()]


def shown() -> list[Path]:
    """Folders to show, none inside another: the interpreter, its packages, and `companion`.

    Raises ValueError if the home would be among them.
    """
    wanted = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    wanted += [*sites(), PACKAGE]
    wanted += [folder.resolve() for folder in wanted]
    shown: list[Path] = []
    for folder in sorted(set(wanted), key=lambda f: len(f.parts)):
        if not any(folder.is_relative_to(other) for other in (*map(Path, SYSTEM), *shown)):
            shown.append(folder)
    home = Path(os.path.expanduser("~"))  # stays "~" for a user without one
    if wrong := [folder for folder in shown if home.is_relative_to(folder)]:
        raise ValueError(
            f"Python's own folder {wrong[0]} holds your home, which submissions must not read. "
            "Grade from a virtual environment: python -m venv grading"
        )
    return shown


def hidden(hide: Iterable[Path], shown: list[Path]) -> list[Path]:
    """Folders inside of what is shown that must be empty.

    Raises ValueError if Python itself needs one.
    """
    beside = [PACKAGE.parent / name for name in ("homework", "tests", ".git")]
    visible = [*map(Path, SYSTEM), *shown]
    hidden: list[Path] = []
    for folder in {f for path in (*hide, *beside) for f in (Path(path).absolute(), path.resolve())}:
        if any(other.is_relative_to(folder) for other in shown) and any(
            folder.is_relative_to(other) for other in visible
        ):
            raise ValueError(f"{folder} is to be hidden, but Python needs it")
        if folder.is_dir() and any(folder.is_relative_to(other) for other in visible):
            hidden.append(folder)
    return hidden


def links(program: Path, shown: list[Path]) -> Iterator[tuple[Path, str]]:
    """The links from the interpreter's name to its file that lie outside of what is shown."""
    for _ in range(20):
        if not program.is_symlink():
            return
        target = os.readlink(program)
        if not any(program.is_relative_to(other) for other in (*map(Path, SYSTEM), *shown)):
            yield program, target
        program = Path(os.path.normpath(program.parent / target))


@functools.lru_cache
def font_list() -> Path | None:
    """Matplotlib's list of the fonts, which it would otherwise look for in each submission."""
    with contextlib.suppress(Exception):  # a convenience: whatever goes wrong, it is done without
        import matplotlib
        from matplotlib import font_manager

        version = font_manager.FontManager.__version__
        path = Path(matplotlib.get_cachedir()) / f"fontlist-v{version}.json"
        return path if path.is_file() else None
    return None
