"""The card that a shared link to the book shows, from the stored curves of the Kepler experiment.

python -m tools.card        writes book/_static/card.png
"""

import io
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import torch
from PIL import Image

from companion import artifacts, plotting, systems

CARD = Path(__file__).resolve().parent.parent / "book" / "_static" / "card.png"
SIZE = (1200, 630)  # what messengers and forums ask for
TITLE = "Symmetry by\nConstruction"
WORDS = "Derive the law, check it,\nbuild it into the network,\ntrain."


def draw() -> bytes:
    """A PNG of the title beside the two orbits, in few colours: every reader's link loads it."""
    curves = artifacts.load_curves("kepler")
    ellipse = systems.Kepler().orbit(torch.linspace(0, 2 * torch.pi, 200))[0]
    with plotting.style(figure_figsize=(12, 6.3), figure_constrained_layout_use=False):
        fig = plt.figure()
        fig.text(0.06, 0.88, TITLE, fontsize=50, weight="bold", va="top", linespacing=1.15)
        fig.text(0.06, 0.46, WORDS, fontsize=27, va="top", linespacing=1.5, color="0.25")
        rows = (("unconstrained", "plain", 0.5), ("invariant", "symmetric", 0.02))
        for variant, kind, bottom in rows:
            ax = fig.add_axes((0.56, bottom, 0.41, 0.47))
            plotting.orbit(ax, curves[f"{variant}.q"][::2, 0], kind, linewidth=2, linestyle="-")
            plotting.orbit(ax, ellipse, "truth", zorder=3, linewidth=1.2)
            ax.set(xlim=(-6.3, 1.7), ylim=(-2.4, 2.4))
            ax.axis("off")
        buffer = io.BytesIO()
        fig.savefig(buffer, dpi=100, facecolor="white")
        plt.close(fig)
    image = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    buffer = io.BytesIO()
    palette = image.quantize(32, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    CARD.write_bytes(draw())
