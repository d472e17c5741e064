"""One look for every figure: size, type, colours that a page can re-theme, and the way to PNG bytes and SVG text.

Every colour has a CSS name. In the SVG each becomes `var(--name, #hex)`: alone the picture shows its own colours; in a
report it follows the page's light or dark theme.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router_ml.registry import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

__all__ = [
    "COLOURS",
    "DARK_COLOURS",
    "Picture",
    "axis_line",
    "blank",
    "csv_of",
    "finish",
    "short_name",
    "style",
    "tier_colours",
]

# Okabe and Ito's colours, which the common forms of colour blindness can tell apart, and greys for what is not data.
COLOURS: Mapping[str, str] = {
    "paper": "#ffffff",
    "ink": "#1c2530",
    "muted": "#66707c",
    "grid": "#e3e7eb",
    "router": "#0072b2",
    "oracle": "#009e73",
    "length": "#cc79a7",
    "random": "#98a2ad",
    "accent": "#d55e00",
}
# The same names on a dark page.
DARK_COLOURS: Mapping[str, str] = {
    "paper": "#14181d",
    "ink": "#e8ebee",
    "muted": "#9aa5b1",
    "grid": "#2a313a",
    "router": "#56b4e9",
    "oracle": "#2cc79a",
    "length": "#e29cc4",
    "random": "#7f8a96",
    "accent": "#ff8b4d",
}
# Tiers have an order, so they get one hue from faint to strong; the order survives grey print.
_RAMP = ((0xB9, 0xDC, 0xF0), (0x2F, 0x86, 0xBF), (0x0B, 0x35, 0x5E))
_DARK_RAMP = ((0x1F, 0x4A, 0x6B), (0x3A, 0x8F, 0xC7), (0xC4, 0xE6, 0xF8))
_PNG_DPI = 160


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished figure.

    Args:
        name: File name without ending, such as `cost_quality`.
        title: The message, as drawn above the figure.
        alt: What a reader who cannot see it needs to know.
        png: PNG bytes on white.
        svg: SVG text, transparent, colours as CSS variables with fallbacks.
        data: Exactly what is drawn, as CSV with a header.
    """

    name: str
    title: str
    alt: str
    png: bytes
    svg: str
    data: str = ""


def csv_of(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV text: numbers with six significant digits, None and NaN empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, float):  # NumPy's float64 is one, too
        return value
    return "" if value != value else f"{value:.6g}"  # NaN is not equal to itself


def short_name(name: str, most: int = 26) -> str:
    """A name as a picture has room for it: of a longer one the beginning and the end, which often has the number."""
    kept = most - 1
    return name if len(name) <= most else f"{name[: kept - kept // 2]}…{name[-(kept // 2) :]}"


def tier_colours(n: int, *, dark: bool = False) -> list[str]:
    """`n` shades from faint (cheapest) to strong (dearest), as hex."""
    ramp = _DARK_RAMP if dark else _RAMP
    return ["#" + "".join(f"{part:02x}" for part in _between(ramp, i / max(n - 1, 1))) for i in range(n)]


def _between(ramp: Sequence[tuple[int, int, int]], position: float) -> list[int]:
    """The colour at a position in [0, 1] along a ramp."""
    step = position * (len(ramp) - 1)
    lower = min(int(step), len(ramp) - 2)
    return [round(a + (b - a) * (step - lower)) for a, b in zip(ramp[lower], ramp[lower + 1], strict=True)]


def style() -> dict[str, Any]:
    """Matplotlib settings of the house; pass to `matplotlib.rc_context` around everything that draws."""
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "axes.edgecolor": COLOURS["muted"],
        "axes.labelcolor": COLOURS["muted"],
        "axes.labelsize": 9.5,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": COLOURS["grid"],
        "grid.linewidth": 0.8,
        "lines.solid_capstyle": "round",
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "router-ml",
    }


def blank(width: float, height: float, *, square: bool = False) -> MplFigure:
    """An empty figure in inches, without pyplot's global state; `square` keeps square panels close together."""
    figure = require("matplotlib.figure", extra="training", why="to draw figures").Figure
    made: MplFigure = figure(figsize=(width, height), layout="compressed" if square else "constrained")
    return made


def finish(
    figure: MplFigure,
    name: str,
    title: str,
    alt: str,
    *,
    simulated: bool,
    data: str,
    extra: Mapping[str, str] | None = None,
) -> Picture:
    """Set the title, stamp simulated data, and render both forms.

    Args:
        figure: The drawn figure.
        name: File name without ending.
        title: The message.
        alt: Description for readers who cannot see it.
        simulated: Whether the data behind it are simulated; said in the picture itself, which travels alone.
        data: What is drawn, as CSV; see `csv_of`.
        extra: Further colours to re-theme, CSS name to hex.
    """
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=COLOURS["ink"])
    if simulated:
        figure.text(
            0.995, 0.995, "simulated data", ha="right", va="top", fontsize=8.5, color=COLOURS["accent"], style="italic"
        )
    backend = require("matplotlib.backends.backend_agg", extra="training", why="to draw figures")
    backend.FigureCanvasAgg(figure)
    png, svg = io.BytesIO(), io.StringIO()
    with warnings.catch_warnings():
        # A point far outside of the curve leaves its label no room; the picture is then drawn without the layout.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(png, format="png", dpi=_PNG_DPI, facecolor="white", metadata={"Software": None})
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Picture(name, title, alt, png.getvalue(), _themed(svg.getvalue(), name, title, alt, extra or {}), data)


def axis_line(axes: Axes) -> None:
    """Keep the horizontal axis only; the grid carries the vertical one."""
    axes.spines["left"].set_visible(False)


def _themed(svg: str, name: str, title: str, alt: str, extra: Mapping[str, str]) -> str:
    """Make matplotlib's SVG safe to place in a page: no prolog, unique ids, system fonts, themeable colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans'")
    for css, colour in {**COLOURS, **extra}.items():
        svg = re.sub(rf"(:\s*){re.escape(colour)}\b", rf"\1var(--{css}, {colour})", svg)
    label = f"<title>{_escaped(title)}</title><desc>{_escaped(alt)}</desc>"
    return re.sub(r"(<svg[^>]*)>", lambda match: f'{match[1]} role="img">{label}', svg, count=1)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
