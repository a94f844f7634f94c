"""companion.homework.asking and symbols: what a test asks, what counts as right, what is said."""

import enum
import fractions
import subprocess
import sys

import numpy as np
import pytest
import sympy
import sympy.physics.units
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.homework import Unanswered, Wrong, checker
from companion.homework.asking import Ask, Failed, evaluate
from companion.homework.protocol import decode, plain
from companion.homework.symbols import symbolic_values

t = sympy.Symbol("t")
m, x = sympy.symbols("m x")
q = sympy.Function("q")(t)
qdot = sympy.Derivative(q, t)


def asking(**names) -> Ask:
    """`ask` over a namespace in this process, raising."""

    def here(expression, inputs, points):
        return decode(evaluate(names, expression, inputs, points))

    return Ask(here)


def said(namespace: dict, body, capsys) -> str:
    """What a student's `check` prints of a block."""
    with checker(namespace)("1a") as ask:
        body(ask)
    return capsys.readouterr().out


# -- values


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, 3),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (fractions.Fraction(1, 4), 0.25),
        (sympy.Integer(10**30), 10**30),
        (sympy.Rational(1, 4), 0.25),
        (sympy.sqrt(-1), 1j),
        (sympy.true, True),
        (range(3), [0, 1, 2]),
        ((1, (2.0, "a")), [1, [2.0, "a"]]),
        ({1: None}, {"1": None}),
        (sympy.Matrix([[1, 2]]), [[1, 2]]),
    ],
)
def test_plain_values(value, expected):
    answer = plain(value)
    assert answer == expected
    assert type(answer) is type(expected)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.complex64, torch.int64, torch.bool, torch.float16]
)
def test_tensors_become_arrays_of_their_dtype(dtype):
    tensor = torch.tensor([0, 1]).to(dtype)
    answer = plain(tensor)
    assert str(answer.dtype) == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(answer, tensor.numpy())


def test_lazy_bits_sparse_tensors_and_gradients():
    z = torch.tensor([1 + 2j], requires_grad=True)
    np.testing.assert_array_equal(plain(z.conj().imag), [-2.0])
    np.testing.assert_array_equal(plain(torch.eye(2).to_sparse()), np.eye(2))
    assert plain(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32


def test_a_value_is_a_copy():
    array = np.zeros(2)
    answer = plain(array)
    array += 1
    np.testing.assert_array_equal(answer, 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (m * x, "the expression m.x, where a number"),
        (object(), "an object, where a number"),
        (np.array(["a"]), "an array of <U1"),
        (np.array([object()]), "an object"),
    ],
)
def test_what_is_not_plain_is_named(value, words):
    with pytest.raises(TypeError, match=words):
        plain(value)


def test_a_list_that_holds_itself():
    endless: list = []
    endless.append(endless)
    with pytest.raises(TypeError, match="16 deep"):
        plain(endless)


# -- asking


def test_ask_evaluates_in_the_namespace_with_the_inputs():
    ask = asking(double=lambda z: 2 * z, k=3)
    assert ask("[k * double(a) for a in values]", values=[1, 2]) == [6, 12]


def test_inputs_are_copies_in_the_notebook_too(capsys):
    names: dict = {}
    exec("def greedy(a):\n    a += 1\n    return a", names)
    mine = np.zeros(3)

    def body(ask):
        ask.close(ask("greedy(a)", a=mine), np.ones(3), "one")

    assert "✓" in said(names, body, capsys)
    np.testing.assert_array_equal(mine, 0)


def test_single_numbers_of_numpy_go_in_as_pythons_own(capsys):
    seen = []
    names = {"type": type}
    for value in (np.float64(2), np.int64(2), np.bool_(True), np.complex128(2)):
        said(names, lambda ask, v=value: seen.append(ask("type(v).__name__", v=v)), capsys)
    assert seen == ["float", "int", "bool", "complex"]


def test_tensors_go_in_as_tensors(capsys):
    names = {"torch": torch}
    seen = []
    said(
        names, lambda ask: seen.append(ask("isinstance(a, torch.Tensor)", a=torch.ones(2))), capsys
    )
    assert seen == [True]


@pytest.mark.parametrize(
    ("names", "expression", "words"),
    [
        ({}, "f(2)", "not answered yet: there is no `f`"),
        ({"f": lambda z: None}, "f(2)", "not answered yet: `f(2)` is None"),
        ({"f": ...}, "f", "not answered yet: `f` is Ellipsis"),
        ({"f": lambda z: None}, "[[1, f(2)]]", "not answered yet: `[[1, f(2)]]` has None in it"),
        ({}, "{'a': ...}", "not answered yet: `{'a': ...}` has Ellipsis in it"),
    ],
)
def test_unanswered(names, expression, words):
    with pytest.raises(Unanswered) as e:
        asking(**names)(expression)
    assert str(e.value) == words


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("1 / 0", "`1 / 0` stops with ZeroDivisionError: division by zero"),
        ("quit(3)", "`quit(3)` stops with SystemExit: 3"),
        ("1 +", "`1 +` stops with SyntaxError"),
        ("object()", "`object()`: this is an object, where a number or an array is wanted"),
        ("1 << 20_000", "an integer of 20001 bits is too large"),
    ],
)
def test_wrong_says_what_stops(expression, words):
    with pytest.raises(Wrong) as e:
        asking(quit=sys.exit)(expression)
    assert not isinstance(e.value, Unanswered)
    assert words in str(e.value)


def test_a_long_list_is_wanted_as_an_array(monkeypatch):
    monkeypatch.setattr("companion.homework.protocol.ITEMS", 100)
    with pytest.raises(Wrong, match="more than 100 items; give an array"):
        asking()("[0] * 100")
    assert asking()("[0] * 99") == [0] * 99


def test_an_error_that_cannot_be_shown():
    class Sly(Exception):
        def __str__(self):
            raise ValueError

    def f():
        raise Sly

    with pytest.raises(Wrong, match="stops with Sly: an error that cannot be shown"):
        asking(f=f)("f()")


def test_hidden_questions_show_neither_themselves_nor_what_they_give():
    secret = 0.1234

    def leak(z):
        raise ValueError(f"{z}")

    def here(expression, inputs, points):
        return decode(evaluate({"leak": leak, "none": None}, expression, inputs, points))

    ask = Ask(here, hidden=lambda: True)
    for expression in ("leak(z)", "none", "object()", "[None]"):
        with pytest.raises(Wrong) as e:
            ask(expression, z=secret)
        assert expression not in str(e.value)
        assert "0.1234" not in str(e.value)

    def forged(expression, inputs, points):
        raise Failed("stops", "0.1234", "Error_0_1234")

    with pytest.raises(Wrong, match=r"stops with an error$"):
        Ask(forged, hidden=lambda: True)("f")


# -- comparing


@given(st.floats(-1e3, 1e3), st.sampled_from([np.float32, np.float64, complex, int]))
@settings(deadline=None)
def test_close_takes_every_honest_dtype(value, dtype):
    value = float(round(value)) if dtype is int else value
    Ask.close(np.asarray(value).astype(dtype), value, "the value", atol=1e-6)
    with pytest.raises(Wrong, match="the value"):
        Ask.close(np.asarray(value + 1 + 1e-2 * abs(value)).astype(dtype), value, "the value")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (True, "a number or an array is wanted, not True or False"),
        ("3.0", "a number or an array is wanted, not text"),
        ([1.0, [2.0]], "a number or an array is wanted, not a list"),
        ({}, "not a dict"),
        (10**400, "not a value of type int"),
        (np.array([]), r"the shape is \(0,\), not \(\)"),
        ([3.0, 3.0], r"the shape is \(2,\), not \(\)"),
        (float("nan"), "not finite"),
        (3 + 1j, "the mass$"),
        (3.001, "the mass$"),
        (np.float32(3.01), "the mass$"),
        (-1.7e308, "the mass$"),
    ],
)
def test_close_refuses(answer, words):
    with pytest.raises(Wrong, match=words):
        Ask.close(answer, 3.0, "the mass")


@pytest.mark.parametrize("expected", [[], [float("nan")], np.inf, "3", True, None])
def test_close_refuses_a_test_that_compares_nothing(expected):
    with pytest.raises(ValueError, match="nothing to compare"):
        Ask.close(expected, expected, "anything")


def test_close_leaves_room_for_single_precision_and_shapes():
    Ask.close([np.float32(1 / 3)], 1 / 3, "a third")
    Ask.close(np.full((1, 2), 1 + 0j), [1, 1], "ones")
    with pytest.raises(Wrong):
        Ask.close(1 / 3 + 2e-6, 1 / 3, "a third")


@pytest.mark.parametrize(
    "condition", [False, [], np.array([]), np.array([True, True]), 1, "yes", float("nan"), None]
)
def test_only_a_true_boolean_is_true(condition):
    with pytest.raises(Wrong, match="it is symmetric"):
        Ask.true(condition, "it is symmetric")
    for yes in (True, np.True_, np.array(True)):
        Ask.true(yes, "it is symmetric")


@pytest.mark.parametrize("value", [0.2, -0.1, float("nan"), float("inf"), "0", True, [0, 0], 0j])
def test_below_refuses(value):
    with pytest.raises(Wrong, match="the drift"):
        Ask.below(value, 0.2, "the drift")
    Ask.below(np.array([0.1]), 0.2, "the drift")


# -- the student's side


def test_check_prints_one_line_and_never_raises(capsys):
    names = {"one": 1.0, "text": "1"}
    for body, mark in [
        (lambda ask: ask.close(ask("one"), 1.0, "one"), "✓ passes"),
        (lambda ask: ask.close(ask("one"), 2.0, "the number two"), "✗ the number two"),
        (lambda ask: ask("two"), "– not answered yet: there is no `two`"),
        (lambda ask: ask("text") - 1.0, "✗ it cannot be checked: TypeError"),
    ]:
        line = said(names, body, capsys)
        assert line.startswith("Question 1a: " + mark)
        assert line.count("\n") == 1


def test_importing_the_students_side_is_light():
    code = (
        "import sys, companion.homework\n"
        "heavy = {'torch', 'sympy', 'scipy', 'matplotlib', 'nbformat', 'nbgrader', 'IPython'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# -- symbols


HALF = {"m": [2.0, 3.0], "Derivative(q(t), t)": [1.0, 2.0]}


@pytest.mark.parametrize(
    "form",
    [
        m * qdot**2 / 2,
        sympy.Symbol("m", positive=True) * qdot**2 / 2,
        sympy.Symbol("m", commutative=False) * qdot**2 / 2,
        sympy.Dummy("m") * qdot**2 / 2,
        (m * sympy.Derivative(q**2, t) / (2 * q) * qdot).expand() / 2,
        m * sympy.Function("q")(sympy.Symbol("t", real=True)).diff() ** 2 / 2,
        sympy.Integral(m * x * qdot**2, (x, 0, 1)),
        sympy.log(sympy.exp(m * qdot**2 / 2)),
        m * sympy.sqrt(-(qdot**2)) * sympy.sqrt(-(qdot**2)) / -2,
        sympy.Sum(m * qdot**2 / 4, (sympy.Symbol("k"), 0, 1)),
    ],
    ids=str,
)
def test_a_kinetic_energy_in_any_form(form):
    points = HALF | ({"q(t)": [1.0, 2.0]} if form.has(q) else {})
    values = asking(T=form).symbolic("T", **points)
    np.testing.assert_allclose(values, [1.0, 6.0], rtol=1e-12)


@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0))
@settings(deadline=None, max_examples=10)
def test_special_functions_by_sympy_itself(a, b):
    from scipy import special

    e = sympy.gamma(m) + sympy.erf(x) + sympy.elliptic_k(-x) + sympy.besselj(0, m * x)
    right = special.gamma(a) + special.erf(b) + special.ellipk(-b) + special.jv(0, a * b)
    np.testing.assert_allclose(symbolic_values(e, {"m": [a], "x": [b]}), right, rtol=1e-12)


def test_shapes_of_symbolic_values():
    ask = asking(M=sympy.Matrix([[m, 1], [x, 2]]), v=[m, (x, 1)[0]], c=3, A=sympy.Array([m, x]))
    points = {"m": np.arange(1.0, 4.0), "x": 2.0}
    assert ask.symbolic("M", **points).shape == (3, 2, 2)
    np.testing.assert_array_equal(ask.symbolic("M", **points)[:, 0, 0], [1, 2, 3])
    assert ask.symbolic("v", **points).shape == (3, 2)
    assert ask.symbolic("A", **points).shape == (3, 2)
    np.testing.assert_array_equal(ask.symbolic("c", **points), [3, 3, 3])
    np.testing.assert_array_equal(ask.symbolic("c"), [3])


def test_indexed_symbols_and_entries_of_matrices():
    momenta, matrix = sympy.IndexedBase("p"), sympy.MatrixSymbol("R", 2, 2)
    e = momenta[0] * matrix[0, 1]
    np.testing.assert_allclose(symbolic_values(e, {"p[0]": [2.0], "R[0, 1]": [3.0]}), [6.0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (m * x, "has x, which the question does not know"),
        (m * q, r"has q\(t\), which the question does not know"),
        (m * sympy.Derivative(qdot, t), r"has Derivative\(q\(t\), \(t, 2\)\), which"),
        (sympy.Eq(m, 2), r"this is an equation, .* give one side of it \(`.rhs`\)"),
        (m < 2, "this is an equation"),
        ("m * 2", "text, where a sympy expression is wanted: leave the quotes out"),
        (sympy.Function("q"), r"q is a function; an expression is wanted, such as q\(t\)"),
        (lambda: 1, "a Python function, where"),
        (sympy.sqrt(-m), "values that are not real"),
        (m * sympy.physics.units.kilogram, r"has units \(kilogram\); give plain numbers"),
        ([], "an empty list"),
        ([m, [m]], "different shapes"),
        (object(), "this is a object, where a sympy expression"),
        ({1: m}, "where a sympy expression"),
        ([m, None], "one of the expressions is None"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_answer_is_said_in_words(answer, words):
    with pytest.raises(Wrong, match=words):
        asking(L=answer).symbolic("L", **HALF)


def test_a_forgotten_acceleration_is_not_taken_for_zero():
    """The derivative of a number would be zero, if the function were replaced first."""
    points = {"m": [1.0], "q(t)": [2.0], "Derivative(q(t), t)": [3.0]}
    with pytest.raises(Wrong, match="does not know"):
        asking(L=m * q.diff(t, 2) + q).symbolic("L", **points)


def test_an_expression_not_answered_yet():
    with pytest.raises(Unanswered, match="`L` is None"):
        asking(L=None).symbolic("L", m=1.0)


def test_a_forged_symbolic_answer_is_refused():
    for forged in ("6", [6.0], np.array(["6"]), np.zeros(3), np.zeros((2, 0), int), {}):
        with pytest.raises(Wrong):
            Ask(lambda *_, forged=forged: forged).symbolic("L", m=[1.0, 2.0])
