"""Fixtures of the emulator's tests: an emulator, and Google's own clients for it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1 import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.emulators import EmptyEmulator

PARENT: Final = "projects/4711/locations/us-central1"


@pytest.fixture(name="parent")
def _parent() -> str:
    """Return a project and location. The project is a number, so names come back as they were sent."""
    return PARENT


@pytest.fixture(name="start")
def _start() -> Iterator[Callable[..., Emulator]]:
    """Start emulators that are closed after the test, when every planned fault must have been met."""
    with contextlib.ExitStack() as stack:

        def start(data: Any = None, **arguments: Any) -> Emulator:
            emulator = stack.enter_context(Emulator(data, **arguments))
            stack.callback(_check_faults, emulator)
            return emulator

        yield start


def _check_faults(emulator: Emulator) -> None:
    assert emulator.faults() == (), "a planned fault was not used up"


@pytest.fixture(name="connect")
def _connect() -> Iterator[Callable[..., ModelServiceClient]]:
    """Connect Google's client to an emulator, over gRPC or REST."""
    with contextlib.ExitStack() as stack:

        def connect(emulator: Emulator, transport: str = "grpc") -> ModelServiceClient:
            if transport == "rest":
                credentials = AnonymousCredentials()  # type: ignore[no-untyped-call] # google-auth ships no types for it
                client = ModelServiceClient(
                    transport="rest", credentials=credentials, client_options={"api_endpoint": emulator.rest}
                )
            else:
                channel = grpc.insecure_channel(str(emulator.grpc))
                client = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
            stack.callback(client.transport.close)
            return client

        yield connect


@pytest.fixture(name="emulator")
def _emulator(empty_emulator: EmptyEmulator) -> Iterator[Emulator]:
    """Return an empty emulator. A planned fault that isn't used up fails the test."""
    emulator = empty_emulator()
    yield emulator
    _check_faults(emulator)


@pytest.fixture(name="client")
def _client(emulator: Emulator, connect: Callable[..., ModelServiceClient]) -> ModelServiceClient:
    """Connect Google's client over gRPC."""
    return connect(emulator)


@pytest.fixture(name="model")
def _model() -> Callable[..., dict[str, Any]]:
    """Return a valid ``Model`` for an upload, with the given fields changed."""

    def model(**fields: Any) -> dict[str, Any]:
        return {
            "display_name": "churn",
            "artifact_uri": "gs://bucket/churn",
            "container_spec": {"image_uri": "example.com/serve:1"},
            **fields,
        }

    return model


@pytest.fixture(name="upload")
def _upload(parent: str, model: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Upload a model or, with ``under``, its next version, and return the name of the version."""

    def upload(client: ModelServiceClient, *, under: str = "", model_id: str = "", **fields: Any) -> str:
        request = {"parent": parent, "parent_model": under, "model_id": model_id, "model": model(**fields)}
        response: Any = client.upload_model(request=request).result()  # type: ignore[no-untyped-call] # as Google has it
        return f"{response.model}@{response.model_version_id}"

    return upload
