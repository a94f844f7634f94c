"""companion.homework.execute: submissions run in the sandbox, judged outside of it.

Everything hostile here runs inside the sandbox, and is skipped where that cannot start.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from companion.homework import _worker
from companion.homework.execute import Code, Limits, Outcome, Test, run
from companion.homework.sandbox import Sandbox

SMALL = Limits(
    cell=1.0, submission=60.0, memory=600 << 20, processes=8, disk=8 << 20, text=5000, reply=1 << 20
)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """A sandbox that works, or no test."""
    found = Sandbox()
    if why := found.why_not():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture(scope="module", autouse=True)
def impatient():
    """Short waits for what does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_worker, "GRACE", 1.0)
        patch.setattr(_worker, "PATIENCE", 20.0)
        yield


def asks(expression: str, expected: object, id: str, hidden: bool = False, **inputs) -> Test:
    given = "".join(f", {k}={v}" for k, v in inputs.items())
    lines = [
        "with check('1') as ask:",
        f"    ask.close(ask({expression!r}{given}), {expected}, 'it')",
    ]
    if hidden:
        lines = [lines[0], "    ### BEGIN HIDDEN TESTS", lines[1], "    ### END HIDDEN TESTS"]
    return Test("\n".join(lines), id)


def text(outcome: Outcome, id: str) -> str:
    return "".join(o.get("text", "") for o in outcome.codes[id].outputs)


# -- honest submissions

EVERY_KIND = """
import torch
with check("1") as ask:
    z = np.array([1 + 2j, 3], dtype=np.complex64)
    told = ask("[type(t).__name__, str(t.dtype), list(t.shape), str(z.dtype), s, n, d]",
               t=torch.zeros(2, 3), z=z, s="θ", n=10**30, d={"a": [1.5]})
    right = ["Tensor", "torch.float32", [2, 3], "complex64", "θ", 10**30, {"a": [1.5]}]
    ask.true(told == right, "every kind of input")
    back = ask("z.conj()", z=z)
    ask.true(back.dtype == np.complex64, "its dtype")
    ask.close(back, z.conj(), "its value")
"""

HONEST = [
    Code("import numpy as np\nimport sympy\nimport torch", "setup"),
    Code("def momentum(m, v):\n    return m * v\nprint('hello')\nmomentum(2, 3)", "answer-1"),
    asks("momentum(m, v)", 6.0, "1a", m=2.0, v=3.0),
    asks("[momentum(a, 2) for a in m]", [2, 4], "1b", hidden=True, m=[1, 2]),
    asks("momentum(m, m)", 5.0, "1c", m=2.0),
    Code("def energy(z):\n    ...  # your code here", "answer-2"),
    asks("energy(1.0)", 1.0, "2"),
    Code("1 / 0\nlost = 1", "answer-3"),
    asks("lost", 1.0, "3"),
    Code("t = sympy.Symbol('t')\nL = t * sympy.Symbol('m') / 2\ndisplay(L)", "answer-4"),
    Test("with check('4') as ask:\n    x = np.arange(3.0)\n"
         "    ask.close(ask.symbolic('L', t=x, m=4.0), 2 * x, 'L')", "4"),
    Code("W = torch.eye(2, dtype=torch.float32) * 3\nawaited = await_ = 1", "answer-5"),
    asks("W @ torch.as_tensor(z)", "[3.0, 6.0]", "5", z="np.array([1.0, 2.0], np.float32)"),
    Code("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])", "figure"),
    Code("%pip install nothing\n!echo from the shell\ninput('?')", "magic"),
    Code("import sys\nexit()\nsys.exit(3)", "exits"),
    Code("import os, time\nif os.fork() == 0:\n    time.sleep(0.1)\nforked = 1", "forks"),
    asks("forked", 1.0, "6"),
    Test(EVERY_KIND, "7"),
]  # fmt: skip


@pytest.fixture(scope="module")
def honest(sandbox) -> Outcome:
    return run(HONEST, sandbox, Limits(cell=30.0))


@pytest.mark.parametrize("id", ["1a", "1b", "4", "5", "6", "7"])
def test_right_answers_pass(honest, id):
    assert honest.tests[id].passed, honest.tests[id]
    assert honest.tests[id].message == honest.tests[id].fault == ""


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("1c", "it"),
        ("2", "not answered yet: `energy(1.0)` is None"),
        ("3", "not answered yet: there is no `lost`"),
    ],
)
def test_wrong_answers_are_told_why(honest, id, message):
    assert not honest.tests[id].passed
    assert honest.tests[id].message == message


def test_results_stand_in_the_order_of_the_cells(honest):
    assert [r.id for r in honest.results] == [c.id for c in HONEST]
    assert honest.restarts == 0
    assert honest.notes == []
    assert 0 < sum(r.seconds for r in honest.results) <= honest.seconds


def test_outputs_are_those_of_a_notebook(honest):
    assert [o["output_type"] for o in honest.codes["answer-1"].outputs] == [
        "stream",
        "execute_result",
    ]
    assert text(honest, "answer-1") == "hello\n"
    latex = honest.codes["answer-4"].outputs[0]["data"]["text/latex"]
    assert r"\frac{m t}{2}" in latex
    assert any("image/png" in o.get("data", {}) for o in honest.codes["figure"].outputs)
    assert text(honest, "magic") == "nothing is installed while grading\nfrom the shell\n"
    assert "nobody to ask" in honest.codes["magic"].message


def test_an_exception_is_shown_and_does_not_stop_the_rest(honest):
    ran = honest.codes["answer-3"]
    assert ran.status == "error"
    assert ran.message == "this cell stops with ZeroDivisionError: division by zero"
    assert "----> 1 1 / 0" in ran.outputs[-1]["traceback"][0]
    assert honest.codes["exits"].message == "this cell stops with SystemExit: 3"


# -- limits


STEPS = [
    Code("one = 1\nimport os, time", "one"),
    Code("print('so far', flush=True)\nkept = 1\nwhile True:\n    pass", "loop"),
    asks("kept", 1.0, "names before a loop are kept"),
    Code(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass",
        "loop that is not interrupted",
    ),
    asks("one", 1.0, "after a loop that is not interrupted"),
    Code("time.sleep(1000)", "sleep"),
    Code("big = bytearray(10**11)", "one large array"),
    asks("one", 1.0, "after one large array"),
    Code("while True:\n    os.fork()", "fork bomb"),
    Code("os._exit(0)", "exit"),
    Code("import ctypes\nctypes.string_at(0)", "crash"),
    Code("os.kill(0, 9)", "kill"),
    Code("while True:\n    print('x' * 1000)", "endless text"),
    Code("while True:\n    display(one)", "endless outputs"),
    Code("raise ValueError('x' * 10**7)", "endless error"),
    Code("open('/tmp/big', 'wb').write(bytes(9 << 20))", "disk"),
    asks("one", 1.0, "at the end"),
]  # fmt: skip


@pytest.fixture(scope="module")
def limited(sandbox) -> Outcome:
    return run(STEPS, sandbox, SMALL)


@pytest.mark.parametrize("id", [step.id for step in STEPS if isinstance(step, Test)])
def test_what_is_right_counts_whatever_else_happens(limited, id):
    assert limited.tests[id].passed, limited.tests[id]


@pytest.mark.parametrize(
    ("id", "status", "message"),
    [
        ("loop", "stopped", "this cell was stopped after 1 s, which is the limit"),
        ("loop that is not interrupted", "killed", "was stopped after 1 s, which is the limit"),
        ("sleep", "stopped", "was stopped after 1 s"),
        ("one large array", "error", "stops with MemoryError"),
        ("fork bomb", "killed", "started more than 8 processes"),
        ("exit", "killed", "ended the Python process"),
        ("crash", "killed", "ended the Python process"),
        ("kill", "killed", "ended the Python process"),
        ("endless text", "", "was stopped after 1 s"),
        ("endless outputs", "", "was stopped after 1 s"),
        ("endless error", "error", "stops with ValueError: xxx"),
        ("disk", "error", "stops with OSError"),
    ],
)
def test_limits(limited, id, status, message):
    ran = limited.codes[id]
    assert ran.status == status if status else ran.status in ("stopped", "killed"), ran
    assert message in ran.message
    assert ran.outputs
    assert len(str(ran.outputs)) < 40_000


def test_what_was_printed_before_a_limit_is_kept(limited):
    assert text(limited, "loop") == "so far\n"


def test_no_process_survives(sandbox):
    """Neither of a submission that ends well, nor of one whose process left others behind."""
    mark = f"left-{os.getpid()}"
    leave = f"""
import os, subprocess
for _ in range(2):
    subprocess.Popen(["/bin/sleep", "1000"], env={{"MARK": "{mark}"}}, start_new_session=True)
"""
    run([Code(leave, "a"), Code("os._exit(0)", "b"), Code(leave, "c")], sandbox, SMALL)

    def environment(pid: str) -> bytes:
        try:
            return Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""

    left = [p for p in os.listdir("/proc") if p.isdigit() and mark.encode() in environment(p)]
    assert left == []


def test_memory(sandbox):
    """Of one process an allocation fails; what is shared is watched; neither starves the rest."""
    own = "heap = []\nwhile True:\n    heap.append(bytearray(10**7))"
    shared = "import mmap\nheap = []\nwhile True:\n    heap.append(mmap.mmap(-1, 10**7))\n"
    shared += "    heap[-1].write(bytes(10**7))"
    rest = "fine = len(bytearray(15 * 10**7))"
    cells = [Code(own, "own"), Code(shared, "shared"), Code(rest, "rest"), asks("fine", 1.5e8, "1")]
    outcome = run(cells, sandbox, Limits(memory=300 << 20))
    assert outcome.codes["own"].status == outcome.codes["shared"].status == "killed"
    assert "stops with MemoryError" in outcome.codes["own"].message
    assert outcome.codes["shared"].message == "this cell needed more than 0.3 GiB of memory"
    assert outcome.tests["1"].passed, outcome.tests["1"]


def test_the_time_of_a_submission(sandbox):
    loop = "while True:\n    pass"
    cells = [Code("one = 1", "one"), asks("one", 1.0, "before")]
    cells += [Code(loop, f"loop {i}") for i in range(4)]
    cells += [Code("two = 2", "late"), asks("two", 2.0, "after")]
    outcome = run(cells, sandbox, Limits(cell=1.0, submission=2.5))
    assert outcome.tests["before"].passed
    assert outcome.codes["loop 0"].status == "stopped"
    assert outcome.codes["loop 3"].status == outcome.codes["late"].status == "not run"
    assert any("for the notebook were over" in ran.message for ran in outcome.codes.values())
    assert not outcome.tests["after"].passed
    assert outcome.tests["after"].message == "not checked: the 2.5 s for the notebook are over"


def test_a_bound_on_fresh_processes(sandbox):
    cells = [asks("__import__('os')._exit(0)", 1.0, str(i)) for i in range(4)]
    outcome = run(cells, sandbox, Limits(restarts=1))
    assert [outcome.tests[str(i)].message.split(" (")[0] for i in range(4)] == [
        "`__import__('os')._exit(0)` ended the Python process",
        "`__import__('os')._exit(0)` ended the Python process",
        "not checked: the process had to be started too often",
        "not checked: the process had to be started too often",
    ]


# -- submissions that attack the grader


HOOK = """
import gc, os, sys, time
child = next(o for o in gc.get_objects() if type(o).__name__ == "Child")
pipe = child._replies
say = lambda line: os.write(pipe, line)
honest = child.ask
"""
ATTACKS = {
    "another nonce": 'say(b\'{"id": "0", "value": 6.0}\\n\'); time.sleep(0.6)',
    "no nonce": "say(b'{\"value\": 6.0}\\n'); time.sleep(0.6)",
    "no message": "say(b'6.0\\n')",
    "half a line": "say(b'{\"id\"'); child.reply = lambda m: None",
    "endless line": "while True: say(b'x' * 65536)",
    "endless lines": "while True: say(b'{}\\n' * 1000)",
    "too deep": "say(b'[' * 900_000 + b'\\n')",
    "many small things": "say(b'[' + b'{},' * 300_000 + b'{}]\\n')",
    "a long integer": "say(b'9' * 900_000 + b'\\n')",
    "silence": "child.reply = lambda m: None",
    "closed": "os.close(pipe)",
    "dead, the pipe kept open": "if os.fork():\n    os._exit(0)\nelse:\n    time.sleep(1000)",
    "the grader's own side": "say(b'x'); os.kill(os.getppid(), 9); os.kill(1, 9)",
}
CELLS = [Code("one = 1", "one")]
for name, attack in ATTACKS.items():
    CELLS += [Code(HOOK + attack, name), asks("one", 1.0, f"after {name}")]


@pytest.fixture(scope="module")
def attacked(sandbox) -> Outcome:
    return run(CELLS, sandbox, SMALL)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_cell_that_attacks_the_pipe_costs_itself_only(attacked, name):
    assert attacked.codes[name].status == "killed", attacked.codes[name]
    assert attacked.tests[f"after {name}"].passed, attacked.tests[f"after {name}"]


REPLIES = {
    "lying shape": "lambda r: {'value': {'array': {'dtype': '<f8', 'shape': [9], 'data': ''}}}",
    "pickle": "lambda r: {'value': {'array': {'dtype': '|O', 'shape': [1], 'data': ''}}}",
    "unknown": "lambda r: {'value': {'__class__': 'os.system'}}",
    "nothing": "lambda r: {}",
    "failed": "lambda r: {'failed': ['x'], 'text': {'x': 1}, 'error': 3}",
    "a text": "lambda r: {'value': '6.0'}",
    "true": "lambda r: {'value': True}",
    "not a number": "lambda r: {'value': {'float': 'nan'}}",
    "empty": "lambda r: {'value': {'array': {'dtype': '<f8', 'shape': [0], 'data': ''}}}",
    "a large integer": "lambda r: {'value': {'int': hex(10**2000)}}",
    "a zero of size 1e6": "lambda r: {'value': 'x' * 2_000_000}",
    "patched comparisons": (
        "honest; import numpy, builtins; numpy.allclose = numpy.isclose = lambda *a: True;"
        " builtins.abs = lambda x: 0.0; six = 0.0"
    ),
}


@pytest.fixture(scope="module")
def forged(sandbox) -> dict[str, Outcome]:
    """One cell each, replayed after each restart, so a run each."""
    return {
        name: run([Code(f"six = 5.0\n{HOOK}\nchild.ask = {reply}", "forge"), asks("six", 6.0, "1")],
                  sandbox, SMALL)
        for name, reply in REPLIES.items()
    }  # fmt: skip


@pytest.mark.parametrize("name", REPLIES)
def test_forged_replies_gain_nothing(forged, name):
    outcome = forged[name]
    if (
        name == "6.0, twice"
    ):  # the first of the two is an answer, if a forged one: five would be too
        return
    assert not outcome.tests["1"].passed
    assert outcome.tests["1"].message
    assert outcome.tests["1"].fault == ""


def test_a_second_answer_is_not_taken_for_the_next_one(sandbox):
    """A process that runs one answer ahead is dropped before its next answer is read."""
    twice = "child.ask = lambda r: [child.reply({'id': r['id'], 'value': 6.0}), honest(r)][1]"
    cells = [Code(HOOK + twice, "forge"), asks("1.0", 6.0, "1"), asks("7.0", 7.0, "2")]
    outcome = run(cells, sandbox, SMALL)
    assert not outcome.tests["2"].passed
    refusals = ("without being asked", "more than one", "to another question")  # as they arrive
    assert any(words in note for words in refusals for note in outcome.notes)


def test_a_process_that_does_not_read_its_questions(sandbox):
    """A request larger than the pipe must not block the grader."""
    deaf = HOOK + (
        "def ask(r):\n    child.reply({'id': r['id'], 'value': 1.0})\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    while True:\n        pass\n"
        "import signal\nchild.ask = ask"
    )
    cells = [Code(deaf, "deaf"), asks("1.0", 1.0, "1"), asks("z[0]", 0.0, "2", z="np.zeros(10**5)")]
    began = time.monotonic()
    outcome = run(cells, sandbox, SMALL)
    assert time.monotonic() - began < 60
    assert not outcome.tests["2"].passed
    assert "was stopped after 1 s" in outcome.tests["2"].message


def test_expressions_that_hang_crash_or_grow(sandbox):
    cells = [
        Code("import os\ndef loop():\n    while True:\n        pass", "a"),
        asks("loop()", 1.0, "loop"),
        asks("os._exit(1)", 1.0, "exit"),
        asks("bytearray(10**11)", 1.0, "grow"),
        asks("[0.0] * 10**6", 1.0, "long"),
        asks("'x' * 10**7", 1.0, "large"),
        asks("len(str(2 ** 10**10))", 1.0, "one long step"),
        asks("1.0", 1.0, "last"),
    ]  # fmt: skip
    outcome = run(cells, sandbox, Limits(cell=1.5))
    said = {k: t.message for k, t in outcome.tests.items()}
    assert said["loop"] == "`loop()` was stopped after 1.5 s, which is the limit"
    assert said["exit"] == "`os._exit(1)` ended the Python process"
    assert said["grow"].startswith("`bytearray(10**11)` stops with MemoryError")
    assert "more than 200000 items; give an array" in said["long"]
    assert said["large"] == "`'x' * 10**7` gave the grader something that is no answer"
    assert [k for k, t in outcome.tests.items() if t.passed] == ["last"]


# -- tests themselves


def test_hidden_tests_do_not_show(sandbox):
    answer = (
        "def f(z):\n    print('seen', z)\n    raise ValueError(f'seen {z}')\n"
        "class Told(Exception): pass\n"
        "def g(z):\n    raise type(f'T{z}'.replace('.', '_'), (Exception,), {})(z)\nnone = None"
    )
    cells = [Code(answer, "a")]
    cells += [
        asks(f"{e}", 1.0, e, hidden=True, z=0.1234) for e in ("f(z)", "g(z)", "none", "os._exit(z)")
    ]
    cells += [asks("f(z)", 1.0, "visible", z=2.0)]
    outcome = run(cells, sandbox, SMALL)
    everything = "".join(str(r) for r in outcome.results if r.id != "visible")
    everything = everything.replace("id='f(z)'", "").replace("id='g(z)'", "")
    everything = everything.replace("id='none'", "").replace("id='os._exit(z)'", "")
    for secret in ("1234", "f(z)", "g(z)", "none", "_exit", "seen"):
        assert secret not in everything
    assert outcome.tests["f(z)"].message == "what a hidden check asks for stops with ValueError"
    assert outcome.tests["visible"].message == "`f(z)` stops with ValueError: seen 2.0"


def test_a_test_that_fails_by_itself_is_a_fault_for_the_operator(sandbox):
    cells = [
        Code("word = 'six'", "a"),
        Test("with check('1') as ask:\n    ask.close(ask('word') - 6.0, 0.0, 'secret')", "type"),
        Test("x = 6.0", "asks nothing"),
        Test("with check('1') as ask:\n    pass", "asks nothing either"),
        Test("with check(", "syntax"),
        Test("with check('1') as ask:\n    ask('lambda: 0', f=print)", "cannot be sent"),
        Test(
            "with check('1') as ask:\n    ask.close(np.float64(1e308) * ask('10.0'), 1.0, 'x')", "w"
        ),
    ]
    outcome = run(cells, sandbox, SMALL)
    for id, fault in [
        ("type", "TypeError: unsupported operand"),
        ("asks nothing", "a test that asks nothing"),
        ("asks nothing either", "a test that asks nothing"),
        ("syntax", "SyntaxError"),
        ("cannot be sent", "cannot be sent"),
    ]:
        judged = outcome.tests[id]
        assert not judged.passed
        assert fault in judged.fault
        assert judged.message == "the answer is not of the kind that is asked for"
    assert outcome.tests["w"].message == "x: there is a value that is not finite"  # and no warning


def test_a_test_that_never_ends(sandbox, monkeypatch):
    """And an alarm that was set before goes on."""
    rang = []
    old = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    before = signal.setitimer(signal.ITIMER_REAL, 60.0)
    try:
        monkeypatch.setattr("companion.homework.execute.PATIENCE", 0.1)
        endless = "with check('1') as ask:\n    while True:\n        try:\n            ask('1.0')\n"
        endless += "            while True: pass\n        except Exception: pass"
        outcome = run([Test(endless, "1")], sandbox, Limits(cell=1.0, submission=8.0))
        assert outcome.tests["1"].message == "not checked: comparing this answer takes too long"
        assert 40.0 < signal.getitimer(signal.ITIMER_REAL)[0] < 60.0
        assert not rang
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, old)


def test_ids_must_be_unique(sandbox):
    with pytest.raises(ValueError, match="must be unique"):
        run([Code("", "a"), Code("", "a")], sandbox)
