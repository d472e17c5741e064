"""A bundle as MLflow models of the active run: its graph as ONNX, and the router that decides with it as a pyfunc."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import router_ml
from router_ml.bundle import Bundle
from router_ml.features import DENSE_NAMES
from router_ml.registry import require
from router_ml_training import tracking_model
from router_ml_training.tracking_client import WHY
from router_ml_training.tracking_model import COLUMNS, EXAMPLE, columns_of

__all__ = ["GRAPH", "LOADER", "ROUTER", "log_models"]

GRAPH, ROUTER = "graph", "router"
# The name of `tracking_model` where the model is loaded: no part of a package that may be installed there too.
LOADER = "router_ml_pyfunc"


def log_models(bundle: Bundle, *, quality: float) -> Any:
    """Write both models of a bundle to the active run.

    Args:
        bundle: What they are made of.
        quality: Share of the best tier's quality that the router keeps unless it is asked for another.

    Returns:
        MLflow's facts about the router: its URI and id.
    """
    _log_graph(bundle)
    return _log_router(bundle, quality)


def _log_graph(bundle: Bundle) -> None:
    onnx = require("onnx", extra="training", why=WHY)
    require("mlflow.onnx", extra="training", why=WHY).log_model(
        onnx.load_model(str(bundle.path / "model.onnx")),
        name=GRAPH,
        signature=_graph_signature(bundle),
        input_example=_graph_example(),
        pip_requirements=_pinned("numpy", "onnxruntime", "onnx"),
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,  # one file, byte for byte the bundle's
    )


def _log_router(bundle: Bundle, quality: float) -> Any:
    pyfunc = require("mlflow.pyfunc", extra="training", why=WHY)
    frames = require("pandas", extra="training", why=WHY)
    with tempfile.TemporaryDirectory(prefix="router-ml-") as folder:
        code = _code(Path(folder))
        return pyfunc.log_model(
            name=ROUTER,
            loader_module=LOADER,
            data_path=str(bundle.path),
            code_paths=code,
            model_config={"quality": quality},
            signature=_router_signature(bundle),
            input_example=frames.DataFrame(EXAMPLE),
            pip_requirements=_pinned("numpy", "onnxruntime", "pydantic", "pandas"),
        )


def _code(folder: Path) -> list[str]:
    """Copy what the model needs of this project: router-ml is on no package index that a server could ask."""
    package = Path(router_ml.__file__).parent
    skip = shutil.ignore_patterns("__pycache__", "cli", "default_bundle", "store")
    shutil.copytree(package, folder / package.name, ignore=skip)
    loader = folder / f"{LOADER}.py"
    shutil.copyfile(tracking_model.__file__, loader)
    return [str(folder / package.name), str(loader)]


def _pinned(*names: str) -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def _graph_signature(bundle: Bundle) -> Any:
    """The graph's inputs and outputs by hand: MLflow cannot infer a batch whose n-gram width varies."""
    types = require("mlflow.types", extra="training", why=WHY)

    def tensor(name: str, dtype: type[np.generic], width: int) -> Any:
        return types.TensorSpec(np.dtype(dtype), (-1, width), name)

    dense, tiers = len(DENSE_NAMES), len(bundle.ladder)
    inputs = [tensor("dense", np.float32, dense), tensor("ids", np.int64, -1), tensor("counts", np.float32, -1)]
    outputs = [tensor(name, np.float32, tiers) for name in ("adequacy", "output_tokens")]
    return _signature(types.Schema(inputs), types.Schema(outputs))


def _graph_example() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "dense": np.zeros((1, len(DENSE_NAMES)), dtype=np.float32),
        "ids": np.zeros((1, 2), dtype=np.int64),
        "counts": np.zeros((1, 2), dtype=np.float32),
    }


def _router_signature(bundle: Bundle) -> Any:
    types = require("mlflow.types", extra="training", why=WHY)
    inputs = [types.ColSpec(kind, name, required=False) for name, kind in COLUMNS.items()]
    outputs = [
        types.ColSpec(kind, name, required=name != "escalate_to")
        for name, kind in columns_of(bundle.ladder.names).items()
    ]
    return _signature(types.Schema(inputs), types.Schema(outputs))


def _signature(inputs: Any, outputs: Any) -> Any:
    models = require("mlflow.models", extra="training", why=WHY)
    return models.ModelSignature(inputs=inputs, outputs=outputs)
