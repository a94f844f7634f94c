"""Small, deterministic SVG for inlining in HTML: what `companion.plotting` builds sliders from.

Matplotlib writes each frame as a whole document. Here frames are taken apart and written as one:
what all frames share is written once, what differs goes into `<g data-frame="i">`; definitions
(clip paths, markers, glyphs) are written once under ids that begin with the name of the figure.
"""

import difflib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

# Inherited by everything inside; matplotlib says it in a <style> that would leak into the page.
ROOT_STYLE = "stroke-linejoin:round;stroke-linecap:butt"
_LENGTHS = {"x", "y", "x1", "x2", "y1", "y2", "width", "height", "cx", "cy", "r", "rx", "ry"}
_REFERENCE = re.compile(r"(?<=#)[^)'\"\s]+")


def merge(frames: Sequence[str], name: str, shown: int = 0) -> tuple[str, str]:
    """Several SVG documents as one: its content and its viewBox. Only frame `shown` is visible.

    Raises `ValueError` if the frames differ in size or refer to an id that they do not define.
    """
    definitions: dict[str, str] = {}  # content -> new id, shared by all frames
    layers, boxes = [], []
    for text in frames:
        root = _plain(ET.fromstring(text))
        boxes.append(root.get("viewBox") or f"0 0 {root.get('width')} {root.get('height')}")
        renamed = _hoist(root, definitions, name)
        layers.append([_write(element, renamed) for element in _leaves(root)])
    odd = next((i for i, box in enumerate(boxes) if box != boxes[0]), None)
    if odd is not None:
        raise ValueError(
            f"frames[{odd}] has the viewBox {boxes[odd]!r} and frames[0] has {boxes[0]!r}; "
            "draw every frame with the same figsize."
        )
    parts = ["<defs>", *(_with_id(content, i) for content, i in definitions.items()), "</defs>"]
    parts += _interleave(layers, shown)
    return "".join(parts), boxes[0]


def _plain(root: ET.Element) -> ET.Element:
    """Drops namespaces, metadata, matplotlib's global style and needless digits."""
    for parent in root.iter():
        parent.tag = parent.tag.split("}")[-1]
        for child in list(parent):
            tag = child.tag.split("}")[-1] if isinstance(child.tag, str) else "comment"
            leaks = tag == "style" and (child.text or "").startswith("*")
            if leaks or tag in ("metadata", "comment", "script", "title", "desc"):
                parent.remove(child)
        if parent.tag not in ("text", "tspan", "style"):
            parent.text = None
        parent.tail = parent.tail if parent.tag == "tspan" else None
        parent.attrib = {
            (short := key.split("}")[-1]): _shorter(short, value)
            for key, value in parent.attrib.items()
        }
        if parent.attrib.get("transform") == "":
            del parent.attrib["transform"]
    return root


def _shorter(key: str, value: str) -> str:
    if key == "d":
        return shorter_path(value)
    if key == "style":
        return re.sub(r"\s*([:;])\s*", r"\1", value)
    if key in _LENGTHS:
        return _rounded(value)
    if key == "transform":
        value = re.sub(r"rotate\(-?0( [^)]*)?\)", "", value)
        return re.sub(r"(translate|rotate)\([^)]*\)", lambda m: _rounded(m[0]), value).strip()
    return value


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text)


def shorter_path(d: str) -> str:
    """The same path with one decimal, relative and without separators that are not needed.

    Coordinates are rounded before differences are taken, so rounding does not add up.
    Paths with other commands than M, L, Q, C, Z (matplotlib's) are returned as they are.
    """
    if re.search(r"[^MLQCZz\d\s.,+-]", d):
        return d
    out, here, start, last = [], (0, 0), (0, 0), ""
    for command, text in re.findall(r"([MLQCZz])([^MLQCZz]*)", d):
        numbers = [round(10 * float(n)) for n in re.findall(r"[-+]?[\d.]+", text)]
        if command in "Zz":
            out.append("z")
            here, last = start, "z"
            continue
        size = {"M": 2, "L": 2, "Q": 4, "C": 6}[command]
        for i in range(0, len(numbers), size):
            group = numbers[i : i + size]
            end = (group[-2], group[-1])
            if command == "M":
                out.append("M" + _joined(group))
                start, last = end, "M"
            elif end != here or command != "L" or last == "M":
                relative = [n - here[k % 2] for k, n in enumerate(group)]
                letter = command.lower()
                joined = _joined(relative)
                space = "" if last != letter or joined.startswith("-") else " "
                out.append((letter if last != letter else space) + joined)
                last = letter
            here = end
    return "".join(out)


def _joined(tenths: list[int]) -> str:
    text = ""
    for n in tenths:
        whole, rest = divmod(abs(n), 10)
        number = ("-" if n < 0 else "") + (str(whole) if whole or not rest else "")
        number += f".{rest}" if rest else ""
        text += number if not text or number.startswith("-") else " " + number
    return text


def _hoist(root: ET.Element, definitions: dict[str, str], name: str) -> dict[str, str]:
    """Takes every <defs> out of the frame; returns old id -> new id."""
    renamed: dict[str, str] = {}
    for parent in list(root.iter()):
        for defs in parent.findall("defs"):
            parent.remove(defs)
            for element in defs:
                old = element.attrib.pop("id", None)
                content = _write(element, renamed)
                new = definitions.setdefault(content, f"{name}-{len(definitions)}")
                if old is not None:
                    renamed[old] = new
    return renamed


def _leaves(element: ET.Element) -> Iterator[ET.Element]:
    """The children, with groups that only group replaced by what they hold."""
    for child in element:
        child.attrib.pop("id", None)
        if child.tag == "g" and not child.attrib:
            yield from _leaves(child)
        else:
            if child.tag == "g":
                inner = list(_leaves(child))
                child[:] = inner
            yield child


def _write(element: ET.Element, renamed: dict[str, str]) -> str:
    for part in element.iter():
        for key, value in part.attrib.items():
            if value.startswith("#") or "url(#" in value:
                part.set(key, _REFERENCE.sub(lambda m: _new_id(m[0], renamed), value))
    return ET.tostring(element, encoding="unicode").replace(" />", "/>")


def _new_id(old: str, renamed: dict[str, str]) -> str:
    if old not in renamed:
        raise ValueError(f"a frame refers to #{old}, which none of its <defs> defines.")
    return renamed[old]


def _with_id(content: str, new: str) -> str:
    return re.sub(r"^<(\w+)", rf'<\1 id="{new}"', content)


def _interleave(layers: list[list[str]], shown: int) -> Iterator[str]:
    """Shared elements once, the rest of each frame in its group, in the order of drawing."""
    if len(layers) == 1:
        yield from layers[0]
        return
    common = layers[0]
    for layer in layers[1:]:
        blocks = difflib.SequenceMatcher(None, common, layer, autojunk=False).get_matching_blocks()
        common = [common[block.a + k] for block in blocks for k in range(block.size)]
    done = [0] * len(layers)  # how many elements of each frame are written
    for shared in [*common, None]:
        for i, layer in enumerate(layers):
            stop = len(layer) if shared is None else layer.index(shared, done[i])
            own = "".join(layer[done[i] : stop])
            done[i] = stop + 1
            if own:
                hidden = "" if i == shown else ' display="none"'
                yield f'<g data-frame="{i}"{hidden}>{own}</g>'
        if shared is not None:
            yield shared
