"""The tables of errors, and how errors are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import vertex_registry
from vertex_registry import NotFoundError, RegistryError, _faults, _rpc

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
BUILT_IN = {
    "NotFoundError": KeyError,
    "InvalidArgumentError": ValueError,
    "PermissionDeniedError": PermissionError,
    "UnavailableError": ConnectionError,
    "OperationTimeoutError": TimeoutError,
    "ClientClosedError": RuntimeError,
}
NAMES = [name for name in vertex_registry.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("name", NAMES)
def test_every_error(name: str) -> None:
    """Every error is a RegistryError and the matching built-in, has plain text, and is in the docs."""
    kind = getattr(vertex_registry, name)
    assert issubclass(kind, RegistryError)
    assert issubclass(kind, BUILT_IN.get(name, Exception))
    assert str(kind("It is gone.", resource="models/7")) == "It is gone."
    assert kind("It is gone.", resource="models/7").resource == "models/7"
    assert f"`{name}`" in PAGE
    assert name in (vertex_registry.errors.__doc__ or "")


def test_a_key_error_without_quotes() -> None:
    """A NotFoundError shows its message without the quotes of KeyError."""
    assert str(NotFoundError("There is no model 'churn'.")) == "There is no model 'churn'."


@pytest.mark.parametrize("rpc", _rpc.METHODS)
def test_the_docs_show_what_is_retried(rpc: str) -> None:
    """docs/errors.md shows when each RPC is retried, its deadline and its permission."""
    method = _rpc.METHODS[rpc]
    again = {
        _rpc.LOST_RESPONSE | _rpc.QUOTA_USED_UP: "any lost response, RESOURCE_EXHAUSTED",
        _rpc.QUOTA_USED_UP: "RESOURCE_EXHAUSTED; a lost response only if nothing has changed since",
        _rpc.NO_RETRY: "a check whether it happened",
    }[method.retry_on]

    assert f"| `{rpc}` | {again} | {method.deadline:g} | `{method.permission}` |" in PAGE


def test_the_docs_show_what_a_lost_response_is() -> None:
    """docs/errors.md names its codes, and after which of them a request is sent only so many times."""
    (attempts,) = set(_faults.ATTEMPTS.values())
    bounded, others = sorted(_faults.ATTEMPTS), sorted(_rpc.LOST_RESPONSE - _faults.ATTEMPTS.keys())
    assert f"| {', '.join(bounded)} | the server has failed | until it has been sent {attempts} times |" in PAGE
    assert f"| {', '.join(others)} | no response has arrived | until the budget is used up |" in PAGE


@pytest.mark.parametrize("status", _faults.ERRORS)
def test_the_docs_show_the_statuses(status: str) -> None:
    """docs/errors.md shows which error each status becomes."""
    assert f"| {status} | `{_faults.ERRORS[status].__name__}` |" in PAGE
