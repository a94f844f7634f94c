r"""Real measurements: two machines filmed by Schmidt and Lipson (2009), fetched, checked, parsed.

`load` looks into the folder that the environment variable COMPANION_DATA names, or downloads once
(pooch) and keeps a copy. Either way the bytes must have the known sha256. Where there is neither a
folder nor a network it says so and returns a simulation of a similar machine: its `label` says
what it is, and every figure of the book prints it.

The files hold positions that a camera saw and velocities that somebody made of them;
`companion.smoothing` makes derivatives of the positions alone.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import pooch
import torch
from torch import Tensor

from companion import integrators
from companion.datasets import check_finite
from companion.smoothing import local_polynomial

FOLDER = "COMPANION_DATA"  # the environment variable
SIMULATE = "simulated"  # its value that asks for the stand-in
ADDRESS = (
    "https://raw.githubusercontent.com/erwincoumans/tiny-differentiable-simulator/"
    "8381b8c9ad7f0a959548e4982eb8a63431a842d2/data/schmidt-lipson-exp-data/"
)
SECONDS = 10  # how long to wait for the server


@dataclass(frozen=True)
class Source:
    """A file: its name, sha256, the header's columns, the unit of positions, the row count."""

    file: str
    sha256: str
    columns: tuple[str, ...]
    unit: str
    rows: int


SOURCES = {
    "two-masses-three-springs": Source(
        "real_double_linear_h_1.txt",
        "b258df76a9a6f3dda294feb344160e39ecd3158d8e44b8bfe4ae4aa842c026aa",
        ("x1", "x2", "v1", "v2"),
        "pixel",
        495,
    ),
    "pendulum": Source(
        "real_pend_h_1.txt",
        "45d92988198b89a5933f5a53e67aa819d06937516f71a462ac09e1307d8b3411",
        ("o", "v"),
        "rad",
        556,
    ),
}


@dataclass(frozen=True)
class Measurement:
    """One trajectory: times `t` `(N,)` in s, positions `q` `(N, d)` in `unit`, and the velocities
    `v` `(N, d)` that the file derived from them, in `unit`/s. float64.

    `label` goes on every figure; `simulated` is True for the stand-in.
    """

    name: str
    t: Tensor
    q: Tensor
    v: Tensor
    unit: str
    simulated: bool

    @property
    def label(self) -> str:
        """Where the numbers come from, for figures."""
        if self.simulated:
            return "SIMULATED stand-in, no measurement"
        return "measured by Schmidt and Lipson (2009)"

    @property
    def d(self) -> int:
        """Degrees of freedom."""
        return self.q.shape[1]

    def split(self, part: float = 0.8) -> tuple["Measurement", "Measurement"]:
        """The first `part` of the points and the rest, in time (Syväri et al. 2021, B.7 and B.8).

        Raises ValueError for a part that leaves fewer than two points on a side.
        """
        n = int(part * len(self.t))
        if not 2 <= n <= len(self.t) - 2:
            raise ValueError(f"part = {part} leaves {n} of {len(self.t)} points; need 2 on a side")

        def cut(s: slice) -> "Measurement":
            return Measurement(
                self.name, self.t[s], self.q[s], self.v[s], self.unit, self.simulated
            )

        return cut(slice(None, n)), cut(slice(n, None))


@lru_cache
def load(name: str) -> Measurement:
    """The measurements of this name: `two-masses-three-springs` or `pendulum`.

    The file comes from the folder in COMPANION_DATA, else from pooch's cache, else from the
    network. Without any of them one line is printed and a simulation returned; with
    COMPANION_DATA=simulated this happens at once, in silence.

    Raises:
        ValueError: another name; a file that COMPANION_DATA promises and that is not there; a file
            with other bytes than the known ones, wherever it came from. Names the file.
    """
    if name not in SOURCES:
        near = get_close_matches(name.lower(), SOURCES, n=1, cutoff=0.3) or list(SOURCES)
        raise ValueError(f"no measurements are called {name!r}; did you mean {' or '.join(near)}?")
    source, folder = SOURCES[name], os.environ.get(FOLDER)
    if folder == SIMULATE:
        return simulated(name)
    if folder:
        path = Path(folder) / source.file
        if not path.is_file():
            raise ValueError(
                f"{path} is not there, and {FOLDER} says that it is; put it there (from {ADDRESS}"
                f"{source.file}), or unset {FOLDER} to download it"
            )
    else:
        try:
            path = _download(source)
        except OSError as error:
            reason = str(error).split("(Caused by")[0][:80]
            print(
                f"{source.file} is not here and cannot be downloaded ({type(error).__name__}: "
                f"{reason}): what follows is a SIMULATION, and its figures say so."
            )
            return simulated(name)
    check(path, source.sha256)
    return parse(path.read_text(), name)


def check(path: Path, sha256: str) -> None:
    """Raises ValueError, naming the file and both hashes, if its bytes are not the known ones."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} has sha256 {found}, expected {sha256}: it is damaged, cut short, or another "
            "file; delete it, and it will be downloaded anew"
        )


def _download(source: Source) -> Path:
    """The file in pooch's cache, downloaded if it is not there. OSError without a network."""
    log, place = pooch.get_logger(), pooch.os_cache("symmetry-by-construction")
    level = log.level
    log.setLevel(logging.WARNING)  # it would announce the download on stderr
    try:
        return Path(
            pooch.retrieve(
                ADDRESS + source.file,
                known_hash=f"sha256:{source.sha256}",
                fname=source.file,
                path=place,
                downloader=pooch.HTTPDownloader(timeout=SECONDS),  # pyright: ignore[reportArgumentType]
            )
        )
    except ValueError as error:  # the server sent other bytes; pooch has thrown them away
        raise ValueError(
            f"{ADDRESS}{source.file}: the download does not have sha256 {source.sha256} ({error}); "
            f"try again, or put a good copy into a folder and name it in {FOLDER}"
        ) from error
    finally:
        log.setLevel(level)


def parse(text: str, name: str) -> Measurement:
    """Reads a file of these measurements: a header `% columns`, then rows of numbers.

    Every row is: number of the trial, time in s, then the columns.

    Raises:
        ValueError: other columns, another number of rows or of entries in a row, an entry that is
            no number or not finite, more than one trial, or times that do not increase. Names the
            line.
    """
    source = SOURCES[name]
    header, *lines = text.strip().splitlines() or [""]
    columns = tuple(header.lstrip("% ").split())
    if not header.startswith("%") or columns != source.columns:
        raise ValueError(
            f"{source.file}, line 1 is {header[:60]!r}; expected % {' '.join(source.columns)}"
        )
    if len(lines) != source.rows:
        raise ValueError(f"{source.file} has {len(lines)} rows of data, expected {source.rows}")
    table = torch.empty(source.rows, 2 + len(columns), dtype=torch.float64)
    for k, row in enumerate(lines):
        try:
            numbers = torch.tensor([float(x) for x in row.split()], dtype=torch.float64)
        except ValueError as error:
            raise ValueError(f"{source.file}, line {k + 2}: {error}") from error
        if numbers.shape != table[k].shape:
            raise ValueError(
                f"{source.file}, line {k + 2} has {len(numbers)} numbers, expected "
                f"{table.shape[1]}: trial, time, {', '.join(columns)}"
            )
        table[k] = numbers
    check_finite(**{source.file: table})
    trial, t = table[:, 0], table[:, 1]
    for what, bad in (("another trial", trial[1:] != trial[0]), ("no later", t.diff() <= 0)):
        if bad.any():
            line = int(bad.nonzero()[0]) + 3
            raise ValueError(f"{source.file}, line {line} is {what}; expected one trial in time")
    q, v = table[:, 2:].chunk(2, dim=1)
    return Measurement(name, t, q, v, source.unit, simulated=False)


# The stand-in ---------------------------------------------------------------------------------

# Found by fitting the measurements, and rounded: the machines are similar, not the same.
STIFFNESS = torch.tensor([[-85.6, 77.8], [31.7, -34.8]], dtype=torch.float64)  # 1/s^2
FRICTION = torch.tensor([0.034, 0.005], dtype=torch.float64)  # 1/s
MIDDLE = torch.tensor([63.0, -62.0], dtype=torch.float64)  # pixel
SWING, LOSS = 1.356, 0.012  # of the pendulum: 1/s^2 and 1/s


@lru_cache
def simulated(name: str) -> Measurement:
    """The stand-in: a damped machine with similar parameters, seen by a camera as coarse.

    Positions of the two masses are rounded to pixels, angles carry noise of 0.005 rad; the
    velocities are those of a local parabola, as in the files.
    """
    source = SOURCES[name]

    def springs(y: Tensor) -> Tensor:
        x, v = y.chunk(2, dim=-1)
        return torch.cat([v, (x - MIDDLE) @ STIFFNESS.T - FRICTION * v], dim=-1)

    def pendulum(y: Tensor) -> Tensor:
        angle, rate = y.chunk(2, dim=-1)
        return torch.cat([rate, -SWING * angle.sin() - LOSS * rate], dim=-1)

    if name == "pendulum":
        field, dt, start, t0, window = pendulum, 1 / 6, (1.115, 0.953), 5.0, 0.55
    else:
        field, dt, start, t0, window = springs, 1 / 30, (0.0, -143.6, -39.0, 1.5), 0.033, 0.15
    y = torch.tensor(start, dtype=torch.float64)
    path = integrators.solve(field, y, dt / 4, 4 * (source.rows - 1), every=4)
    t, q = t0 + dt * torch.arange(source.rows, dtype=torch.float64), path[:, : len(y) // 2]
    if source.unit == "pixel":
        q = q.round()
    else:
        q = q + 0.005 * torch.randn(q.shape, generator=torch.Generator().manual_seed(0)).double()
    made = local_polynomial(t, q, window, 2)
    v = torch.zeros_like(q)
    v[torch.isin(t, made.t)] = made.xdot
    for edge in (t < made.t[0], t > made.t[-1]):  # as good as it gets there: plain differences
        v[edge] = torch.gradient(q, spacing=(t,), dim=0)[0][edge]
    return Measurement(name, t, q, v, source.unit, simulated=True)
