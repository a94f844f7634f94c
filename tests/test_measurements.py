"""The measurements: parsed strictly, checked by hash, replaced by a simulation where they are not.

No test needs the network. Where ../shared/data or COMPANION_DATA has the files, they are tested
too; elsewhere those tests say that they were skipped.
"""

import hashlib
import math
import os
from functools import cache
from pathlib import Path

import pytest
import requests
import scipy.signal
import torch

from companion import measurements, smoothing
from companion.measurements import SOURCES

NAMES = list(SOURCES)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "schmidt_lipson"
FILES = Path(os.environ.get(measurements.FOLDER) or SHARED)
HERE = all((FILES / source.file).is_file() for source in SOURCES.values())
needs_files = pytest.mark.skipif(not HERE, reason=f"no measurements in {FILES}")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing remembered, no folder named."""
    monkeypatch.delenv(measurements.FOLDER, raising=False)
    measurements.load.cache_clear()
    yield
    measurements.load.cache_clear()


@cache
def text(name):
    """A file like the measured one, from the stand-in."""
    data = measurements.simulated(name)
    rows = torch.cat([torch.zeros(len(data.t), 1), data.t[:, None], data.q, data.v], 1)
    lines = [" ".join(f"{x:.16e}" for x in row) for row in rows.tolist()]
    return f"% {' '.join(SOURCES[name].columns)}\r\n" + "\r\n".join(lines) + "\r\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with such files, whose hashes are the known ones, named by COMPANION_DATA."""
    for name, source in list(SOURCES.items()):
        content = text(name).encode()
        (tmp_path / source.file).write_bytes(content)
        known = measurements.Source(
            source.file,
            hashlib.sha256(content).hexdigest(),
            source.columns,
            source.unit,
            source.rows,
        )
        monkeypatch.setitem(SOURCES, name, known)
    monkeypatch.setenv(measurements.FOLDER, str(tmp_path))
    return tmp_path


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_good_files_is_read(folder, name, capsys):
    data, expected = measurements.load(name), measurements.simulated(name)
    assert not data.simulated
    assert "Schmidt" in data.label
    for a, b in ((data.t, expected.t), (data.q, expected.q), (data.v, expected.v)):
        assert torch.equal(a, b)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "another"])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_with_both_hashes(folder, name, damage):
    path = folder / SOURCES[name].file
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-9] ^= 1
    else:
        content = {"short": content[:-40], "empty": b"", "another": b"<html>404</html>"}[damage]
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match="damaged, cut short, or another file") as caught:
        measurements.load(name)
    for part in (str(path), found, SOURCES[name].sha256, "delete it"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_promised_and_absent_is_refused(folder, name):
    (folder / SOURCES[name].file).unlink()
    with pytest.raises(ValueError, match="is not there, and COMPANION_DATA says that it is") as e:
        measurements.load(name)
    assert SOURCES[name].file in str(e.value)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean pendulum"):
        measurements.load("pendulums")


def edited(name, line, change):
    lines = text(name).splitlines()
    lines[line] = change(lines[line])
    return "\n".join(lines)


def entry(k, word):
    def change(line):
        words = line.split()
        words[k] = word
        return " ".join(words)

    return change


@pytest.mark.parametrize(
    ("line", "change", "said"),
    [
        (0, lambda x: "% v o x y", "line 1 is '% v o x y'; expected %"),
        (0, lambda x: x[1:], "line 1 is"),
        (7, lambda x: x + " 1.0", r"line 8 has \d numbers, expected"),
        (7, lambda x: x.rsplit(" ", 1)[0], r"line 8 has \d numbers, expected"),
        (9, entry(2, "1.2.3"), "line 10: could not convert string to float: '1.2.3'"),
        (9, entry(2, "nan"), r"\.txt\[8, 2\] is nan; expected finite"),
        (9, entry(3, "inf"), r"\.txt\[8, 3\] is inf; expected finite"),
        (9, entry(0, "1"), "line 10 is another trial"),
        (9, entry(1, "0.0"), "line 10 is no later"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_every_fault_of_a_row_is_named(name, line, change, said):
    with pytest.raises(ValueError, match=said) as caught:
        measurements.parse(edited(name, line, change), name)
    assert SOURCES[name].file in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_missing_rows_are_refused(name):
    with pytest.raises(ValueError, match=rf"has {SOURCES[name].rows - 1} rows of data, expected"):
        measurements.parse(text(name).rstrip().rsplit("\n", 1)[0], name)
    with pytest.raises(ValueError, match="line 1 is ''"):
        measurements.parse("", name)


# Without files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_folder_and_network_the_stand_in_says_so(name, monkeypatch, capsys):
    def offline(*arguments, **options):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(measurements.pooch, "retrieve", offline)
    data = measurements.load(name)
    assert data.simulated
    assert data.label == "SIMULATED stand-in, no measurement"
    said, error = capsys.readouterr()
    assert error == ""
    assert said.count("\n") == 1
    assert SOURCES[name].file in said
    assert "SIMULATION" in said


def test_a_download_with_other_bytes_is_no_reason_to_simulate(monkeypatch):
    def wrong(*arguments, **options):
        raise ValueError("SHA256 hash of downloaded file does not match")

    monkeypatch.setattr(measurements.pooch, "retrieve", wrong)
    with pytest.raises(ValueError, match="the download does not have sha256 45d92988"):
        measurements.load("pendulum")


def test_a_download_asks_for_the_known_hash_in_silence(folder, monkeypatch, capfd):
    asked = {}
    monkeypatch.delenv(measurements.FOLDER)
    log = measurements.pooch.get_logger()

    def retrieve(url, known_hash, fname, **options):
        asked.update(url=url, known_hash=known_hash, level=log.level)
        log.info("Downloading ...")
        return folder / fname

    level = log.level
    monkeypatch.setattr(measurements.pooch, "retrieve", retrieve)
    source = SOURCES["pendulum"]
    assert not measurements.load("pendulum").simulated
    assert asked["url"].startswith("https://raw.githubusercontent.com/erwincoumans/")
    assert asked["url"].endswith(f"/data/schmidt-lipson-exp-data/{source.file}")
    assert asked["known_hash"] == f"sha256:{source.sha256}"
    assert capfd.readouterr() == ("", "")
    assert log.level == level


@pytest.mark.parametrize("name", NAMES)
def test_the_stand_in_is_a_damped_machine_of_the_same_size(name, monkeypatch, capsys):
    monkeypatch.setenv(measurements.FOLDER, measurements.SIMULATE)
    data, again = measurements.load(name), measurements.simulated(name)
    assert capsys.readouterr() == ("", "")
    assert torch.equal(data.q, again.q)
    assert (len(data.t), data.unit) == (SOURCES[name].rows, SOURCES[name].unit)
    assert bool((data.t.diff() > 0).all())
    assert bool(torch.cat([data.q, data.v]).isfinite().all())
    swing = [part.std(0).norm() for part in (data.q[:150], data.q[-150:])]
    assert swing[1] < (0.9 if name == "pendulum" else 1.0) * swing[0]
    if data.unit == "pixel":
        assert torch.equal(data.q, data.q.round())


# Parts and derivatives --------------------------------------------------------------------------


def test_the_split_is_in_time():
    data = measurements.simulated("pendulum")
    past, future = data.split(0.8)
    assert len(past.t) == int(0.8 * 556)
    assert past.t[-1] < future.t[0]
    assert torch.equal(torch.cat([past.q, future.q]), data.q)
    assert past.simulated
    for part in (0.0, 1.0, 0.001):
        with pytest.raises(ValueError, match="leaves"):
            data.split(part)


def uneven(n=60):
    gaps = 0.5 + torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return gaps.cumsum(0) / 10


def test_local_polynomials_are_exact_on_polynomials_of_their_degree():
    t = uneven()
    x = torch.stack([1 + t - 2 * t**2 + t**4 / 50, t**3], 1)
    smooth = smoothing.local_polynomial(t, x, 1.0, 4)
    s = smooth.t
    rate = torch.stack([1 - 4 * s + 4 * s**3 / 50, 3 * s**2], 1)
    bend = torch.stack([-4 + 12 * s**2 / 50, 6 * s], 1)
    torch.testing.assert_close(smooth.xdot, rate, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(smooth.xddot, bend, rtol=1e-8, atol=1e-8)
    assert s[0] - t[0] >= 1.0
    assert t[-1] - s[-1] >= 1.0
    low = smoothing.local_polynomial(t, x, 1.0, 3)
    assert (low.xddot - bend[torch.isin(s, low.t)]).abs().max() > 1e-3


def test_on_an_even_grid_they_are_savitzky_and_golays():
    t = torch.arange(80, dtype=torch.float64) / 10
    x = torch.randn(80, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = smoothing.local_polynomial(t, x, 0.7, 4)
    for k, mine in enumerate((ours.x, ours.xdot, ours.xddot)):
        theirs = scipy.signal.savgol_filter(x[:, 0].numpy(), 15, 4, deriv=k, delta=0.1)[7:-7]
        torch.testing.assert_close(mine[:, 0], torch.from_numpy(theirs), rtol=1e-9, atol=1e-9)


def test_the_gain_is_the_noise_that_is_left():
    t = uneven()
    noise = torch.randn(60, 4000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    smooth = smoothing.local_polynomial(t, noise, 1.0, 4)
    for k, x in enumerate((smooth.x, smooth.xdot, smooth.xddot)):
        torch.testing.assert_close(x.std(1), smooth.gain[:, k], rtol=0.06, atol=0)


def test_differences_are_exact_on_parabolas_and_leave_the_noise_of_the_formula():
    t = torch.arange(50, dtype=torch.float64) / 8
    s, x, rate = smoothing.differences(t, (t**2)[:, None])
    torch.testing.assert_close(rate[:, 0], 2 * s)
    torch.testing.assert_close(x[:, 0], s**2)
    s, x, late = smoothing.differences(t, (t**2)[:, None], one_sided=True)
    torch.testing.assert_close(late[:, 0], 2 * (s + 1 / 16))
    torch.testing.assert_close(x[:, 0], s**2)
    noise = torch.randn(50, 4000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    left = smoothing.differences(t, noise)[2].std()
    assert left == pytest.approx(1 / (math.sqrt(2) / 8), rel=0.01)


def test_a_local_parabola_loses_fast_motion_by_the_formula():
    """3 (sin x - x cos x) / x^3 with x = omega half_width, in the limit of many points."""
    t = torch.linspace(0, 10, 4001, dtype=torch.float64)
    for x in (0.3, 1.0, 1.7):
        smooth = smoothing.local_polynomial(t, torch.sin(4 * t)[:, None], x / 4, 2)
        kept = smooth.xdot[:, 0].abs().max() / 4
        assert kept.item() == pytest.approx(3 * (math.sin(x) - x * math.cos(x)) / x**3, rel=3e-3)


def test_times_beside_a_gap_are_left_out():
    t = torch.cat([torch.arange(20), 40 + torch.arange(20)]).double()
    smooth = smoothing.local_polynomial(t, t[:, None], 3.0, 5)
    assert not any(16 < s < 43 for s in smooth.t.tolist())
    assert {10.0, 50.0} <= set(smooth.t.tolist())


@pytest.mark.parametrize(
    ("t", "x", "half_width", "degree", "said"),
    [
        (torch.zeros(5, 1), torch.zeros(5, 1), 1.0, 2, "got shapes"),
        (torch.arange(5.0), torch.zeros(4, 1), 1.0, 2, "got shapes"),
        (torch.arange(5.0), torch.zeros(5), 1.0, 2, "got shapes"),
        (torch.arange(5.0), torch.zeros(5, 1), 1.0, 1, "2 or more"),
        (torch.arange(5.0), torch.zeros(5, 1), 1.0, 4, "no time has more than 5 points"),
        (torch.arange(5.0), torch.full((5, 1), torch.nan), 2.0, 2, "x.* is nan"),
    ],
)
def test_windows_that_cannot_work_are_refused(t, x, half_width, degree, said):
    with pytest.raises(ValueError, match=said):
        smoothing.local_polynomial(t, x, half_width, degree)


# The measurements themselves --------------------------------------------------------------------


@needs_files
@pytest.mark.parametrize("name", NAMES)
def test_the_measured_files_are_what_the_book_says(name, monkeypatch):
    monkeypatch.setenv(measurements.FOLDER, str(FILES))
    data = measurements.load(name)
    assert not data.simulated
    assert len(data.t) == SOURCES[name].rows
    twin = measurements.simulated(name)
    assert (data.q.std(0) / twin.q.std(0) - 1).abs().max() < 0.1
    if data.unit == "pixel":
        assert torch.equal(data.q, data.q.round())
    # the file's velocities are slopes of local parabolas through its positions
    widths = {"two-masses-three-springs": 0.15, "pendulum": 0.55}
    made = smoothing.local_polynomial(data.t, data.q, widths[name], 2)
    file = data.v[torch.isin(data.t, made.t)]
    assert (made.xdot - file).std() < 0.05 * file.std()
