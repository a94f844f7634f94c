"""How long a chapter runs: what is measured, what the page shows; the contracts keep it."""

import time

import nbformat
import pytest

from companion import artifacts
from tools import run_times, runtime, source
from tools.source import SourceError

# A promise may be broken by this factor: machines differ, and a shared core costs more.
SLACK = {False: 1.2, True: 1.6}


@pytest.fixture(scope="module")
def code():
    return runtime.code_of(source.ROOT)


def test_every_chapter_promises_its_time(code):
    numbered = [page for page, number in source.pages().items() if number is not None]
    lacking = [page for page in numbered if page in code and runtime.promises(page) is None]
    assert not lacking, "write **Time:** 60 minutes to read, a minute to run."


def test_the_contracts_keep_their_time(code):
    """Minutes to run, at the budget of the pages, on one core."""
    measured = [m for m in run_times.load() if m["page"] in code and m["budget"] == "ci"]
    at_ci = [m for m in measured if m["device"].startswith("CPU")]
    assert at_ci, "type: python -m tools.runtime measure ci"
    late = {}
    for m in at_ci:
        promised = runtime.promises(m["page"])
        took = run_times.minutes(m)
        if promised and not promised[1] / 4 < took < promised[1] * SLACK[run_times.busy(m)]:
            late[m["page"]] = f"promises {promised[1]} minutes, took {took:.2f}"
    assert not late


@pytest.mark.parametrize(
    ("words", "minutes"),
    [
        ("half a minute to run.", 0.5),
        ("under a minute to run.", 1),
        ("a minute to run, [longer](runtime.md).", 1),
        ("two minutes to run.", 2),
    ],
)
def test_a_contract_is_read(words, minutes, tmp_path):
    (tmp_path / "book").mkdir()
    path = tmp_path / "book" / "a.md"
    path.write_text(f"**Time:** 70 minutes to read, {words} **Hardware:** any CPU.\n", "utf8")
    assert runtime.promises("a", tmp_path) == (70, minutes)
    path.write_text("# No contract\n\nTime: it takes a minute to run.\n")
    assert runtime.promises("a", tmp_path) is None
    path.write_text("**Time:** 70 minutes to read, some minutes to run.\n")
    with pytest.raises(SourceError, match="'some minutes' to run: write one of"):
        runtime.promises("a", tmp_path)


def small_book(root, code="assert True"):
    """A book of one chapter with one code cell."""
    (root / "book").mkdir(exist_ok=True)
    (root / "notebooks").mkdir(exist_ok=True)
    (root / "_toc.yml").write_text("root: one\nparts: []\n")
    (root / "book" / "one.md").write_text(
        "# One\n\n**Time:** 5 minutes to read, a minute to run.\n\n"
        f"```{{code-cell}} python\n{code}\n```\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, id="a")])
    nbformat.write(notebook, root / "notebooks" / "one.ipynb")


SPIN = """\
import os, time
assert os.environ["COMPANION_BUDGET"] == "demo"
while time.process_time() < 1.5:
    pass
time.sleep(1)
"""


def test_a_measurement(tmp_path):
    """Of the processor, not of the sleep; stored, and not made twice of the same code."""
    small_book(tmp_path, SPIN)
    assert run_times.measure("demo", ["one"], root=tmp_path) == []
    (found,) = run_times.load(tmp_path)
    assert found["wall_s"] > found["processor_s"] + 0.9
    assert found["processor_s"] >= 1.5
    began = time.monotonic()
    assert run_times.measure("demo", ["one"], root=tmp_path) == []
    assert time.monotonic() - began < 1
    assert run_times.load(tmp_path) == [found]
    assert "| {doc}`one` | 5 | " in runtime.write(tmp_path)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [("1 / 0", "ZeroDivisionError"), ("import os; os._exit(1)", "one: Kernel died")],
    ids=["error", "killed"],
)
def test_what_fails_is_named_and_not_stored(code, complaint, tmp_path, capsys):
    small_book(tmp_path, code)
    assert run_times.measure("ci", ["one"], root=tmp_path) == ["one"]
    assert complaint in capsys.readouterr().err
    assert run_times.load(tmp_path) == []


def record(page="one", budget="ci", device="CPU: x", processor=60.0, wall=60.0, code="a"):
    return {
        "page": page, "budget": budget, "device": device, "code": code, "processor_s": processor,
        "wall_s": wall, "torch": "2", "python": "3", "date": "2026-01-01",
    }  # fmt: skip


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A small book, and a list of the budgets that are measured instead of being run."""
    small_book(tmp_path)
    ran = []

    def timed(notebook, budget, folder):
        ran.append(budget)
        return 60.0, 60.0

    monkeypatch.setattr(run_times, "timed", timed)
    return tmp_path, ran


def test_changed_code_and_a_shared_core_are_measured_again(counted):
    root, ran = counted
    for asked, expected in (({}, 1), ({}, 1), ({"again": True}, 1), ({"force": True}, 2)):
        run_times.measure("ci", ["one"], root=root, **asked)
        assert len(ran) == expected
    small_book(root, "assert 1")
    run_times.measure("ci", ["one"], root=root)
    assert len(ran) == 3, "the code changed"
    (stored,) = run_times.load(root)
    run_times.save([stored | {"wall_s": 600.0}], root)
    run_times.measure("ci", ["one"], root=root)
    assert len(ran) == 3
    run_times.measure("ci", ["one"], root=root, again=True)
    assert len(ran) == 4, "its core was shared"
    run_times.measure("demo", ["one"], root=root)
    assert {(m["budget"], m["wall_s"]) for m in run_times.load(root)} == {("ci", 60), ("demo", 60)}


def test_the_table_has_a_column_for_each_budget_and_device(tmp_path):
    small_book(tmp_path)
    cpu = [record(processor=30.0, wall=300.0), record(budget="demo", processor=150.0)]
    table = runtime.chapter_table(cpu, ["one"], tmp_path).split("\n")
    assert table[0] == "| chapter | to read | `ci` | `demo` |"
    assert table[2] == "| {doc}`one` | 5 | 0.5 | 2.5 |"
    gpu = record(budget="demo", device="NVIDIA T4", processor=50.0, wall=60.0)
    table = runtime.chapter_table([*cpu, gpu], ["one"], tmp_path).split("\n")
    assert table[0] == "| chapter | to read | `ci`, CPU: x | `demo`, CPU: x | `demo`, NVIDIA T4 |"
    assert table[2] == "| {doc}`one` | 5 | 0.5 | 2.5 | 1.0 |"  # a GPU by the clock
    alone = runtime.chapter_table([cpu[1]], ["one"], tmp_path).split("\n")
    assert alone[0] == "| chapter | to read | `ci` | `demo` |"
    assert alone[2] == "| {doc}`one` | 5 | – | 2.5 |"


def test_the_page_says_which_times_are_too_long():
    for records, said in (
        ([record()], ""),
        ([record(wall=90.1), record(page="two")], "1 of the 2 runs shared"),
        ([record(wall=600.0)], "All runs shared"),
        ([record(device="NVIDIA T4", processor=1.0)], ""),  # a GPU computes while its core waits
    ):
        assert runtime.shared(records).startswith(said)
        assert bool(runtime.shared(records)) == bool(said)


def test_the_page_is_what_the_measurements_say():
    page = source.chapter_path(runtime.PAGE).read_text("utf8")
    assert page == runtime.write(), "type: python -m tools.runtime make"


def test_every_artifact_is_listed_with_its_time():
    page = source.chapter_path(runtime.PAGE).read_text("utf8")
    rows = [row.split(" | ") for row in page.split("\n") if row.startswith("| `")]
    assert {row[0].strip("| `") for row in rows} == {
        path.parent.name for path in artifacts.HERE.glob("*/metrics.json")
    }
    (kepler,) = [row for row in rows if "`kepler`" in row[0]]
    made = artifacts.load_metrics(artifacts.folder("kepler"))["provenance"]
    assert "{doc}`lagrangian_network`" in kepler[1]
    assert kepler[2] == made["device"]
    assert kepler[-1].strip(" |") == f"{made['wall_time_s'] / 60:.0f}"
