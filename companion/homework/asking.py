"""Questions about a student's answers: asked in the notebook, or of a process in a sandbox.

A test cell is written once:

    with check("1a") as ask:
        ask.close(ask("momentum(m, v)", m=2.0, v=3.0), 6.0, "the momentum of 2 kg at 3 m/s")

`ask` evaluates an expression in the student's namespace and returns plain data; what it is
compared with stays where the test runs. In the student's notebook that is the same place, and the
result is one printed line. In grading `ask` speaks to the sandbox, the comparison is made outside,
and nothing that the submission does to numpy, to `assert` or to its own files reaches it.
"""

import builtins
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from companion.homework.protocol import clean, decode, encode, plain

__all__ = ["Ask", "Check", "Evaluate", "Failed", "Unanswered", "Wrong", "checker", "evaluate"]

Evaluate = Callable[[str, dict[str, Any], dict[str, Any] | None], Any]
SINGLE = 1e-4  # the relative tolerance of an answer in float32, where double precision has 1e-6


class Wrong(AssertionError):
    """An answer that is not right; the message is for the student."""


class Unanswered(Wrong):
    """A question to which there is no answer yet."""


class Failed(Exception):
    """An expression that has no value; `kind` says how.

    "missing": there is no such name, `text`. "stops": it raises `error`, whose message is `text`.
    "unfit": it is not plain data; `text` says what instead. "ended": it brought its process to an
    end, or was stopped; `text` goes on from "it".
    """

    def __init__(self, kind: str, text: str, error: str = "") -> None:
        super().__init__(kind, text, error)
        self.kind, self.text, self.error = kind, text, error


class Ask:
    """Asks for values in a student's namespace and compares them.

    `evaluate(expression, inputs, points)` is where: this process, or a sandbox; it raises Failed.
    `hidden()` says whether the question asked now is one that students do not see: then a message
    shows neither its expression nor the text of an error, into which a submission can put inputs.
    """

    def __init__(self, evaluate: Evaluate, hidden: Callable[[], bool] = lambda: False) -> None:
        self._evaluate, self._hidden = evaluate, hidden

    def __call__(self, expression: str, /, **inputs: Any) -> Any:
        """The value of a Python expression in the student's namespace, where `inputs` are bound.

        Numbers, strings, booleans, None, lists, dicts of them; arrays and tensors come as numpy
        arrays with their dtype. Inputs are of the same kinds and are copied. Raises Unanswered
        where a name is missing or the value is None or `...` or has one in it, and Wrong with the
        student's own error where the evaluation fails.
        """
        return self._value(expression, inputs, None)

    def symbolic(self, expression: str, /, **points: Any) -> np.ndarray:
        """The values of a sympy expression (a matrix, a list of them) at points, in float64.

        `points` gives every symbol by its name, whatever its assumptions, an array of shape
        `(n,)` or a number; a function of time is named as it prints, with `**{"q(t)": ...,
        "Derivative(q(t), t)": ...}`. Returns `(n,)`, or `(n, *shape)` of a matrix or list. Raises
        Wrong if the expression has a symbol that is not among the points.
        """
        n = max((np.size(x) for x in points.values()), default=1)
        grid = {k: np.broadcast_to(np.asarray(x, float), (n,)) for k, x in points.items()}
        value = self._value(expression, {}, grid)
        if not (isinstance(value, np.ndarray) and value.dtype == float and value.shape[:1] == (n,)):
            raise Wrong("an expression of sympy is wanted")  # of a process not to be trusted
        return value

    def _value(self, expression: str, inputs: dict[str, Any], points: Any) -> Any:
        hidden = self._hidden()
        name = "what a hidden check asks for" if hidden else f"`{expression:.120}`"
        try:
            value = self._evaluate(expression, inputs, points)
        except Failed as e:
            kind = Unanswered if e.kind == "missing" else Wrong
            raise kind(_sentence(name, e, hidden)) from e
        if (missing := _missing(value)) is not value:
            raise Unanswered(f"not answered yet: {name} has {missing} in it")
        if value is None or value is Ellipsis:
            raise Unanswered(f"not answered yet: {name} is {value}")
        return value

    @staticmethod
    def true(condition: Any, message: str) -> None:
        """Raises Wrong with the message unless the condition is true.

        Only a boolean counts: of an answer that is not what was expected, text or not-a-number
        would pass for true, and so would `all` of an empty array.
        """
        known = np.asarray(condition)
        if known.dtype.kind != "b" or known.size != 1 or not known.all():
            raise Wrong(message)

    @staticmethod
    def close(
        answer: Any,
        expected: Any,
        message: str,
        *,
        rtol: float | int = 1e-6,
        atol: float | int = 1e-9,
    ) -> None:
        """Raises Wrong unless shapes agree and `|answer - expected| <= atol + rtol max|expected|`.

        An answer in float32 is held to `SINGLE`; a real answer may come as complex numbers without
        imaginary part; axes of length one do not count; a boolean is no number. Raises ValueError
        if `expected` is empty or not finite, since then nothing would be compared.
        """
        e = np.asarray(expected)
        if not (e.size and e.dtype.kind in "iufc" and np.isfinite(e).all()):
            raise ValueError(f"there is nothing to compare with: {expected!r:.60}")
        a = _numbers(answer, message)
        single = a.dtype in (np.float32, np.complex64, np.float16)
        a = a.astype(complex if a.dtype.kind == "c" else float)
        if a.squeeze().shape != e.squeeze().shape:
            raise Wrong(f"{message}: the shape is {a.shape}, not {e.shape}")
        if not np.isfinite(a).all():
            raise Wrong(f"{message}: there is a value that is not finite")
        if single:
            rtol, atol = max(rtol, SINGLE), max(atol, SINGLE * 1e-2)
        with np.errstate(all="ignore"):
            wrong = float(np.abs(a.squeeze() - e.squeeze()).max())
        if not wrong <= atol + rtol * float(np.abs(e).max()):
            raise Wrong(message)

    @staticmethod
    def below(value: Any, bound: float | int, message: str) -> None:
        """Raises Wrong unless the value, an error or a drift, is in `[0, bound)`; says both."""
        a = _numbers(value, message)
        if a.size != 1 or a.dtype.kind == "c":
            raise Wrong(f"{message}: one real number is wanted, not {_kind(value)}")
        x = float(a.squeeze())
        if x < 0:
            raise Wrong(f"{message}: {x:.3g}, which is negative")
        if not math.isfinite(x) or x >= bound:
            raise Wrong(f"{message}: {x:.3g}, and less than {bound:.3g} is asked for")


def _missing(value: Any) -> Any:
    """The first None or `...` inside a list or dict, otherwise the value itself."""
    inside = value.values() if isinstance(value, dict) else value
    for x in inside if isinstance(value, list | dict) else ():
        if x is None or x is Ellipsis:
            return x
        if isinstance(x, list | dict) and (found := _missing(x)) is not x:
            return found
    return value


def _numbers(answer: Any, message: str) -> np.ndarray:
    """The answer as an array of numbers; raises Wrong."""
    try:
        a = np.asarray(answer)
        if a.dtype.kind == "O":  # integers beyond 64 bits
            a = a.astype(float)
    except (TypeError, ValueError, OverflowError):
        a = np.asarray("not numbers")
    if a.dtype.kind not in "iufc":
        raise Wrong(f"{message}: a number or an array is wanted, not {_kind(answer)}")
    return a


def _kind(answer: Any) -> str:
    kinds = {str: "text", bool: "True or False", list: "a list", dict: "a dict"}
    if isinstance(answer, np.ndarray):
        return f"an array of {answer.dtype}, of shape {answer.shape}"
    return kinds.get(type(answer), f"a value of type {type(answer).__name__}")


def _sentence(name: str, e: Failed, hidden: bool) -> str:
    if e.kind == "missing":
        known = e.text.isidentifier() and len(e.text) < 80
        return f"not answered yet: there is no `{e.text}`" if known else "not answered yet"
    if e.kind == "ended":
        return f"{name} {e.text}"
    if e.kind == "unfit":
        return f"{name} is not of the kind that is wanted" if hidden else f"{name}: {e.text}"
    if hidden:
        error = getattr(builtins, e.error, None)
        honest = isinstance(error, type) and issubclass(error, BaseException)
        return f"{name} stops with {e.error if honest else 'an error'}"
    return f"{name} stops with {e.error}" + (f": {e.text}" if e.text else "")


class Check:
    """`check("1a")`: the block of a test cell. This one is a student's: it prints, never raises."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._ask = Ask(evaluate)

    @contextmanager
    def __call__(self, question: str) -> Iterator[Ask]:
        try:
            yield self._ask
        except Unanswered as e:
            print(f"Question {question}: – {e}")
        except Wrong as e:
            print(f"Question {question}: ✗ {e}")
        except Exception as e:  # a comparison that this answer does not allow
            print(f"Question {question}: ✗ it cannot be checked: {type(e).__name__}: {_text(e)}")
        else:
            print(f"Question {question}: ✓ passes what is checked here; grading checks more.")


def checker(namespace: dict[str, Any]) -> Check:
    """What a notebook's set-up cell makes: `check = checker(globals())`."""

    def here(
        expression: str, inputs: dict[str, Any], points: Mapping[str, np.ndarray] | None
    ) -> Any:
        return decode(evaluate(namespace, expression, decode(encode(inputs), tensors=True), points))

    return Check(here)


def evaluate(
    namespace: dict[str, Any],
    expression: str,
    inputs: Mapping[str, Any],
    points: Mapping[str, Any] | None,
) -> Any:
    """The encoded value of an expression in a student's namespace, here or in the sandbox.

    With `points` the value is a sympy expression, and its values there are encoded. Raises Failed.
    """
    try:
        value = eval(expression, {**namespace, **inputs})
    except (Exception, SystemExit) as e:  # a student's exit() must not end the notebook either
        if type(e) is NameError and e.name:
            raise Failed("missing", e.name) from e
        raise Failed("stops", _text(e), type(e).__name__) from e
    try:
        if points is None or value is None or value is Ellipsis:
            return encode(plain(value))
        from companion.homework.symbols import symbolic_values  # imports sympy where it is needed

        return encode(symbolic_values(value, points))
    except (TypeError, ValueError) as e:
        raise Failed("unfit", _text(e)) from e
    except (Exception, SystemExit) as e:
        raise Failed("stops", _text(e), type(e).__name__) from e


def _text(e: BaseException) -> str:
    try:
        return clean(str(e), 300)
    except Exception:
        return "an error that cannot be shown"
