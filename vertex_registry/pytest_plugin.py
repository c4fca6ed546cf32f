"""pytest fixtures: an emulator for the run, and a registry of its own for each test.

pytest loads this module in every run, so it doesn't import Google's libraries before a fixture is used.
"""

from __future__ import annotations

import importlib.util
import uuid
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator

_EMULATOR: Final = pytest.StashKey["Emulator"]()


@pytest.fixture(scope="session")
def vertex_emulator(pytestconfig: pytest.Config) -> Iterator[Emulator]:
    """A local Vertex AI, started once for the run (for each worker, under pytest-xdist).

    It serves gRPC, and REST too if ``vertex-registry[emulator]`` is installed. ``VERTEX_AI_EMULATOR_HOST`` names its
    gRPC address, so a `RegistryClient` that your code creates reaches it. Plan faults with
    ``vertex_emulator.fail(...)``: a fault that no request meets fails the test that planned it. A quota that a test
    sets, ``vertex_emulator.quota = Quota(...)``, ends with the test.
    """
    from vertex_registry.emulator import Emulator  # noqa: PLC0415  # see above

    rest_port = None if importlib.util.find_spec("aiohttp") is None else 0
    with Emulator(rest_port=rest_port) as emulator, pytest.MonkeyPatch.context() as environment:
        environment.setenv("VERTEX_AI_EMULATOR_HOST", emulator.grpc)
        environment.setenv("GOOGLE_CLOUD_PROJECT", "test-project")
        environment.setenv("GOOGLE_CLOUD_LOCATION", "us-central1")
        pytestconfig.stash[_EMULATOR] = emulator
        yield emulator
        del pytestconfig.stash[_EMULATOR]


@pytest.fixture
def vertex_registry(vertex_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryClient]:
    """A `RegistryClient` on the emulator, in an empty project of its own.

    ``GOOGLE_CLOUD_PROJECT`` names the project, so a client that your code creates sees the same models.
    """
    from vertex_registry import RegistryClient  # noqa: PLC0415  # see above

    project = f"test-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", project)
    with RegistryClient(project=project, endpoint=vertex_emulator.grpc) as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that leaves a planned fault behind, and keep its faults and its quota from the next test."""
    emulator = pyfuncitem.config.stash.get(_EMULATOR, None)
    try:
        result = yield
        left = emulator.faults() if emulator is not None else ()
    finally:
        if emulator is not None:
            emulator.forget_faults()
            emulator.quota = None
    if left:
        planned = ", ".join(f"{fault.rpc} {fault.code or ''}".strip() for fault in left)
        pytest.fail(f"No request met these planned faults: {planned}.", pytrace=False)
    return result
