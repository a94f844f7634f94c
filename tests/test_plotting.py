"""Figures say what they show; sliders are small, complete, deterministic and need no network."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from companion import _svg
from companion import plotting as P


@pytest.fixture(autouse=True)
def agg():
    with plt.rc_context():
        plt.switch_backend("agg")
        yield
        plt.close("all")


def curve(i, figsize=(5, 3)):
    with P.style(figure_figsize=figsize):
        fig, ax = plt.subplots()
    t = np.linspace(0, 6, 200)
    ax.plot(t, np.sin((1 + i) * t), **P.line("symmetric", label=r"$\dot{q}_x$"))
    ax.plot(t[::20], np.cos(t[::20]), "o")
    ax.set(ylim=(-2, 2), xlabel="time $t$ & more")
    ax.legend(loc="upper right")
    return fig


class Page(HTMLParser):
    """Every element as (tag, attributes), and whether all of them are closed in order."""

    VOID = ("input", "img", "br")

    def __init__(self, markup):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def sine_slider(n=6, **changes):
    labels = [f"omega = {1 + i}" for i in range(n)]
    options = {"name": "sine-waves", "alt": "A sine of angular frequency", "value": 2}
    return P.slider(curve, labels, **options | changes)


def test_the_slider_has_its_parts_and_they_refer_to_one_another():
    page = Page(sine_slider(caption="Faster & faster")._repr_html_())
    (control,), (label,), (output,), (svg,) = map(page.all, ("input", "label", "output", "svg"))
    assert control["type"] == "range"
    assert (control["min"], control["max"], control["value"]) == ("0", "5", "2")
    assert control["id"] == label["for"] == output["for"] == "sine-waves"
    assert control["aria-valuetext"] == "omega = 3"
    assert json.loads(control["data-labels"]) == [f"omega = {1 + i}" for i in range(6)]
    assert svg["role"] == "img"
    assert svg["aria-label"] == "A sine of angular frequency omega = 3"
    assert svg["viewbox"] == "0 0 360 216"
    assert "width:100%" in svg["style"]
    assert "width" not in svg
    assert {"sine waves", "omega = 3", "Faster & faster"} <= set(page.words)


def test_only_the_chosen_frame_is_visible():
    groups = [a for a in Page(sine_slider()._repr_html_()).all("g") if "data-frame" in a]
    assert {a["data-frame"] for a in groups} == set("012345")
    assert {a["data-frame"] for a in groups if "display" not in a} == {"2"}


def test_ids_are_unique_named_after_the_slider_and_every_reference_resolves():
    markup = sine_slider()._repr_html_()
    ids = [a["id"] for _, a in Page(markup).elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(i.startswith("sine-waves") for i in ids)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', markup))
    assert used
    assert used <= set(ids)


def test_nothing_comes_from_elsewhere_and_nothing_leaks_into_the_page():
    markup = sine_slider()._repr_html_()
    for word in ("http", "<script", "<style", "<?xml", "<!DOCTYPE", "<metadata", "Matplotlib"):
        assert word not in markup


def test_shared_parts_are_written_once():
    few, many = (len(sine_slider(n)._repr_html_()) for n in (3, 13))
    assert many < 40_000
    assert (many - few) / 10 < 0.25 * few  # a further frame costs its curve, not its axes


def test_frames_may_be_figures_functions_or_svg_and_are_closed():
    labels = ["a", "b"]
    options = {"name": "n", "alt": "x"}
    figures = P.slider([curve(0), curve(1)], labels, **options).markup
    assert P.slider(curve, labels, **options).markup == figures
    texts = [P._svg_of(curve(i)) for i in range(2)]
    assert P.slider(texts, labels, **options).markup == figures
    assert plt.get_fignums() == []


SCRIPT = """
import matplotlib; matplotlib.use("agg")
from test_plotting import curve, sine_slider
from companion import plotting as P
for format in ("png", "svg"):
    print(P.show(curve(1), "x", format=format).markup)
print(sine_slider().markup)
"""


def test_two_processes_make_the_same_bytes():
    def output(seed):
        environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SCRIPT]
        folder = Path(__file__).parent
        return subprocess.run(
            command, capture_output=True, check=True, env=environment, cwd=folder
        ).stdout

    first = output("1")
    assert len(first) > 10_000
    assert output("2") == first


def test_a_slider_that_grows_too_big_is_refused(monkeypatch):
    monkeypatch.setattr(P, "SLIDER_LIMIT", 5_000)
    with pytest.raises(ValueError, match=r"'sine-waves' is \d+ kB, the limit is 5 kB; plot fewer"):
        sine_slider()


BAD = [
    ({"name": "two words"}, "name = 'two words'; it becomes an id"),
    ({"alt": " "}, "alt is empty"),
    ({"value": 6}, "value = 6; expected an index from 0 to 5"),
    ({"n": 1, "value": 0}, "at least two"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_sliders_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sine_slider(**change)


def test_frames_must_fit_together():
    with pytest.raises(ValueError, match="3 frames and 2 labels"):
        P.slider([curve(i) for i in range(3)], ["a", "b"], name="n", alt="x")
    with pytest.raises(ValueError, match=r"frames\[1\] has the viewBox '0 0 288 216'"):
        P.slider([curve(0), curve(0, (4, 3))], ["a", "b"], name="n", alt="x")
    lost = '<svg viewBox="0 0 1 1"><use href="#gone"/></svg>'
    with pytest.raises(ValueError, match="#gone"):
        P.slider([lost, lost], ["a", "b"], name="n", alt="x")


def test_text_is_escaped():
    page = Page(sine_slider(alt='<b> "quoted"', label="a<b", caption="<i>")._repr_html_())
    assert page.all("b") == page.all("i") == []
    assert page.all("svg")[0]["data-alt"] == '<b> "quoted"'
    assert "a<b" in page.words


def test_plain_text_is_the_same_on_every_run():
    assert repr(sine_slider()) == (
        "<slider sine-waves: 6 frames, omega = 1 to omega = 6; A sine of angular frequency>"
    )
    assert repr(P.show(curve(0), "A sine")) == "<figure: A sine>"


def test_frames_keep_their_order_of_drawing():
    def frame(own):
        marks = "".join(f'<path class="{d}"/>' for d in ("A", *own[0], "B", *own[1], "C"))
        return f'<svg viewBox="0 0 9 9"><g id="g_1">{marks}</g></svg>'

    owns = [(("1",), ()), (("2", "3"), ("4",)), ((), ("5",))]
    content, box = _svg.merge([frame(own) for own in owns], "n", shown=1)
    assert box == "0 0 9 9"
    for i, own in enumerate(owns):
        mine = re.sub(
            r'<g data-frame="(\d)"[^>]*>(.*?)</g>',
            lambda m, i=i: m[2] if int(m[1]) == i else "",
            content,
        )
        assert re.findall('class="(.)"', mine) == ["A", *own[0], "B", *own[1], "C"]


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("M 1.04 2.06 \nL 1.55 2.06 \nL 1.55 -3 \nz", "M1 2.1l.6 0 0-5.1z"),
        ("M 0 0 L 0.01 0.01 L 10 10", "M0 0l0 0 10 10"),
        ("M 0 0 L 5 5 L 5.01 5.01 L 6 6", "M0 0l5 5 1 1"),
        ("M 1 1 Q 2 3 4 5 C 4 5 6 7 8 9 z M 0 0 L 1 1", "M1 1q1 2 3 4c0 0 2 2 4 4zM0 0l1 1"),
        ("M 0 0 A 1 1 0 0 0 2 2", "M 0 0 A 1 1 0 0 0 2 2"),
        ("m 0 0 l 1 1", "m 0 0 l 1 1"),
    ],
)
def test_paths_become_shorter_and_stay_the_same(long, short):
    assert _svg.shorter_path(long) == short


def test_rounding_of_a_long_path_does_not_add_up():
    points = np.cumsum(np.full((3000, 2), 0.0777), axis=0)
    short = _svg.shorter_path("M 0 0 " + " ".join(f"L {x:.4f} {y:.4f}" for x, y in points))
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", short)]
    assert sum(numbers[::2]) == pytest.approx(points[-1, 0], abs=0.06)


@pytest.mark.parametrize("format", ["png", "svg"])
def test_show_carries_alternative_text_and_is_small(format):
    shown = P.show(curve(1), 'A "fast" sine', "See <how> fast", format=format)
    page = Page(shown._repr_html_())
    (image,) = page.all("img")
    assert image["alt"] == 'A "fast" sine'
    assert image["src"].startswith(f"data:image/{format}")
    assert image["width"] == "480"
    assert "max-width:100%" in image["style"]
    assert "See <how> fast" in page.words
    assert len(shown.markup) < 60_000
    assert plt.get_fignums() == []


def test_titles_of_equal_axes_are_whole():
    with P.style():
        fig, axes = plt.subplots(1, 2, figsize=(7, 2.9), sharey=True)
    for ax in axes:
        P.orbit(ax, torch.tensor([[-5.0, 0], [0.5, 1], [0, -2]]))
        ax.set(xlim=(-6, 2), ylim=(-3, 3), xlabel="x", title="title")
    data = re.search(r"base64,([^\"]+)", P.show(fig, alt="Two panels with titles.").markup)
    image = Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("L")
    assert image.crop((0, 0, image.width, 2)).getextrema()[0] > 250, "ink at the upper edge"


def test_show_refuses_silence_and_unknown_formats():
    with pytest.raises(ValueError, match="alt is empty"):
        P.show(curve(0), "")
    with pytest.raises(ValueError, match="format = 'gif'"):
        P.show(curve(0), "x", format="gif")


def test_style_lasts_as_long_as_its_block():
    before = dict(mpl.rcParams)
    with P.style(figure_figsize=(4, 4)):
        assert mpl.rcParams["figure.figsize"] == [4, 4]
        assert mpl.rcParams["font.size"] >= 11
    assert dict(mpl.rcParams) == before
    with pytest.raises(ValueError, match="figure_sighs"):
        P.style(figure_sighs=1)


def test_each_kind_differs_in_colour_and_in_line():
    looks = [P.line(kind) for kind in P.KINDS]
    assert len({look["color"] for look in looks}) == 4
    grey_pair = P.line("symmetric"), P.line("plain")  # close in luminance
    assert grey_pair[0]["linestyle"] != grey_pair[1]["linestyle"]
    with pytest.raises(ValueError, match="expected one of truth"):
        P.line("wrong")


def test_orbit_draws_the_plane_and_leaves_out_what_blew_up():
    _, ax = plt.subplots()
    q = torch.tensor([[0.0, 9, 1], [1, 9, 2], [torch.inf, 9, 3]], dtype=torch.float64)
    P.orbit(ax, q, "plain", plane=(0, 2), label="net")
    path, start = ax.lines
    np.testing.assert_array_equal(path.get_xdata(), [0, 1, np.nan])
    np.testing.assert_array_equal(path.get_ydata(), [1, 2, 3])
    assert path.get_color() == P.PLAIN
    assert path.get_label() == "net"
    np.testing.assert_array_equal(start.get_xydata(), [[0, 1]])
    assert ax.get_aspect() == 1
    with pytest.raises(ValueError, match="q has shape"):
        P.orbit(ax, q[None])


def test_drift_is_logarithmic_and_shows_the_median_of_the_seeds():
    _, ax = plt.subplots()
    t = torch.arange(3.0)
    delta = torch.tensor([[0, 0, 0], [1e-3, 1e-2, 1e-1], [1e-3, 1e-2, torch.inf]])
    P.drift(ax, t, delta, "symmetric", label="five seeds")
    assert ax.get_yscale() == "log"
    *seeds, median = ax.lines
    assert len(seeds) == 3
    np.testing.assert_allclose(median.get_ydata(), [np.nan, 1e-2, 1e-2])
    assert median.get_label() == "five seeds"
    assert [line.get_label()[0] for line in seeds] == ["_"] * 3
    with pytest.raises(ValueError, match="t has 2 entries and delta 3"):
        P.drift(ax, t[:2], delta)


def test_phase_portrait_draws_level_lines_of_the_energy():
    _, ax = plt.subplots()
    P.phase_portrait(ax, lambda q, p: 0.5 * (q * q + p * p)[..., 0], (-2, 2), (-3, 3), levels=[0.5])
    (contour,) = ax.collections
    np.testing.assert_allclose(
        np.linalg.norm(contour.get_paths()[0].vertices, axis=1), 1, atol=1e-3
    )
    assert ax.get_xlim() == (-2, 2)
    assert ax.get_ylim() == (-3, 3)
