"""An emulator for a test, started once for all tests of a module that can share it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: Returns an emulator that has no models, faults and requests.
    EmptyEmulator = Callable[..., Emulator]


@pytest.fixture(scope="module")
def _running() -> Iterator[dict[str, Emulator]]:
    """Return the emulators of a module, by their settings. They're closed when its last test has finished."""
    running: dict[str, Emulator] = {}
    yield running
    for emulator in running.values():
        emulator.close()


@pytest.fixture
def empty_emulator(_running: dict[str, Emulator], request: pytest.FixtureRequest) -> Iterator[EmptyEmulator]:
    """Return a function that returns an emulator with the given switches and polls.

    Starting and closing one takes longer than most tests, so the tests of a module share it, and it's reset for each.
    If coverage is measured, a test has its own: threads that started before measuring did are never measured.
    """
    coverage = getattr(request.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    measured = coverage is not None and request.node.get_closest_marker("unmeasured") is None
    own = measured or "STORAGE_EMULATOR_HOST" in os.environ
    with contextlib.ExitStack() as closed_with_the_test:

        def empty_emulator(*, shared: bool = True, **settings: Any) -> Emulator:
            if own or not shared:
                emulator = Emulator(**settings)
                closed_with_the_test.callback(emulator.close)
                return emulator
            key = repr(settings)
            if key not in _running or _running[key]._dispatcher._closed:  # a test may close it
                _running[key] = Emulator(**settings)
            _running[key].reset()
            return _running[key]

        yield empty_emulator
