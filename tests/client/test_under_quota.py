"""Quotas slow the client down, and don't make it fail. The emulator and its clients share one clock."""

from __future__ import annotations

import collections
import datetime as dt
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.training import train
from vertex_registry import RegistryClient, Retry, Stage, UnavailableError
from vertex_registry.emulator import Emulator, Quota

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """A clock that moves only when a thread sleeps.

    Each thread sleeps from the time that it read last. If `crowd` threads share the clock, it waits until all of them
    sleep or have left, and then wakes the one that sleeps shortest.
    """

    def __init__(self, crowd: int = 0) -> None:
        self.time = 0.0
        self._crowd = crowd
        self._alarms: list[float] = []
        self._changed = threading.Condition()
        self._read = threading.local()

    def __call__(self) -> float:
        self._read.time = self.time
        return self.time

    def now(self) -> dt.datetime:
        """Return the time for the emulator."""
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=self.time)

    def sleep(self, seconds: float) -> None:
        """Sleep until the clock has moved on."""
        with self._changed:
            alarm = getattr(self._read, "time", self.time) + seconds
            if not self._crowd:
                self.time = max(self.time, alarm)
                return
            self._alarms.append(alarm)
            self._move()
            while self.time < alarm:
                assert self._changed.wait(30), "somebody neither sleeps nor leaves"

    def leave(self) -> None:
        """Stop waiting for this thread."""
        with self._changed:
            self._crowd -= 1
            self._move()

    def _move(self) -> None:
        if self._alarms and len(self._alarms) >= self._crowd:
            self.time = max(self.time, min(self._alarms))
            self._alarms = [alarm for alarm in self._alarms if alarm > self.time]
            self._changed.notify_all()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Iterator[Emulator]:
    with Emulator(now=clock.now) as emulator:
        yield emulator


def connect(emulator: Emulator, clock: Clock, transport: str = "grpc", **retry: float) -> RegistryClient:
    return RegistryClient(
        project="acme",
        location="us-central1",
        endpoint=getattr(emulator, transport),
        retry=Retry(sleep=clock.sleep, clock=clock, **retry),  # type: ignore[arg-type]  # all are numbers
    )


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("retry_info", [True, False])
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_a_parallel_listing_slows_down(emulator: Emulator, clock: Clock, transport: str, retry_info: bool) -> None:
    """A list of everything needs far more requests than a minute allows, and returns every version all the same."""
    with connect(emulator, clock, transport) as registry:
        for number in range(12):
            registry.register_version(f"model {number}", "gs://models/1")
        emulator.quota = Quota(requests=4, retry_info=retry_info)
        assert len(list(registry.list_versions())) == 12
        assert clock.time >= 3 * 60


def test_every_method_waits_for_the_quota(emulator: Emulator, clock: Clock) -> None:
    """Whatever a method sends is sent once a minute has room for it, and nothing happens twice."""
    with connect(emulator, clock) as registry:
        emulator.quota = Quota(requests=3, submissions=1)
        for turn in range(3):
            registry.register_version("churn", f"gs://models/{turn}", aliases=[f"v{turn}x"], request_id=f"r{turn}")
        registry.set_stage("churn", 1, Stage.PRODUCTION)
        registry.set_stage("churn", 3, Stage.PRODUCTION, archive_existing=True)
        registry.set_default("churn", 2)
        registry.delete_version("churn", 1)
        assert [(version.version, version.stage) for version in registry.list_versions("churn")] == [
            ("3", Stage.PRODUCTION),
            ("2", Stage.NONE),
        ]
        registry.delete_model("churn")
        assert list(registry.list_models()) == []


def test_a_refused_upload_is_sent_again_at_once(emulator: Emulator, clock: Clock) -> None:
    """A quota refuses an upload before Vertex carries it out, so nothing has to be looked up first."""
    with connect(emulator, clock) as registry:
        registry.register_version("churn", "gs://models/1")
        emulator.quota = Quota(submissions=1)
        registry.register_version("churn", "gs://models/2")
        before = len(emulator.requests())
        registry.register_version("churn", "gs://models/3")
        sent = collections.Counter(request.rpc for request in emulator.requests()[before:])
    assert sent == {"GetModel": 3, "UploadModel": 2, "UpdateModel": 1}


def test_an_upload_that_the_quota_never_allows(emulator: Emulator, clock: Clock) -> None:
    """The registration fails when the wait is over. It doesn't search again for a version that can't exist."""
    with connect(emulator, clock, operation_timeout=0.1) as registry:
        registry.register_version("churn", "gs://models/1")
        emulator.quota = Quota(submissions=0)
        before = len(emulator.requests())
        with pytest.raises(UnavailableError, match="quota is used up"):
            registry.register_version("churn", "gs://models/2")
        with pytest.raises(UnavailableError, match="quota is used up"):
            registry.delete_model("churn")
        sent = collections.Counter(request.rpc for request in emulator.requests()[before:])
    assert (sent["UploadModel"], sent["DeleteModel"]) == (1, 1)
    assert clock.time == 0


def serve_clock(clock: Clock, pipe: Any) -> float:
    """Let another process sleep in this thread and read the clock, until it ends. Return the time of its end."""
    try:
        while True:
            if (seconds := pipe.recv()) is not None:
                clock.sleep(seconds)
            pipe.send(clock())
    except EOFError:
        return clock.time
    finally:
        clock.leave()


def test_eight_processes_share_a_quota() -> None:
    """All processes finish in about the time that the quota allows, and none is much later than the others."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.client.training", "vertex_registry._registration", "tenacity"])
    clock = Clock(crowd=8)

    with Emulator(now=clock.now, quota=Quota(requests=40, submissions=6)) as shared:

        def run(number: int) -> tuple[float, int | None]:
            here, there = context.Pipe()
            process = context.Process(target=train, args=(shared.grpc, there, number))
            process.start()
            there.close()  # the process has it now, so its end is the end of the pipe
            with here:
                end = serve_clock(clock, here)
            process.join(60)
            return end, process.exitcode

        with ThreadPoolExecutor(8) as pool:
            ends, codes = zip(*pool.map(run, range(8)), strict=True)
        shared.quota = None
        with connect(shared, Clock()) as registry:
            assert len({version.artifact_uri for version in registry.list_versions("churn")}) == 48
    assert set(codes) == {0}
    assert max(ends) < 12 * 60  # 48 uploads, 6 a minute
    assert min(ends) > max(ends) / 3, ends


def test_a_quota_that_never_has_room(emulator: Emulator, clock: Clock) -> None:
    """The wait has an end: the time that an operation may take. It doesn't use up the budget of the method."""
    with connect(emulator, clock, call_timeout=20, operation_timeout=300) as registry:
        registry.register_version("churn", "gs://models/1")
        emulator.quota = Quota(requests=0)
        start = clock.time
        with pytest.raises(UnavailableError, match=r"quota is used up.*Try again in") as caught:
            registry.get_version("churn")
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert 0 < caught.value.retry_after <= 60
    assert 240 <= clock.time - start <= 300


def test_a_warning_says_why_nothing_happens(emulator: Emulator, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Requests that wait for the same quota are one warning a minute."""
    with connect(emulator, clock) as registry:
        for number in range(12):
            registry.register_version(f"model {number}", "gs://models/1")
        emulator.quota = Quota(requests=6)
        list(registry.list_versions())
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(warnings) <= clock.time / 60 + 1
    assert "quota" in warnings[0]
