"""What a submission's cell showed, from a process that may say anything."""

import base64
from typing import Any

from companion.homework.protocol import clean
from companion.homework.sandbox import Limits

__all__ = ["error", "outputs"]


def outputs(said: Any, limits: Limits) -> list[dict[str, Any]]:
    """Outputs of a cell as nbformat wants them, from a process that may say anything.

    Text is cleaned and cut; of rich outputs plain text, LaTeX and PNG pictures are kept.
    """
    room, images, kept = limits.text + 10_000, limits.images, []
    for output in said[:1000] if isinstance(said, list) else []:
        if not isinstance(output, dict):
            continue
        kind = output.get("output_type")
        if kind == "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            new = {"output_type": kind, "name": name, "text": clean(output.get("text"), room)}
            used = len(new["text"])
        elif kind == "error":
            lines = output.get("traceback")
            text = clean(lines[0], min(room, 8000)) if isinstance(lines, list) and lines else ""
            new = error(clean(output.get("ename"), 100), clean(output.get("evalue"), 2000), text)
            used = len(text) + len(new["evalue"])
        elif kind in ("display_data", "execute_result"):
            data = output.get("data")
            data = _rich(data if isinstance(data, dict) else {}, room, images)
            images -= len(data.get("image/png", ""))
            new = {"output_type": kind, "data": data, "metadata": {}}
            if kind == "execute_result":
                new["execution_count"] = None
            used = sum(len(text) for mime, text in data.items() if mime != "image/png")
        else:
            continue
        room -= used
        kept.append(new)
        if room <= 0:
            break
    return kept


def _rich(data: dict[str, Any], room: int, images: int) -> dict[str, str]:
    kept = {m: clean(data[m], room // 2) for m in ("text/plain", "text/latex") if m in data}
    png = data.get("image/png")
    if isinstance(png, str) and len(png) <= images and _is_png(png):
        kept["image/png"] = png
    return kept


def _is_png(text: str) -> bool:
    try:
        return base64.b64decode(text, validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    except ValueError:
        return False


def error(name: str, value: str, text: str = "") -> dict[str, Any]:
    """An error as an output."""
    lines = [text or f"{name}: {value}"]
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": lines}
