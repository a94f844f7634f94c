"""The picture of the README, drawn from the stored curves of the Kepler experiment.

python -m tools.picture          writes book/_static/kepler.svg
python -m tools.picture check    says whether it is the picture of the curves that are stored
"""

import hashlib
import re
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from companion import artifacts, plotting, systems

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "kepler.svg"


def fingerprint() -> str:
    """The checksum of the stored curves."""
    return hashlib.sha256(
        (artifacts.folder("kepler") / "curves.safetensors").read_bytes()
    ).hexdigest()


def check() -> list[str]:
    """What is wrong with the picture: nothing, or one line."""
    found = re.search(r"curves ([0-9a-f]{64})", PICTURE.read_text()) if PICTURE.exists() else None
    if found and found[1] == fingerprint():
        return []
    return ["book/_static/kepler.svg does not show the stored curves: python -m tools.picture"]


def draw() -> None:
    """Draws orbits and drift of both networks."""
    import torch

    curves = artifacts.load_curves("kepler")
    ellipse = systems.Kepler().orbit(torch.linspace(0, 2 * torch.pi, 200))[0]
    with plotting.style(figure_figsize=(8.4, 3.0), svg_hashsalt="kepler"):
        fig, (left, middle, right) = plt.subplots(1, 3, width_ratios=(1, 1, 1.25))
        rows = ((left, "unconstrained", "plain"), (middle, "invariant", "symmetric"))
        for ax, variant, kind in rows:
            plotting.orbit(ax, curves[f"{variant}.q"][::2, 0], kind, linewidth=1.2)
            plotting.orbit(ax, ellipse, "truth", zorder=3, linewidth=0.7)
            ax.set(xlim=(-6, 2), ylim=(-3.5, 3.5), title=f"{variant} network", xlabel="$x$")
            drift = curves[f"{variant}.delta_L_true"][::4]
            plotting.drift(right, curves["t"][::4], drift, kind, label=variant)
        own = curves["invariant.delta_L_NN"][::4]
        plotting.drift(right, curves["t"][::4], own, "symmetric", label="its own", linestyle=":")
        left.set_ylabel("$y$")
        right.set(ylim=(1e-13, 10), title="loss of angular momentum", ylabel="")
        right.legend(loc="center right", bbox_to_anchor=(1.0, 0.37))
        about = {"Date": None, "Creator": None, "Description": f"curves {fingerprint()}"}
        fig.savefig(PICTURE, metadata=about)


def main() -> int:
    """Draws, or checks; the exit status is 1 if the check finds something."""
    if sys.argv[1:] == ["check"]:
        wrong = check()
        print("\n".join(wrong))
        return 1 if wrong else 0
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
