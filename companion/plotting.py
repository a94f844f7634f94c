r"""The figures of the book speak one language; it is defined here, once.

Truth is black, the symmetric network blue, the unconstrained one orange, integrator error grey.
Each also has its own line style, so that a figure survives grey printing and colour blindness.
`show` gives a figure its alternative text, `slider` makes a figure that the reader moves without
a kernel. Nothing here changes matplotlib's settings outside `with style():`.
"""

import base64
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from companion import _svg

TRUTH = "black"
SYMMETRIC = "#0072B2"
PLAIN = "#D55E00"
INTEGRATOR = "0.55"

KINDS: dict[str, dict[str, Any]] = {
    "truth": {"color": TRUTH, "linestyle": "-", "linewidth": 1.2, "zorder": 2.1},
    "symmetric": {"color": SYMMETRIC, "linestyle": "-", "linewidth": 2.0, "zorder": 2.3},
    "plain": {"color": PLAIN, "linestyle": (0, (4, 1.5)), "linewidth": 1.6, "zorder": 2.2},
    "integrator": {"color": INTEGRATOR, "linestyle": (0, (1, 1)), "linewidth": 1.6, "zorder": 2.0},
}
SLIDER_LIMIT = 400_000  # bytes


def style(**changes) -> AbstractContextManager:
    """The settings of the book's figures: `with style(): fig, ax = plt.subplots()`.

    5 inches wide with 11-point letters, so that the text is still read on a phone 390 pixels
    wide. `changes` are further rcParams, with `_` for the dot: `style(figure_figsize=(5, 5))`.
    """
    settings: dict[Any, Any] = {
        "figure.figsize": (5.0, 3.3),
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=[TRUTH, SYMMETRIC, PLAIN, "#009E73", "#CC79A7"]),
        "axes.titlesize": "medium",
        "legend.frameon": False,
        "legend.fontsize": "small",
        "legend.handlelength": 2.6,  # long enough to show the dashes
        "lines.linewidth": 1.6,
    }
    known = {key.replace(".", "_"): key for key in mpl.rcParams}
    for key, value in changes.items():
        if key not in known:
            raise ValueError(f"style got {key!r}, which is no rcParam of matplotlib with _ for .")
        settings[known[key]] = value
    return mpl.rc_context(settings)


def line(kind: str, **changes) -> dict[str, Any]:
    """Keyword arguments of `ax.plot` for "truth", "symmetric", "plain" or "integrator"."""
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r}; expected one of {', '.join(KINDS)}.")
    return KINDS[kind] | changes


def orbit(
    ax: Axes,
    q: torch.Tensor | np.ndarray,
    kind: str = "truth",
    *,
    plane: tuple[int, int] = (0, 1),
    start: bool = True,
    **changes,
) -> None:
    """Draws a trajectory `q`, shape (T, d), in the plane of two of its coordinates.

    A ring marks the start. Lengths are in the units of q, equal on both axes; points that are inf
    or nan (a rollout that blew up) are left out. `changes` go to `ax.plot`.
    """
    x, y = _array(q, "q", 2)[:, list(plane)].T
    ax.plot(x, y, **line(kind, **changes))
    if start:
        color = line(kind, **changes)["color"]
        ax.plot(x[:1], y[:1], "o", color=color, markerfacecolor="white", markersize=6, zorder=3)
    ax.set_aspect("equal")


def drift(
    ax: Axes,
    t: torch.Tensor | np.ndarray,
    delta: torch.Tensor | np.ndarray,
    kind: str = "symmetric",
    *,
    label: str | None = None,
    **changes,
) -> None:
    r"""Draws relative deviations $\delta I(t)$ over time on a logarithmic axis.

    `t` has shape (T,); `delta` (T,) or (T, S), one line for each of S seeds: thin, and their
    median over seeds thick. Exact zeros (t = 0) have no logarithm and are left out.
    """
    t, delta = _array(t, "t", 1), _array(delta, "delta", (1, 2))
    if len(t) != len(delta):
        raise ValueError(f"t has {len(t)} entries and delta {len(delta)}; give one t for each.")
    delta = np.where(delta > 0, delta, np.nan)
    look = line(kind, **changes)
    if delta.ndim == 2 and delta.shape[1] > 1:
        thin: dict[str, Any] = look | {"linewidth": 0.6, "alpha": 0.35}
        ax.plot(t, delta, **thin)
        blown = np.where(np.isnan(delta) & (t[:, None] > t[0]), np.inf, delta)
        delta = np.median(blown, axis=1)
    ax.plot(t, np.where(np.isfinite(delta), delta, np.nan), label=label, **look)
    ax.set_yscale("log")
    ax.set_xlabel("time $t$")
    ax.set_ylabel(r"relative deviation $\delta(t)$")


def phase_portrait(
    ax: Axes,
    energy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    q_limits: Sequence[float | int],
    p_limits: Sequence[float | int],
    *,
    levels: int | Sequence[float | int] = 12,
    points: int = 160,
) -> None:
    """Draws the level lines of `energy(q, p)` for one degree of freedom, as thin grey lines.

    `energy` takes tensors of shape (n, 1), such as `system.energy`. Trajectories (T, 2) go on top
    with `ax.plot(*y.T, **line("symmetric"))`.
    """
    q = torch.linspace(q_limits[0], q_limits[1], points, dtype=torch.float64)
    p = torch.linspace(p_limits[0], p_limits[1], points, dtype=torch.float64)
    grid = torch.cartesian_prod(p, q)
    with torch.no_grad():
        height = energy(grid[:, 1:], grid[:, :1]).reshape(points, points)
    chosen = np.asarray(levels, dtype=float)
    if isinstance(levels, int):
        chosen = np.quantile(height.numpy(), np.linspace(0, 1, levels + 1)[1:-1])
    ax.contour(q, p, height, levels=np.unique(chosen), colors="0.8", linewidths=0.8, linestyles="-")
    ax.set(xlim=q_limits, ylim=p_limits, xlabel="$q$", ylabel="$p$")


class Html:
    """HTML that a notebook shows; as plain text it says what the figure shows."""

    def __init__(self, markup: str, text: str):
        self.markup = markup
        self.text = text

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return f"<{self.text}>"


def show(fig: Figure, alt: str, caption: str | None = None, *, format: str = "png") -> Html:
    """The figure as an image with alternative text, as the last expression of a cell.

    Matplotlib's own output has none. `alt` says what is there, `caption` what to see. The output
    is the same on every run; the figure is closed, so that it does not appear twice.
    `format` is "png" (drawn at twice the size it is shown in) or "svg".
    """
    _check_text("alt", alt)
    if format == "png":
        data, kind = _png_of(fig), "png"
    elif format == "svg":
        content, box = _svg.merge([_svg_of(fig)], "f")
        root = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" style="{_svg.ROOT_STYLE}">'
        data, kind = f"{root}{content}</svg>".encode(), "svg+xml"
    else:
        raise ValueError(f'format = {format!r}; expected "png" or "svg".')
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    width = round(96 * fig.get_figwidth())
    image = (
        f'<img alt="{html.escape(alt)}" src="{source}" width="{width}" '
        'style="max-width:100%;height:auto;background:#fff">'
    )
    _close(fig)
    return Html(_figure(image, caption, width), f"figure: {alt}")


_MOVE = (
    "var f=this.closest('figure'),i=this.value,s=f.querySelector('svg'),"
    "l=JSON.parse(this.dataset.labels)[i];"
    "f.querySelectorAll('g[data-frame]').forEach(function(g){"
    "if(g.dataset.frame===i)g.removeAttribute('display');else g.setAttribute('display','none')});"
    "f.querySelector('output').textContent=l;this.setAttribute('aria-valuetext',l);"
    "s.setAttribute('aria-label',s.dataset.alt+' '+l)"
)


def slider(
    frames: Sequence[Figure | str] | Callable[[int], Figure | str],
    labels: Sequence[str],
    *,
    name: str,
    alt: str,
    value: int = 0,
    label: str | None = None,
    caption: str | None = None,
) -> Html:
    """A figure that the reader moves: precomputed frames under a slider, without a kernel.

    `frames` are figures (closed here), SVG texts, or a function of the index; `labels` names each
    ("e = 0.8"). `name` (letters, digits, hyphens) makes the ids and must be used once a page;
    `label` stands before the slider (default: the name). `value` is the frame shown first. It works
    on a page, in Jupyter and Colab, offline and by keyboard, and is the same on every run. Draw all
    frames with the same size and limits: what they share is stored once.

    Raises `ValueError` if the parts do not fit, or if the result exceeds 400 kB.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"name = {name!r}; it becomes an id: small letters, digits and hyphens.")
    _check_text("alt", alt)
    labels = [str(text) for text in labels]
    if callable(frames):
        frames = [_svg_of(frames(i)) for i in range(len(labels))]
    frames = [_svg_of(frame) for frame in frames]
    if len(frames) != len(labels) or len(frames) < 2:
        raise ValueError(
            f"{len(frames)} frames and {len(labels)} labels; expected as many labels as frames, "
            "and at least two."
        )
    if not 0 <= value < len(frames):
        raise ValueError(f"value = {value}; expected an index from 0 to {len(frames) - 1}.")

    content, box = _svg.merge(frames, name, value)
    width = round(1.6 * float(box.split()[2]))
    words = html.escape(label or name.replace("-", " "))
    now, what = html.escape(labels[value]), html.escape(alt)
    body = (
        f'<svg viewBox="{box}" role="img" aria-label="{what} {now}" data-alt="{what}" '
        f'style="display:block;width:100%;height:auto;background:#fff;{_svg.ROOT_STYLE}">'
        f"{content}</svg>"
        '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:.2em .7em">'
        f'<label for="{name}">{words}</label>'
        f'<input type="range" id="{name}" min="0" max="{len(frames) - 1}" step="1" value="{value}" '
        f'autocomplete="off" aria-valuetext="{now}" '
        f'data-labels="{html.escape(json.dumps(labels, ensure_ascii=False))}" oninput="{_MOVE}" '
        'style="flex:1 1 10em;min-width:0;height:2em">'
        f'<output for="{name}" style="min-width:5em">{now}</output></div>'
    )
    markup = _figure(body, caption, width)
    size = len(markup.encode())
    if size > SLIDER_LIMIT:
        raise ValueError(
            f"the slider {name!r} is {size / 1000:.0f} kB, the limit is {SLIDER_LIMIT // 1000} kB; "
            "plot fewer points, use fewer frames, or keep limits and ticks the same in all frames."
        )
    return Html(markup, f"slider {name}: {len(frames)} frames, {labels[0]} to {labels[-1]}; {alt}")


def _figure(body: str, caption: str | None, width: int) -> str:
    words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure style="margin:0 0 1em;max-width:{width}px">{body}{words}</figure>'


def _svg_of(frame: Figure | str) -> str:
    if isinstance(frame, str):
        return frame
    # Glyphs as outlines look the same without matplotlib's fonts, and are stored once a slider.
    settings: dict[Any, Any] = {
        "svg.fonttype": "path",
        "svg.hashsalt": "companion",
        "path.simplify_threshold": 0.3,
    }
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(settings):
        text = _saved(frame, format="svg", metadata=metadata).decode()
    _close(frame)
    return text


def _png_of(fig: Figure) -> bytes:
    """A PNG at twice the size, in 256 colours: a quarter of the bytes, and no visible change."""
    image = Image.open(io.BytesIO(_saved(fig, format="png", dpi=192))).convert("RGB")
    buffer = io.BytesIO()
    palette = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(buffer, "png", optimize=True)  # holds no version and no date
    return buffer.getvalue()


def _saved(fig: Figure, **options) -> bytes:
    # The first layout does not know yet what equal axes do to a panel, and cuts its title off.
    fig.draw_without_rendering()
    buffer = io.BytesIO()
    fig.savefig(buffer, facecolor="white", **options)
    return buffer.getvalue()


def _close(fig: Figure) -> None:
    import matplotlib.pyplot as plt

    plt.close(fig)


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise ValueError(
            f"{name} is empty; say what the figure shows to someone who cannot see it."
        )


def _array(values: torch.Tensor | np.ndarray, name: str, dims: int | tuple[int, ...]) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    values = np.asarray(values, dtype=float)
    if values.ndim not in np.atleast_1d(dims):
        raise ValueError(f"{name} has shape {values.shape}; expected {dims} axes.")
    return np.where(np.isfinite(values), values, np.nan)
