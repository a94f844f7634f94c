"""The process in the sandbox: runs a submission's cells and answers what tests ask of it.

Started as a file, with its settings as JSON in the first argument. Messages come and go on two
pipes, one line of JSON each, every reply with the nonce of its request. A submission can write to
these pipes too; the grader allows for it.
"""

import base64
import builtins
import contextlib
import io
import json
import os
import resource
import signal
import site
import sys
import threading
from typing import Any

OUTPUTS = 200  # of one cell: lines of text are one output


class Collected:
    """The outputs of a cell as nbformat has them, in order, up to limits of size and number."""

    def __init__(self, text: int, images: int) -> None:
        self._text, self._images, self._full = text, images, False
        self.failed = False
        self._lock = threading.Lock()  # threads of a submission print too
        self.outputs: list[dict[str, Any]] = []

    def _add(self, output: dict[str, Any]) -> None:
        if len(self.outputs) < OUTPUTS:
            self.outputs.append(output)
        elif not self._full:
            self._cut()

    def _cut(self) -> None:
        if not self._full:
            self._full = True
            note = "\n… (there is more output than is kept)\n"
            self.outputs.append({"output_type": "stream", "name": "stderr", "text": [note]})

    def stream(self, name: str, text: str) -> None:
        with self._lock:
            kept, last = text[: self._text], self.outputs[-1] if self.outputs else {}
            self._text -= len(kept)
            if kept and not self._full and last.get("name") == name:
                last["text"].append(kept)
            elif kept:
                self._add({"output_type": "stream", "name": name, "text": [kept]})
            if len(kept) < len(text):
                self._cut()

    def rich(self, kind: str, data: dict[str, Any], **more: Any) -> None:
        with self._lock:
            kept: dict[str, str] = {}
            for mime, value in data.items():
                if mime in ("text/plain", "text/latex") and isinstance(value, str):
                    kept[mime] = value[: self._text]
                    self._text -= len(kept[mime])
                elif mime == "image/png":
                    if isinstance(value, bytes):
                        value = base64.b64encode(value).decode("ascii")
                    if len(value) <= self._images:
                        self._images -= len(value)
                        kept[mime] = value
            self._add({"output_type": kind, "data": kept, "metadata": {}, **more})

    def error(self, name: str, value: str, traceback: str) -> None:
        part = (
            traceback if len(traceback) < 8000 else traceback[:3000] + "\n…\n" + traceback[-4000:]
        )
        self.failed = True
        error = {"ename": name, "evalue": value[:2000], "traceback": [part]}
        with self._lock:
            self._add({"output_type": "error", **error})

    def all(self) -> list[dict[str, Any]]:
        with self._lock:
            for output in self.outputs:
                if "text" in output:
                    output["text"] = "".join(output["text"])
            return self.outputs


class Stream(io.TextIOBase):
    """What `print` writes to."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        self._name = name
        self.into: Collected | None = None

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.into is not None:
            self.into.stream(self._name, text)
        return len(text)


def make_shell(out: Stream, err: Stream) -> Any:
    """An IPython shell without history, colours or a terminal, that collects what it shows."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Hook(DisplayHook):
        """Results of cells go to the grader and are not printed."""

        def write_output_prompt(self) -> None:
            pass

        def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
            if out.into is not None:
                out.into.rich("execute_result", format_dict)

        def finish_displayhook(self) -> None:
            pass

    class Publisher(DisplayPublisher):
        """What cells display goes to the grader."""

        def publish(self, data: Any, *args: Any, **kwargs: Any) -> None:
            if out.into is not None:
                out.into.rich("display_data", data)

        def clear_output(self, wait: bool = False) -> None:
            pass

    class Shell(InteractiveShell):
        """IPython without a terminal or a window."""

        def init_io(self) -> None:
            pass

        def enable_gui(self, gui: Any = None) -> None:
            pass

        def _tee(self, channel: str) -> Any:
            return contextlib.nullcontext()  # IPython 9 keeps all that is printed, without limit

        def ask_exit(self) -> None:
            print("exit does nothing while grading", file=err)

        def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
            if out.into is not None:
                text = stb if isinstance(stb, str) else self.InteractiveTB.stb2text(stb)
                with contextlib.suppress(Exception):
                    out.into.error(etype.__name__, str(evalue), text)

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.xmode = "Context"
    config.InteractiveShell.history_length = 0
    for name, kind in (("displayhook_class", Hook), ("display_pub_class", Publisher)):
        setattr(Shell, name, kind)
    shell: Any = Shell.instance(config=config)
    for name in ("pip", "conda", "mamba", "uv"):
        shell.register_magic_function(_no_installing, "line", name)
    return shell


def _no_installing(line: str) -> None:
    print("nothing is installed while grading")


def _no_input(prompt: object = "") -> str:
    raise RuntimeError("input() has nobody to ask while grading")


class Child:
    """Reads requests and answers them, until the pipe is closed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._text, self._images = settings["text"], settings["images"]
        self._replies = settings["replies"]
        self._out, self._err = Stream("stdout"), Stream("stderr")
        sys.stdout, sys.stderr = self._out, self._err
        self._shell: Any = None
        self._busy, self._pid = False, os.getpid()

    def interrupted(self, *_: Any) -> None:
        if self._busy and os.getpid() == self._pid:
            raise KeyboardInterrupt

    def reply(self, message: dict[str, Any]) -> None:
        from companion.homework.protocol import pack

        rest = memoryview(pack(message))
        while rest:
            rest = rest[os.write(self._replies, rest) :]

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        signal.signal(signal.SIGINT, self.interrupted)  # the submission may have changed it
        try:
            try:
                self._busy = True
                answer = self.run if request["do"] == "run" else self.ask
                return answer(request)
            finally:
                self._busy = False
        except KeyboardInterrupt:
            return {"stopped": True}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        self._out.into = self._err.into = into = Collected(self._text, self._images)
        sys.stdout, sys.stderr = self._out, self._err
        if self._shell is None:
            self._shell = make_shell(self._out, self._err)
        stopped = False
        try:
            result = self._shell.run_cell(request["source"], store_history=True)
            failed, raised = not result.success, result.error_in_exec or result.error_before_exec
            stopped = isinstance(result.error_in_exec, KeyboardInterrupt)
            if raised is not None and not into.failed:  # even the traceback could not be made
                into.error(type(raised).__name__, str(raised), "")
        except KeyboardInterrupt:
            failed = stopped = True
        self._out.into = self._err.into = None
        return {"outputs": into.all(), "failed": failed, "stopped": stopped}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        from companion.homework.asking import Failed, evaluate
        from companion.homework.protocol import decode

        namespace = self._shell.user_ns if self._shell is not None else {}
        inputs = decode(request["inputs"], tensors=True)
        points = decode(request["points"])
        try:
            return {"value": evaluate(namespace, request["expression"], inputs, points)}
        except Failed as e:
            return {"failed": e.kind, "text": e.text, "error": e.error}

    def serve(self, requests: int, nonce: str) -> None:
        self.reply({"id": nonce, "pid": os.getpid()})
        with os.fdopen(requests, "rb") as lines:
            for line in lines:
                request = json.loads(line)
                try:
                    answer = self.handle(request)
                except Exception as e:
                    answer = {"failed": "stops", "text": "", "error": type(e).__name__}
                if os.getpid() != self._pid:  # a copy that a cell made with fork and let run on
                    os._exit(0)
                self.reply({"id": request["id"], **answer})


def limit(settings: dict[str, Any]) -> None:
    """The limits that a process sets for itself and all that it starts, and cannot lift."""
    own_user = settings["own_user"] and _kernel() >= (5, 14)  # counted apart from the operator's
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": settings["memory"],
        "RLIMIT_FSIZE": settings["disk"],
        "RLIMIT_CPU": settings["seconds"],
        "RLIMIT_NOFILE": 256,
        "RLIMIT_NPROC": 8 * settings["processes"] if own_user else None,  # threads count too
    }
    for name, value in wanted.items():
        which = getattr(resource, name, None)
        if which is None or value is None:
            continue
        hard = resource.getrlimit(which)[1]
        value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(which, (value, value))


def _kernel() -> tuple[int, ...]:
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(x) for x in numbers if x.isdigit()) if sys.platform == "linux" else (0,)


def main() -> None:
    """Runs cells and answers questions, as the pipe asks, until it is closed."""
    settings = json.loads(sys.argv[1])
    for folder in settings["sites"]:
        if folder not in sys.path:
            site.addsitedir(folder)
    sys.path.append(settings["course"])  # the folder that holds `companion`, and nothing else
    sys.argv = [""]
    limit(settings)
    child = Child(settings)
    builtins.input = _no_input
    signal.signal(signal.SIGINT, child.interrupted)
    for n in ("requests", "replies"):
        os.set_inheritable(settings[n], False)
    import companion.homework.asking  # noqa: F401  (a request finds it whatever a cell does)

    silence = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(silence, fd)
    os.close(silence)
    child.serve(settings["requests"], settings["nonce"])


if __name__ == "__main__":
    main()
