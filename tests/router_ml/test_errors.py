"""The error tree: one root, a code of its own for each, and the tree drawn in the docstring is the real one."""

from __future__ import annotations

import re

import pytest

from router_ml import errors

ALL = [getattr(errors, name) for name in errors.__all__]


def test_one_root_catches_everything() -> None:
    assert all(issubclass(error, errors.RouterError) for error in ALL)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in ALL]
    assert len(set(codes)) == len(codes)


def test_the_drawn_tree_names_every_error() -> None:
    drawn = set(re.findall(r"[A-Z][A-Za-z]+(?=\s{2,}|$)", errors.__doc__ or "", re.MULTILINE))
    assert set(errors.__all__) <= drawn | {"RouterError"}


@pytest.mark.parametrize("error", [error for error in ALL if issubclass(error, errors.UsageError)])
def test_what_a_person_can_put_right_is_usage(error: type[errors.RouterError]) -> None:
    assert (error.exit_code, error.http_status) == (2, 400)


def test_an_upstream_error_keeps_what_the_upstream_said() -> None:
    error = errors.UpstreamError("small: 429", kind="status", status=429, body=b"{}")
    assert (str(error), error.kind, error.status, error.body) == ("small: 429", "status", 429, b"{}")


def test_a_request_error_names_the_field() -> None:
    assert errors.RequestError("no messages", param="messages").param == "messages"
