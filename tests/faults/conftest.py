"""The fixtures of the service's tests: real processes, which these tests harm."""

import pytest

from tests.faults.broken_upstream import BrokenUpstream
from tests.serving.conftest import call_fixture, put_bundle_fixture, service, start_service, upstream

__all__ = ["broken", "call_fixture", "put_bundle_fixture", "service", "start_service", "upstream"]


@pytest.fixture(scope="module")
def broken():
    """An upstream that answers with whatever bytes it is told to."""
    with BrokenUpstream() as found:
        yield found
