"""Graphs: one thread, and errors that say what is wrong (the refusals are in test_bundle)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from router_ml.errors import BundleCorrupt
from router_ml.graph import check_graph, first_line, inputs_read, open_graph

Build = Callable[..., Any]


def test_a_graph_runs_on_one_thread(build_model: Build) -> None:
    options = open_graph(build_model(), "here").get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_a_fitting_graph_passes(build_model: Build, build_policy: Build) -> None:
    check_graph(open_graph(build_model(), "here"), build_policy(), "here")


def test_a_graph_of_unstated_width_passes(build_model: Build, build_policy: Build) -> None:
    check_graph(open_graph(build_model(dense=None), "here"), build_policy(), "here")


def test_what_cannot_be_opened_is_named_in_one_line() -> None:
    with pytest.raises(BundleCorrupt, match=r"^here: not a graph") as caught:
        open_graph(b"nothing", "here")
    assert "\n" not in str(caught.value)


def test_an_error_without_message_is_called_by_its_kind() -> None:
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("one\ntwo")) == "one"


@pytest.mark.parametrize("read", [(), ("dense",), ("dense", "counts"), ("dense", "ids", "counts")])
def test_what_a_graph_reads_is_known_without_running_it(read: tuple[str, ...]) -> None:
    inputs = {"dense": TensorProto.FLOAT, "ids": TensorProto.INT64, "counts": TensorProto.FLOAT}
    nodes = [helper.make_node("Cast", [name], [f"{name}_read"], to=TensorProto.FLOAT) for name in read]
    taken = [helper.make_tensor_value_info(name, kind, ["n", "l"]) for name, kind in inputs.items()]
    given = [helper.make_tensor_value_info(f"{name}_read", TensorProto.FLOAT, ["n", "l"]) for name in read]
    model = helper.make_model(helper.make_graph(nodes, "reads", taken, given))
    onnx.checker.check_model(model)
    assert inputs_read(model.SerializeToString()) == set(read)
