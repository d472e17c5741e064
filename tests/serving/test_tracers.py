"""Without `serving.traces` OpenTelemetry is not even imported; with it and without the package, the extra is named."""

import subprocess
import sys

import pytest

from router_ml.errors import MissingExtra
from router_ml_serving.settings import ServingSettings
from router_ml_serving.tracers import tracing_of


def test_off_means_that_nothing_is_imported():
    # The web framework imports OpenTelemetry's interface where it finds it; what spans cost is in its SDK.
    code = "import sys, router_ml_serving.app; print([name for name in sys.modules if name in ('opentelemetry.sdk', "
    code += "'requests', 'google.protobuf', 'router_ml_serving.tracing')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert tracing_of(ServingSettings(), {}) is None


def test_a_missing_package_is_explained(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "router_ml_serving.span_export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "router_ml_serving.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match=r"pip install 'router-ml\[otel\]'"):
        tracing_of(ServingSettings(traces=True), {})


def test_on_it_makes_spans():
    tracing = tracing_of(ServingSettings(traces=True), {})
    assert tracing is not None
    tracing.close()
