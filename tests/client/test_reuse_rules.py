"""Decide whether a version is reused, if Vertex gives version numbers that aren't in order."""

from __future__ import annotations

import datetime as dt

import pytest

from vertex_registry import ConflictError, ModelVersion, ServingContainer, Stage
from vertex_registry import _reuse as reuse
from vertex_registry._registration import Registration

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
REGISTRATION = Registration(
    name="churn",
    source="gs://models/1",
    container=ServingContainer("europe-docker.pkg.dev/acme/own:1"),
    aliases=(),
    make_default=True,
    description=None,
    model_description=None,
    metadata={},
    version_name="1.0",
    stage=Stage.NONE,
    archive_existing=False,
    managed_by="zenml",
    request_id="unused",
    shared=False,
)


def version(number: int) -> ModelVersion:
    resource = "projects/1/locations/us-central1/models/churn"
    return ModelVersion(
        name="churn",
        version=str(number),
        resource_name=f"{resource}@{number}",
        model_resource_name=resource,
        created_at=NOW,
        updated_at=NOW,
        etag="1",
    )


def test_numbers_that_fall_end_in_an_error() -> None:
    """If a later version has a lower number, the registration fails, and no loop is endless."""
    numbers = iter([3, 2])
    with pytest.raises(ConflictError, match="without reuse_existing"):
        reuse.register(REGISTRATION, version(9), lambda _: version(next(numbers)))


def test_each_registration_has_a_request_id_of_its_own() -> None:
    """The request ID also depends on the version before."""
    seen: list[str] = []
    numbers = iter([1, 3, 5])

    def register_once(registration: Registration) -> ModelVersion:
        seen.append(registration.request_id)
        assert registration.shared
        return version(next(numbers))

    assert reuse.register(REGISTRATION, version(5), register_once).version == "5"
    assert len(set(seen)) == 3
