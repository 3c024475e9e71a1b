"""The style of plots, and how they become files and part of the page.

A plot is drawn once, with INK for text and axes and PAPER for hollow markers: the page replaces both by its own
colours, light or dark.
"""

from __future__ import annotations

import copy
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.results.names import printable

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

INK, PAPER = "#010203", "#fcfdfe"
BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY)  # Okabe and Ito's, without black and yellow
MARKERS = "oDs^vPX"  # coprime in number to the colours: 42 rows differ in one or the other
HATCHES = ("", "////", "\\\\\\\\", "||||", "----")  # dots would make a file ten times larger
NARROW, WIDE = 5.5, 12.0  # inches, of 72 units each
PANEL_HEIGHT = 1.75  # inches, of one plot among several over the same axis
_ON_PAGE = {INK: "currentColor", PAPER: "var(--card)", BLUE: "var(--blue)"}
_IN_FILE = {INK: "#000000", PAPER: "#ffffff"}
_STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than the fonts of the page
    "font.size": 9.5,
    "text.parse_math": False,  # names may hold dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "ftbench",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "figure.facecolor": "none",
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"#([\w-]+)")


@dataclass(frozen=True)
class Plot:
    """name: of its files. alt: a description for readers who can't see it. caption: how to read it."""

    name: str
    title: str
    alt: str
    caption: str
    figure: Figure

    @property
    def is_wide(self) -> bool:
        return self.figure.get_figwidth() == WIDE

    def named(self, name: str) -> Plot:
        return replace(self, name=name)


@dataclass(frozen=True)
class Drawn:
    """inline: an SVG element in the colours of the page. svg, png: files, black on white."""

    inline: Markup
    svg: str
    png: bytes


@dataclass(frozen=True)
class Look:
    """How a row of a table is drawn in every plot of it."""

    colour: str
    marker: str
    is_hollow: bool

    @classmethod
    def of(cls, index: int, is_hollow: bool) -> Look:
        return cls(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], is_hollow)

    @property
    def marks(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        face = PAPER if self.is_hollow else self.colour
        return {"marker": self.marker, "color": self.colour, "markerfacecolor": face, "markersize": 6.5}


@contextmanager
def style() -> Iterator[None]:
    """Inside, figures are made and saved in the page's style."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A label in a script that the font lacks: the page and the SVG show it in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


class ShownFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        with style():
            self.savefig(image, format="png", dpi=96, facecolor="white")
        return image.getvalue()


def new_figure(height: float, width: float = NARROW) -> Figure:
    """Inches."""
    return ShownFigure(figsize=(width, height), layout="constrained")


def panels(
    count: int, height: float, columns: int, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with an axes for each of `count`, wide where there are several; height: of one, in inches.

    columns: at most, or one less where that leaves fewer places empty.
    """
    columns = min(count, min(columns, columns - 1, key=lambda number: -count % number))
    lines = -(-count // columns)
    figure = new_figure(lines * height + 0.4, WIDE if count > 1 else NARROW)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for empty in grid[count:]:
        empty.remove()
    for lowest in grid[max(count - columns, 0) : count]:
        lowest.xaxis.set_tick_params(labelbottom=True)
    return figure, list(grid[:count])


def name_axes(figure: Figure, found: Sequence[Axes], x: str, y: str) -> None:
    """Once for all panels."""
    if len(found) == 1:
        found[0].set(xlabel=x, ylabel=y)
    else:
        figure.supxlabel(x, fontsize=9.5)
        figure.supylabel(y, fontsize=9.5)


def short(text: str, length: int = 26) -> str:
    """A name as a label: printable, and cut where it is long."""
    shown = printable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def plain_numbers(axis: Axis, is_log: bool = False) -> None:
    if is_log:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def log_where_wide(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis where values differ by more than a linear one shows."""
    is_log = min(values) > 0 and max(values) / min(values) > 20
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.5, max(values) * 1.5)
    plain_numbers(axes.xaxis, is_log)


def key(
    figure: Figure, handles: Sequence[Artist], names: Sequence[str], where: Literal["lower", "upper"] = "lower"
) -> None:
    """A legend outside of the axes, where it covers nothing."""
    labels = [f" {short(name)}" for name in names]  # a label that begins with an underscore is left out
    columns = 4 if max(map(len, labels)) <= 14 else 3 if max(map(len, labels)) <= 20 else 2
    location = "outside lower center" if where == "lower" else "outside upper center"
    figure.legend(handles, labels, loc=location, ncols=min(columns, len(labels)))


def draw(plot: Plot) -> Drawn:
    drawn = io.StringIO()
    plot.figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    plot.figure.set_layout_engine("none")  # keep the layout of the SVG
    image = io.BytesIO()
    plot.figure.savefig(image, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    root = _tidied(ElementTree.fromstring(drawn.getvalue()), plot)
    inline = _coloured(root, _ON_PAGE)
    root.insert(0, ElementTree.Element(f"{{{_SVG}}}rect", {"width": "100%", "height": "100%", "fill": PAPER}))
    return Drawn(Markup(inline), _coloured(root, _IN_FILE) + "\n", image.getvalue())  # ElementTree escapes texts


def _tidied(root: ElementTree.Element, plot: Plot) -> ElementTree.Element:
    """Without metadata, styles and unused ids, and with the plot's name in all other ids."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = {name for one in root.iter() for value in one.attrib.values() for name in _REFERENCE.findall(value)}
    for element in root.iter():
        for attribute, value in list(element.attrib.items()):
            if attribute == "id" and value not in used:
                del element.attrib["id"]
            elif attribute == "id":
                element.set(attribute, f"{plot.name}-{value}")
            elif attribute == f"{{{_XLINK}}}href":
                element.set(attribute, value.replace("#", f"#{plot.name}-"))
            elif "url(#" in value:
                element.set(attribute, value.replace("url(#", f"url(#{plot.name}-"))
            elif attribute in ("d", "points", "transform", "x", "y"):
                element.set(attribute, _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value))
    root.attrib |= {
        "role": "img",
        "aria-label": printable(plot.alt),
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    return root


def _coloured(root: ElementTree.Element, colours: dict[str, str]) -> str:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = copy.deepcopy(root)
    for element in root.iter():
        for attribute in {"style", "fill", "stroke"} & element.attrib.keys():
            value = element.attrib[attribute]
            for drawn, shown in colours.items():
                value = value.replace(drawn, shown)
            element.set(attribute, value)
    return ElementTree.tostring(root, encoding="unicode")
