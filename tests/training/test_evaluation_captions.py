"""Words beside points: none upon another, none over the edge, and the chart as wide as without them."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.text import Text

from router_ml_training.evaluation.canvas import blank
from router_ml_training.evaluation.captions import Caption, place_captions

CROWD = [Caption(f"always a-tier-with-number-{i}", (0.1 + 0.01 * i, 0.5 + 0.004 * i)) for i in range(8)]


def chart() -> tuple[Any, Any]:
    figure = blank(7.4, 4.5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1])
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure, axes


def boxes(figure: Any, axes: Any) -> list[Any]:
    figure.draw_without_rendering()
    # Of the words alone: those of an annotation are asked with its line.
    return [Text.get_window_extent(text) for text in axes.texts]


def test_captions_of_a_crowd_do_not_overlap_and_stay_inside() -> None:
    figure, axes = chart()
    place_captions(axes, CROWD)
    found = boxes(figure, axes)
    assert [text.get_text() for text in axes.texts] == [one.words for one in CROWD]
    assert not any(one.overlaps(other) for i, one in enumerate(found) for other in found[:i])
    frame = axes.get_window_extent()
    assert all(frame.y0 - 1 <= one.y0 and one.y1 <= frame.y1 + 1 and one.x0 >= frame.x0 - 1 for one in found)


def test_one_far_from_its_point_is_led_to_it_and_one_beside_it_is_not() -> None:
    figure, axes = chart()
    place_captions(axes, CROWD)
    led = [text.arrow_patch is not None for text in axes.texts]
    assert not led[0]
    assert any(led)
    assert len(boxes(figure, axes)) == len(CROWD)


def test_words_keep_off_the_curve() -> None:
    figure, axes = chart()
    place_captions(axes, [Caption("in service: asked for 97 %", (0.5, 0.5))])
    (box,) = boxes(figure, axes)
    along = axes.transData.transform([(x / 500, x / 500) for x in range(501)])
    assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in along)


def test_a_point_at_the_right_edge_is_named_over_it_where_asked() -> None:
    figure, axes = chart()
    place_captions(axes, [Caption("always large", (0.8, 0.5), above=True)])
    (box,) = boxes(figure, axes)
    assert box.y0 > axes.transData.transform((0.8, 0.5))[1]


def test_captions_take_nothing_from_the_chart() -> None:
    figure, axes = chart()
    figure.draw_without_rendering()
    before = axes.get_window_extent().bounds
    place_captions(axes, [Caption("x" * 200, (0.9, 0.5))])
    figure.draw_without_rendering()
    assert axes.get_window_extent().bounds == pytest.approx(before)
