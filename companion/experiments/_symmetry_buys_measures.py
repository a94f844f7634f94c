"""The questions that trained networks are asked, and the figures made of their answers.

All answers are state errors of table 1: geometric means over 150 times and `ASKED` trajectories, a
value for each seed.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, metrics
from companion.artifacts import Figure
from companion.experiments import _scarce
from companion.experiments._symmetry_buys_models import Network, defect, judge, paths, state_errors
from companion.experiments._symmetry_buys_worlds import (
    Questions,
    ask,
    move,
    move_given,
    true_paths,
    upright,
)

SEED = 2**21
ASKED = 20  # trajectories at each point of a curve
ANGLES = (0, 5, 10, 20, 30, 45, 60, 90, 135, 180)  # of g from where it was trained, degrees
LAMBDAS = tuple(2 ** (k / 4) for k in range(-4, 5))  # |g|
FACTORS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)  # between the constants and the paper's
FRAMES = ("as trained", "turned about g", "tilted", "moved")
SHOWN = 61  # states of the paths that the book draws
Frame = tuple[Tensor, Tensor]
ERROR = "geometric mean of the state relative error over T = 150"
PAPER = {"scalars": 0.005, "emlp": 0.012, "mlp": 0.028}  # table 1, Hamiltonian networks, n = 500
DEFECT = "rms of F(gz) - g F(z) over rms of F"


def ensembles(networks: Mapping[str, Network], seeds: int) -> dict[str, Network]:
    """The networks to be asked about gravity and frames, one member a seed.

    Of the networks that learned from n trajectories, those with the most. `deaf` ones do not
    listen to features of g alone, see `Network.silenced`.
    """
    last = {
        name.removeprefix("samples-"): net.members(range(net.S - seeds, net.S))
        for name, net in networks.items()
        if name.startswith("samples-")
    }
    found = {name: last[name] for name in ("scalars", "emlp", "mlp", "augmented")}
    return found | {
        **{f"{name}, deaf": last[name].silenced() for name in ("scalars", "gram", "mlp")},
        "scalars, strengths": networks["gravity-scalars"],
        "mlp, everywhere": networks["gravity-mlp"],
        "makes-told": networks["makes-told"].silenced(),
        "makes-units": networks["makes-units"],
    }


BY_ANGLE = ("scalars", "emlp", "mlp", "mlp, deaf", "mlp, everywhere")
BY_FRAME = ("scalars", "emlp", "mlp, deaf", "mlp, everywhere", "augmented")
DRAWN = ("scalars", "emlp", "mlp", "mlp, everywhere")


# Questions --------------------------------------------------------------------------------------


def tilts(angles: Sequence[float | int]) -> Float[Tensor, "k 3 3"]:
    """Rotations about the x axis by these angles in degrees."""
    turn = torch.zeros(len(angles), 3, dtype=torch.float64)
    turn[:, 0] = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
    return groups.SO(3).exp(turn)


def moved(frames: Frame, questions: Questions) -> Questions:
    """Every question in its own frame."""
    z, given, constants = questions
    return move(*frames, z), move_given(*frames, given), constants


def tilted(questions: Questions, angles: Sequence[float | int]) -> Questions:
    """The questions, tilted with their gravity by every angle, angle after angle."""
    n = len(questions[0])
    R = tilts(angles).repeat_interleave(n, 0)
    return moved(
        (R, torch.zeros(len(R), 3, dtype=torch.float64)), joined([questions] * len(angles))
    )


def joined(parts: Sequence[Questions]) -> Questions:
    """Questions one after another."""
    z, given, constants = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return z, given, constants


def some_frames(name: str, n: int) -> Frame:
    """n random frames of a kind of `FRAMES`."""
    generator = torch.Generator().manual_seed(SEED)
    options = {"generator": generator, "dtype": torch.float64}
    R = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
    w = torch.zeros(n, 3, dtype=torch.float64)
    if name == "turned about g":
        R = upright(groups.O(2).sample(n, **options))
    if name in ("tilted", "anywhere"):
        R = groups.O(3).sample(n, **options)
    if name in ("moved", "anywhere"):
        w = torch.randn(n, 3, **options)
    return R, w


def by_level(net: Network, questions: Questions, levels: int) -> Float[Tensor, "levels S"]:
    """The state error of each of so many equally long runs of questions."""
    errors = state_errors(paths(net, questions), true_paths(questions), questions)
    return metrics.geometric_mean(errors.unflatten(2, (levels, -1)), dim=(0, 3)).T


# Answers ----------------------------------------------------------------------------------------


def all_curves(
    networks: Mapping[str, Network], parts: Mapping, seeds: int, progress: bool = False
) -> dict[str, Tensor]:
    """Everything that is measured, by name; the networks are in float64."""
    plain = ask(ASKED, SEED)
    models = ensembles(networks, seeds)
    by_angle = tilted(plain, ANGLES)
    by_strength = joined([ask(ASKED, SEED, strengths=(x, x)) for x in LAMBDAS])
    by_frame = joined([moved(some_frames(name, ASKED), plain) for name in FRAMES])
    curves = {"rest": at_rest(plain, 1), "strength.rest": at_rest(by_strength, len(LAMBDAS))}

    def say(text: str) -> None:
        if progress:
            print(f"{text} ...", flush=True)

    for name, net in models.items():
        say(name)
        asked = {
            "angle": by_angle if name in BY_ANGLE else None,
            "frame": by_frame if name in BY_FRAME else None,
            "strength": by_strength if name != "augmented" else None,
        }
        asked = {kind: questions for kind, questions in asked.items() if questions is not None}
        levels = [len(questions[0]) // ASKED for questions in asked.values()]
        errors = by_level(net, joined(list(asked.values())), sum(levels)).split(levels)
        curves |= {f"{kind}.{name}": e for kind, e in zip(asked, errors, strict=True)}
        if name in DRAWN:
            path = paths(net.members([0]), tilted(one(plain), ANGLES), SHOWN)
            curves[f"path.{name}"] = path[:, 0, :, :6]
    curves["path.true"] = true_paths(tilted(one(plain), ANGLES), SHOWN)[..., :6]
    for name, net in networks.items():
        study = name.partition("-")[0]
        if study == "samples":
            say(name)
            curves[name] = judge(net, plain).unflatten(0, (-1, seeds))
            curves[f"{name}.n"] = torch.tensor(parts[name].sizes)
        elif study == "makes":
            say(name)
            asked = joined([ask(ASKED, SEED, spread=x) for x in FACTORS])
            curves[name] = by_level(net, asked, len(FACTORS))
        elif study == "effort":
            say(name)
            frames = some_frames("anywhere", ASKED)
            curves[f"{name}.moved"] = judge(net, moved(frames, plain))
            curves[f"{name}.defect"] = along(net, plain)
    curves["defect.mlp"] = along(models["mlp"], plain)
    return curves


def one(questions: Questions) -> Questions:
    """The first question alone."""
    z, given, constants = (x[:1] for x in questions)
    return z, given, constants


def along(net: Network, questions: Questions) -> Float[Tensor, " S"]:
    """The defect of eq. (7) at states along true trajectories, in random frames anywhere."""
    path = true_paths(questions)[::10]
    z = path.flatten(0, 1)
    given, constants = (x.expand(len(path), *x.shape).flatten(0, 1) for x in questions[1:])
    return defect(net, some_frames("anywhere", len(z)), (z, given, constants))


def at_rest(questions: Questions, levels: int) -> Float[Tensor, "levels 1"]:
    """The error of a forecast that nothing moves, level by level: what a useless model has."""
    truth = true_paths(questions)
    errors = state_errors(truth[:1, None].expand(len(truth), 1, -1, -1), truth, questions)
    return metrics.geometric_mean(errors.unflatten(2, (levels, -1)), dim=(0, 3)).T


# Figures ----------------------------------------------------------------------------------------


def figures(curves: Mapping[str, Tensor]) -> list[Figure]:
    """The figures of the experiment, from its curves."""
    rows: list[Figure] = []

    def add(name: str, values: Tensor, meaning: str = ERROR, paper: float | None = None) -> None:
        ours = tuple(values.tolist())
        rows.append(Figure(name, meaning, "1", "lower", paper, None, ours, 1.25))

    add("a forecast that nothing moves: state error", curves["rest"][0])
    for name, values in curves.items():
        study, _, rest = name.partition(".")
        if study.startswith("samples-") and not rest:
            for k in _ends(len(values)):
                n, who = int(curves[f"{name}.n"][k]), name.removeprefix("samples-")
                paper = PAPER.get(who) if n == 500 else None
                add(f"samples, n = {n}, {who}: state error", values[k], paper=paper)
        elif study == "angle":
            for k in (0, 4, 7, 9):
                add(f"gravity at {ANGLES[k]} degrees, {rest}: state error", values[k])
        elif study == "strength":
            for k in (0, 4, 8):
                add(f"gravity of strength {LAMBDAS[k]:g}, {rest}: state error", values[k])
        elif study == "frame":
            for frame, value in zip(FRAMES, values, strict=True):
                add(f"frame {frame}, {rest}: state error", value)
        elif study.startswith("makes-"):
            for k in (0, 2, 4, 6):
                who = study.removeprefix("makes-")
                add(f"makes within a factor {FACTORS[k]:g}, {who}: state error", values[k])
        elif study.startswith("effort-"):
            _, who, steps = study.split("-")
            if rest == "moved":
                add(f"effort, {who}, {steps} steps: state error anywhere", values)
            elif who == "mlp":  # that of the scalars is rounding
                add(f"effort, {who}, {steps} steps: defect", values, DEFECT)
    add("mlp without augmentation: defect", curves["defect.mlp"], DEFECT)
    return rows + _worth(curves)


def _worth(curves: Mapping[str, Tensor]) -> list[Figure]:
    """How many times fewer trajectories the scalars need than a rival."""
    rows = []
    for mine in ("scalars", "gram"):
        for rival in ("mlp", "augmented"):
            sizes = curves[f"samples-{rival}.n"].tolist()
            a, b = (_scarce.smooth(curves[f"samples-{who}"]) for who in (mine, rival))
            factor, bound = _scarce.worth(sizes, a, b, len(sizes) - 1)
            if factor == factor:
                words = f"the error of {rival} at n = {sizes[-1]}, reached with fewer trajectories"
                words += "; a lower bound" if bound else ""
                name = f"samples: factor in n of {mine} over {rival}"
                rows.append(Figure(name, words, "1", "higher", None, None, (factor,), 1.25))
    return rows


def _ends(k: int) -> list[int]:
    return sorted({0, k // 2, k - 1})
