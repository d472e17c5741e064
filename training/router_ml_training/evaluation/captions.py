"""Words beside the points of a chart, none upon another and none upon a curve as far as there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.evaluation.canvas import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Caption", "place_captions"]

F64: TypeAlias = NDArray[np.float64]
# Left, bottom, right, top.
Box: TypeAlias = tuple[float, float, float, float]

_POINTS_AN_INCH = 72.0
_CHARACTER = 0.6  # the width of one, in times of its size; system fonts differ a little
_LINE = 1.3
_MARKER = 6.0
_FAR = 22.0  # from here on a line leads from the point to its words
_SAMPLES = 120  # points of each curve that words should not hide


@dataclass(frozen=True, slots=True)
class Caption:
    """The words of one point.

    Args:
        words: What is said.
        point: Where, in the units of the axes.
        above: Whether they go over the point where both sides are free.
        size: Of the type, in points.
        look: How they are drawn, as matplotlib's `annotate` takes it.
    """

    words: str
    point: tuple[float, float]
    above: bool = False
    size: float = 9.5
    look: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height, in points of type."""
        return _CHARACTER * self.size * len(self.words), _LINE * self.size


def place_captions(axes: Axes, captions: Sequence[Caption]) -> None:
    """Draw captions where nothing else is; the first ones choose first.

    They take no part in the layout, so that a long name does not narrow the chart.

    Args:
        axes: With everything else drawn.
        captions: In the order in which they choose.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101  axes that were drawn on have one
    figure.draw_without_rendering()  # the layout decides how far apart two points are
    scale = _POINTS_AN_INCH / figure.dpi
    frame = axes.get_window_extent()
    page = (scale * frame.x0, scale * frame.y0, scale * frame.x1, scale * frame.y1)
    curves = np.concatenate([np.zeros((0, 2)), *(scale * _along(line) for line in axes.lines)])
    points = [scale * axes.transData.transform(one.point) for one in captions]
    taken: list[Box] = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    for caption, (x, y) in zip(captions, points, strict=True):
        width, height = caption.extent
        corners = [(x + dx, y + dy) for dx, dy in _places(width, height, above=caption.above)]
        boxes = [(left, bottom, left + width, bottom + height) for left, bottom in corners]
        best = min(boxes, key=lambda box: _cost(box, taken, curves, page))
        taken.append(best)
        _draw(axes, caption, (best[0] - x, best[1] - y))


def _along(line: Any) -> F64:
    """Points evenly spaced along a drawn line, in pixels, (n, 2)."""
    corners = np.asarray(line.get_transform().transform(line.get_xydata()), np.float64)
    if len(corners) < 2:
        return corners
    steps = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    places = np.linspace(0.0, steps[-1], _SAMPLES)
    return np.column_stack([np.interp(places, steps, corners[:, side]) for side in (0, 1)])


def _places(width: float, height: float, *, above: bool) -> Iterable[tuple[float, float]]:
    """Where the lower left corner may be, from the point; the best first."""
    over, under = (-width / 2, 9.0), (8.0, -9.0 - height)
    yield from (over, under) if above else (under, over)
    yield from ((-width - 8.0, 6.0), (9.0, 5.0), (-width - 8.0, -9.0 - height), (-width / 2, -9.0 - height))
    yield from ((11.0, -height / 2), (-width - 11.0, -height / 2))
    for row in range(1, 9):
        away = row * (height + 2.0)
        yield from (
            (8.0, -9.0 - height - away),
            (-width / 2, 9.0 + away),
            (8.0, 9.0 + away),
            (-width - 8.0, 9.0 + away),
        )


def _cost(box: Box, taken: Sequence[Box], curves: F64, page: Box) -> tuple[int, int, int]:
    """What speaks against a place, the worst first: other words, the edge of the chart, curves."""
    left, bottom, right, top = box
    upon = sum(left < r and right > low and bottom < t and top > b for low, b, r, t in taken)
    outside = left < page[0] or right > page[2] + 30.0 or bottom < page[1] or top > page[3]
    x, y = curves[:, 0], curves[:, 1]
    hidden = int(((x > left) & (x < right) & (y > bottom) & (y < top)).sum())
    return upon, int(outside), hidden


def _draw(axes: Axes, caption: Caption, offset: tuple[float, float]) -> None:
    width, height = caption.extent
    middle = (offset[0] + width / 2, offset[1] + height / 2)
    far = abs(middle[1]) > _FAR + height / 2
    leader = {"arrowstyle": "-", "color": COLOURS["muted"], "lw": 0.6, "shrinkA": 0, "shrinkB": 3} if far else None
    look = {"color": COLOURS["ink"], "fontsize": caption.size, "zorder": 7, **caption.look}
    drawn = axes.annotate(
        caption.words,
        caption.point,
        xytext=middle,
        textcoords="offset points",
        ha="center",
        va="center",
        arrowprops=leader,
        **look,
    )
    drawn.set_in_layout(False)
