"""Error messages are short, even if an argument is long: they don't repeat all of it."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import RegistryClient, RegistryError, Retry, ServingContainer, local_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 600  # characters
MOST_SENTENCES = 4

VALID: dict[str, Any] = {
    "name": "churn",
    "new_name": "churn-2",
    "version": 1,
    "source": "gs://models/churn/1",
    "uri": "gs://artifacts.localhost/none",
    "a": 1,
    "b": 1,
    "stage": "Staging",
    "keep": 1,
    "aliases": ["candidate"],
    "metric": "accuracy",
    "text": "1.2.0",
    "when": None,
    "metadata": {},
}
#: Missing versions, so that nothing is downloaded.
MISSING: dict[str, Any] = {"version": 99}
READING = {"download_version", "get_metadata", "load_version", "to_aiplatform"}


class Long:
    """An object whose text is long."""

    def __repr__(self) -> str:
        return "x" * 5_000


VALUES = {
    "text": "x" * 5_000,
    "lines": "x\n" * 2_000,
    "path": "gs://" + "x" * 5_000,
    "folder": "./" + "x/" * 2_000,
    "file URL": "file://" + "x" * 5_000,
    "resource name": f"projects/{'p' * 3_000}/locations/us-central1/models/{'x' * 3_000}",
    "list": ["x" * 5_000] * 3,
    "numbers": list(range(2_000)),
    "dict": {"x" * 5_000: "y"},
    "nested": {"x": {"y" * 5_000: object()}},
    "number": 10**4_000,
    "object": Long(),
}


def check(error: BaseException) -> None:
    """Check a message."""
    message = str(error)
    assert len(message) <= LONGEST, (len(message), message[:400])
    assert len(re.findall(r"[.!?] [A-Z]", message)) < MOST_SENTENCES, message


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryClient]:
    with local_registry() as registry:
        registry.register_version("churn", "gs://models/churn/1")
        yield registry


METHODS = [
    name
    for name, value in vars(RegistryClient).items()
    if not name.startswith("_") and inspect.isfunction(value) and name != "close"
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_a_method_names_a_long_argument_briefly(registry: RegistryClient, method: str, value: object) -> None:
    """Every argument of every method may be a long value of any type."""
    parameters = inspect.signature(getattr(registry, method)).parameters.values()
    required = {each.name: VALID[each.name] for each in parameters if each.default is each.empty}
    if method in READING:
        required |= MISSING
    for parameter in parameters:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = getattr(registry, method)(**{**required, parameter.name: value})
                if inspect.isgenerator(found) or hasattr(found, "__next__"):
                    list(found)
            except (RegistryError, TypeError) as error:
                check(error)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("kind", [RegistryClient, Retry, ServingContainer, local_registry])
def test_a_setting_is_named_briefly(kind: Any, value: object) -> None:
    """Every setting of a client, a retry, a container and a local registry may be a long value of any type."""
    given = {RegistryClient: {"project": "acme"}, ServingContainer: {"image": "gcr.io/acme/serve:1"}}.get(kind, {})
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            try:
                made = kind(**{**given, name: value})
            except (RegistryError, TypeError) as error:
                check(error)
            else:
                getattr(made, "close", int)()
