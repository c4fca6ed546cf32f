"""A pipeline that trains models, for `test_under_quota` to run in processes of their own."""

from __future__ import annotations

from typing import Any

from vertex_registry import RegistryClient, Retry


class ClockElsewhere:
    """The clock in another process, which `test_under_quota.serve_clock` serves there."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def __call__(self) -> float:
        return self._request(None)

    def sleep(self, seconds: float) -> None:
        self._request(seconds)

    def _request(self, seconds: float | None) -> float:
        self._pipe.send(seconds)
        time: float = self._pipe.recv()
        return time


def train(endpoint: str, pipe: Any, number: int) -> None:
    """Register six versions, as a process of its own."""
    clock = ClockElsewhere(pipe)
    with RegistryClient(
        project="acme", location="us-central1", endpoint=endpoint, retry=Retry(sleep=clock.sleep, clock=clock)
    ) as registry:
        for turn in range(6):
            clock.sleep(10)  # it trains the next model
            registry.register_version("churn", f"gs://models/{number}/{turn}")
