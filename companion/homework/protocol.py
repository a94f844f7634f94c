"""What passes between a submission and its grader: plain data, as one line of JSON a message.

The grader does not trust a line of it. There is no pickle, no `eval`, no name of a class: numbers,
text, lists, dicts with text as keys, and arrays of ten kinds of number, whose shape must agree with
the number of their bytes. `encode` and `decode` translate a value, `pack` and `unpack` a message.
"""

import base64
import json
import math
import numbers
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["ProtocolError", "clean", "decode", "encode", "pack", "plain", "unpack"]

DEPTH = 16  # lists in lists
ITEMS = 200_000  # numbers, texts and lists in one value, an array being one
INTEGER_BITS = 1 << 13  # Python prints no integer that is much longer
DTYPES = ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
DTYPES += ("<f2", "<f4", "<f8", "<c8", "<c16")
_KINDS = {"b", "i", "u", "f", "c"}


class ProtocolError(ValueError):
    """A message that the other side cannot have written in good faith."""


def plain(value: Any) -> Any:
    """A value as plain data: what `ask` returns.

    None, `...`, booleans, integers, floats, complex numbers and text stay; arrays, numpy's numbers
    and torch tensors become numpy arrays with their dtype; lists and tuples become lists, mappings
    dicts with text as keys; sympy's and Python's other numbers become numbers.

    Raises TypeError for anything else, with what came.
    """
    return _plain(value, 0)


def _plain(value: Any, depth: int) -> Any:
    if depth > DEPTH:
        raise TypeError(f"lists more than {DEPTH} deep, where numbers are wanted")
    if value is None or value is Ellipsis or isinstance(value, bool):
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, int):  # of subclasses (IntEnum, numpy's float64) the base
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, complex):
        return complex(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), depth)
    if hasattr(value, "detach") and hasattr(value, "resolve_conj"):  # of torch, not imported here
        return _tensor(value)
    if isinstance(value, list | tuple | range):
        return [_plain(x, depth + 1) for x in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(x, depth + 1) for k, x in value.items()}
    if type(value).__module__.partition(".")[0] == "sympy":
        return _sympy_number(value, depth)
    if isinstance(value, numbers.Real):  # fractions
        return float(value)
    raise TypeError(f"this is {_a(type(value).__name__)}, where a number or an array is wanted")


def _array(array: np.ndarray, depth: int) -> Any:
    if array.dtype.kind == "O":  # e.g. sympy's numbers in an array
        return _plain(array.tolist(), depth)
    if array.dtype.kind == "U" and array.ndim == 0:
        return str(array)
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"this is an array of {array.dtype}, where numbers are wanted")
    if array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):  # extended precision
        return array.astype(complex if array.dtype.kind == "c" else float)
    return np.array(array, dtype=array.dtype.newbyteorder("<"), copy=True, subok=False)


def _tensor(value: Any) -> np.ndarray:
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.layout.__str__() != "torch.strided":
        value = value.to_dense()
    if str(value.dtype).startswith(("torch.bfloat", "torch.float8")):
        value = value.float()
    return np.array(value.numpy(), copy=True)


def _sympy_number(value: Any, depth: int) -> Any:
    if hasattr(value, "tolist") and not getattr(value, "is_Atom", False):  # a matrix
        return _plain(value.tolist(), depth)
    if type(value).__name__ in ("BooleanTrue", "BooleanFalse"):
        return bool(value)
    if not getattr(value, "is_number", False):
        text = f"{value}"
        raise TypeError(f"this is the expression {text:.80}, where a number is wanted")
    if value.is_Integer:
        return int(value)
    number = complex(value)
    return float(value) if number.imag == 0 and value.is_real is not False else number


def _a(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


# -- values ---------------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """Plain data as what JSON can say; the inverse of `decode`.

    A torch tensor is sent as a tensor (to the submission; what comes back from it is arrays).
    Raises TypeError for what is not plain data, too deep, or too large.
    """
    return _encode(value, 0, [ITEMS])


def _encode(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise TypeError(f"more than {ITEMS} items; give an array")
    if depth > DEPTH:
        raise TypeError(f"lists more than {DEPTH} deep")
    if isinstance(value, np.bool_ | np.integer | np.float64 | np.complex128):
        value = value.item()  # a single number that Python has too; float32 stays an array
    if value is None or isinstance(value, bool):
        return value
    if value is Ellipsis:
        return {"ellipsis": 0}
    if isinstance(value, np.ndarray | np.generic):
        return {"array": _encode_array(np.asarray(value))}
    if isinstance(value, int):
        if value.bit_length() > INTEGER_BITS:
            raise TypeError(f"an integer of {value.bit_length()} bits is too large")
        return int(value) if value.bit_length() < 63 else {"int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, complex):
        return {"complex": [_encode(x, depth, left) for x in (value.real, value.imag)]}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [_encode(x, depth + 1, left) for x in value]
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise TypeError("a dict whose keys are not text")
        return {"dict": [[k, _encode(x, depth + 1, left)] for k, x in value.items()]}
    if hasattr(value, "detach"):
        return {"tensor": _encode_array(_tensor(value))}
    raise TypeError(f"{_a(type(value).__name__)} cannot be sent")


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    if array.dtype.str not in DTYPES:
        raise TypeError(f"an array of {array.dtype} cannot be sent")
    data = base64.b64encode(array.tobytes()).decode("ascii")  # tobytes: in C order
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def decode(message: Any, *, tensors: bool = False) -> Any:
    """The value that `encode` turned into `message`, which is not trusted.

    `tensors` allows torch tensors, and imports torch for one: for the submission's side only.
    Raises ProtocolError for everything that `encode` cannot have said.
    """
    return _decode(message, 0, [ITEMS], tensors)


def _decode(message: Any, depth: int, left: list[int], tensors: bool) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ProtocolError(f"more than {ITEMS} items")
    if depth > DEPTH:
        raise ProtocolError(f"more than {DEPTH} levels")
    if message is None or isinstance(message, bool | int | str):
        return message
    if isinstance(message, float):
        if not math.isfinite(message):
            raise ProtocolError("a number that is not finite")
        return message
    if isinstance(message, list):
        return [_decode(x, depth + 1, left, tensors) for x in message]
    if not isinstance(message, dict) or len(message) != 1:
        raise ProtocolError("an object that is not a value")
    ((kind, body),) = message.items()
    if kind == "array":
        return _decode_array(body)
    if kind == "tensor" and tensors:
        import torch

        return torch.from_numpy(_decode_array(body))
    if kind == "dict" and isinstance(body, list):
        pairs = [_pair(x) for x in body]
        return {k: _decode(x, depth + 1, left, tensors) for k, x in pairs}
    if kind == "complex":
        real, imag = (_decode(x, depth, left, False) for x in _pair(body, float, dict))
        if not (isinstance(real, float) and isinstance(imag, float)):
            raise ProtocolError("a complex number that is none")
        return complex(real, imag)
    if kind == "float" and body in ("nan", "inf", "-inf"):
        return float(body)
    if kind == "int" and isinstance(body, str) and len(body) <= INTEGER_BITS // 4 + 3:
        return _hex(body)
    if kind == "ellipsis" and body == 0:
        return Ellipsis
    raise ProtocolError("an unknown kind of value")


def _pair(body: Any, *kinds: type) -> list[Any]:
    first = kinds or (str,)
    if not (isinstance(body, list) and len(body) == 2 and isinstance(body[0], first)):
        raise ProtocolError("a pair that is none")
    return body


def _hex(text: str) -> int:
    digits = text.removeprefix("-").removeprefix("0x")
    if not digits or not set(digits) <= set("0123456789abcdef"):
        raise ProtocolError("an integer that is none")
    return -int(digits, 16) if text.startswith("-") else int(digits, 16)


def _decode_array(body: Any) -> np.ndarray:
    if not isinstance(body, dict) or set(body) != {"dtype", "shape", "data"}:
        raise ProtocolError("an array without its parts")
    name, shape, data = body["dtype"], body["shape"], body["data"]
    if not (isinstance(name, str) and name in DTYPES):
        raise ProtocolError("an array of an unknown dtype")
    if not (isinstance(shape, list) and len(shape) <= DEPTH and all(type(n) is int for n in shape)):
        raise ProtocolError("an array whose shape is not a list of integers")
    if not all(0 <= n < 1 << 31 for n in shape) or math.prod(n for n in shape if n) >= 1 << 31:
        raise ProtocolError("an array of an impossible shape")
    if not isinstance(data, str):
        raise ProtocolError("an array without data")
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError:  # binascii.Error is one; so is text that is not ASCII
        raise ProtocolError("an array whose data is not base64") from None
    dtype = np.dtype(name)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ProtocolError("an array whose shape does not agree with its data")
    if dtype.kind == "b" and raw.strip(b"\0\1"):
        raise ProtocolError("an array of booleans that are none")
    return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="))


# -- messages -------------------------------------------------------------------------------------


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as one line."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def unpack(line: bytes) -> dict[str, Any]:
    """The message in one line, which is not trusted. Raises ProtocolError."""
    try:
        message = json.loads(line, parse_int=_short_int, parse_constant=_refuse)
    except (ValueError, RecursionError, MemoryError):  # of JSON, of UTF-8, too deep, too large
        raise ProtocolError("a line that is not a message") from None
    if not isinstance(message, dict):
        raise ProtocolError("a line that is not a message")
    return message


def _short_int(text: str) -> int:
    if len(text) > 20:  # Python's own conversion of long ones takes a time quadratic in the length
        raise ValueError("a long integer")
    return int(text)


def _refuse(text: str) -> float:
    raise ValueError(text)


def clean(text: Any, limit: int) -> str:
    """Text from a submission that is safe to print and to store: at most `limit` characters.

    Control and formatting characters but newline and tab become U+FFFD (a terminal would obey
    them), unpaired surrogates too (no file could be written with them). Of a line that was written
    over with carriage returns, as progress bars do, the last version stays.
    """
    if not isinstance(text, str):
        return ""
    cut = text[: 2 * limit].replace("\r\n", "\n")
    if "\r" in cut:
        cut = "\n".join(_last_version(line) for line in cut.split("\n"))
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(c if c in "\n\t" or _harmless(c) else "\ufffd" for c in cut)
    if len(cut) > limit or len(text) > 2 * limit:
        cut = cut[: max(0, limit - 2)] + " …"
    return cut


def _last_version(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")


def _harmless(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") or c == "\u200d"
