"""The page *Where next*: its code runs as printed, its starting points exist, none is left out."""

import re
from pathlib import Path

import pytest
import torch

from companion import measurements
from companion.descriptors import DescriptorForces, Descriptors
from companion.force_models import RelativeForces

BOOK = Path(__file__).parents[1] / "book"
PAGE = (BOOK / "where_next.md").read_text(encoding="utf-8")
PRELUDE, *SKETCHES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# What makes minutes of a sketch, and what does for a test, by a text that only this sketch has.
SHORTER = {
    "conserved_number.cases": {"(1.0, 3.0, 10.0)": "(1.0,)", "(2, 4, 5, 6)": "(2, 3)"},
    "plane-none": {},
    "plane-SO2": {"sample(4000,": "sample(1000,", "4000**0.5": "1000**0.5"},
    "two_particle.load": {"sample(2000,": "sample(200,"},
    "three_body.load": {},
    "two_body.TASK": {'"demo")': '"ci", seeds=(0,), steps=3)'},
    "measurements.load": {},
    "mp.SETTINGS": {"steps=2000": "steps=3", "warmup=100": "warmup=1"},
    "argon.descriptors": {},
    "argon.load": {},
}


def sketch(name: str) -> str:
    """The block of this name, shortened; a text to be shortened must be there."""
    (text,) = [text for text in SKETCHES if name in text]
    for long, short in SHORTER[name].items():
        assert long in text, f"{name}: the page no longer says {long!r}"
        text = text.replace(long, short)
    return text


def run(text: str) -> dict:
    """What the block leaves behind, after the page's first block and nothing else."""
    namespace: dict = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(PRELUDE, "the first block", "exec"), namespace)
        exec(compile(text, "a block of where_next.md", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", SHORTER)
def test_a_sketch_runs_as_printed(name, capsys, monkeypatch):
    monkeypatch.setenv(measurements.FOLDER, measurements.SIMULATE)  # no network, and no film
    monkeypatch.setenv("TQDM_DISABLE", "1")
    run(sketch(name))
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert bool(printed) == ("print" in sketch(name))


def test_every_block_of_the_page_is_run():
    assert len(SKETCHES) == len(SHORTER)
    assert len({sketch(name) for name in SHORTER}) == len(SHORTER)


def test_lines_fit_a_narrow_page():
    for text in [PRELUDE, *SKETCHES]:
        assert max(map(len, text.splitlines())) <= 70


def test_every_open_exercise_of_the_book_is_a_starting_point():
    found = [
        label
        for page in BOOK.glob("*.md")
        for title, label in re.findall(
            r"\{exercise\} (.*)\n:label: (\S+)", page.read_text(encoding="utf-8")
        )
        if title.endswith("· open")
    ]
    assert len(found) >= 24
    assert not [label for label in found if f"{{ref}}`{label}`" not in PAGE]


def test_every_question_has_its_four_parts():
    questions = re.findall(r"\n### (.*?)\n(.*?)(?=\n##)", PAGE, re.DOTALL)
    assert len(questions) == 11
    assert "eleven questions" in PAGE
    for title, text in questions:
        assert title.endswith("?")
        assert re.findall(r"\n- \*\*(.*?)\*\*", text) == [
            "Start.",
            "An afternoon.",
            "An answer",
            "Read",
        ], title


def test_functions_that_the_page_names_are_in_the_chapter():
    chapter = (BOOK / "integrators.md").read_text(encoding="utf-8")
    for name in ("pairs", "learn", "through_midpoint"):
        assert re.search(rf"\b{name}\b", PAGE)
        assert f"\ndef {name}(" in chapter


# ---------------------------------------------------------------- what the page promises of them


def test_a_gradient_has_no_curl_and_a_direct_force_has():
    """The work around small parallelograms, as the last sketch measures it."""
    text = sketch("argon.load").replace("print(", "result = (")
    direct, gradient = (run(text.replace("rounded", n))["result"] for n in ("rounded", "energy"))
    assert gradient.max() < 1e-5 < 1e-3 < direct.min()


def test_fresh_measurements_show_a_wrong_symmetry_and_when_it_is_right_none():
    """The second harmonic of the uneven spring, against its size by chance."""
    text = sketch("plane-SO2").replace("print(", "results.append(")
    wrong = run("results = []\n" + text)["results"]
    right = run("results = []\n" + text.replace("eps 0.1", "eps 0").replace("[2]", "[0]"))[
        "results"
    ]
    assert (wrong[0][2:] > 10 * wrong[1][2:]).all()
    assert (right[0][2:] < 4 * right[1][2:]).all()


@pytest.mark.parametrize(
    "net",
    [
        RelativeForces(4, (8, 8), seeds=2, dtype=torch.float64),
        DescriptorForces(Descriptors(12), (8, 8), seeds=2).double(),
    ],
    ids=["relative", "descriptors"],
)
def test_products_with_the_jacobian_of_a_force_can_be_trained(net):
    """The solution of ex-md-open: jvp and vjp of `torch.autograd.functional`."""
    source = torch.Generator().manual_seed(0)
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.4
    r, a = (torch.randn(5, 4, 3, generator=source, dtype=torch.float64) for _ in "ra")
    r, h = corners + 0.2 * r, 1e-5
    product = torch.autograd.functional
    _, Ja = product.jvp(net.forces, r, a, create_graph=True)
    with torch.no_grad():
        differences = (net.forces(r + h * a) - net.forces(r - h * a)) / (2 * h)
    assert (Ja - differences).abs().max() < 1e-6 * Ja.abs().max()
    _, JTa = product.vjp(lambda x: net.forces(x)[0], r, a, create_graph=True)
    assert (a * (JTa - Ja[0])).sum().abs() < 1e-9 * (a * JTa).abs().sum()  # a.J^T a = a.J a
    (Ja[0] - JTa).square().sum().backward()
    assert all(p.grad is not None and p.grad[0].abs().max() > 0 for p in net.parameters())
