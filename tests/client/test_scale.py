"""The numbers on the page about scale: the requests of each method, and how often a quota allows it."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cassettes.scenarios import Clock
from vertex_registry import OperationTimeoutError, RegistryClient, Retry, Stage, UnavailableError
from vertex_registry.emulator import Emulator, Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parents[2].joinpath("docs", "scale.md").read_text(encoding="utf-8")
SUBMISSIONS = {"UploadModel", "DeleteModel", "DeleteModelVersion"}
PUBLISHED = Quota()


def _promote(registry: RegistryClient) -> None:
    """Promote whichever of two versions isn't in Production."""
    number = 2 if registry.get_version("churn", 1).stage is Stage.PRODUCTION else 1
    registry.set_stage("churn", number, Stage.PRODUCTION, archive_existing=True)


def _roll_back(registry: RegistryClient) -> None:
    _promote(registry)
    registry.rollback("churn")


#: What each row of the table calls, with a client that has called before, on a model with four versions.
CALLS: dict[str, Callable[[RegistryClient], object]] = {
    "`register_version`": lambda registry: registry.register_version("churn", "gs://models/churn/1"),
    "`get_version`": lambda registry: registry.get_version("churn", 1),
    "`get_version` by stage": lambda registry: registry.get_version("churn", stage=Stage.PRODUCTION),
    "`latest_version`": lambda registry: registry.latest_version("churn"),
    "`list_versions`, up to 1,000 versions": lambda registry: list(registry.list_versions("churn")),
    "`list_models`, up to 1,000 models": lambda registry: list(registry.list_models()),
    "`update_version`": lambda registry: registry.update_version("churn", 1, description="new"),
    "`set_stage`": lambda registry: registry.set_stage("churn", 3, Stage.STAGING),
    "`set_stage` with `archive_existing`": _promote,
    "`rollback`": _roll_back,
    "`set_default`": lambda registry: registry.set_default("churn", 2),
    "`delete_version`": lambda registry: registry.delete_version("churn", 2),
}


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table whose heading starts with this text."""
    lines = PAGE[PAGE.index(f"| {heading} |") :].splitlines()[2:]
    cells = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.split("|")[1:-1]])
    return {row[0]: row[1:] for row in cells}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(now=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) as emulator:
        yield emulator


@pytest.fixture
def registry(emulator: Emulator) -> Iterator[RegistryClient]:
    """Return a client that knows the model, and gives up when a quota is used up."""
    with RegistryClient(project="acme", endpoint=emulator.grpc, retry=Retry(operation_timeout=0.01)) as registry:
        for number in range(4):
            registry.register_version("churn", f"gs://models/churn/{number}")
        registry.set_stage("churn", 1, Stage.PRODUCTION)
        yield registry


def sent(emulator: Emulator, work: Callable[[], object]) -> collections.Counter[str]:
    """Return how many requests of each RPC a call sends."""
    before = len(emulator.requests())
    work()
    return collections.Counter(request.rpc for request in emulator.requests()[before:])


def per_hour(submissions: int, requests: int) -> int:
    """Return how many calls per hour the published quotas allow."""
    limits = [PUBLISHED.submissions * 60 / submissions if submissions else math.inf]
    limits.append(PUBLISHED.requests * 60 / requests if requests else math.inf)
    return int(min(limits))


@pytest.mark.parametrize("row", CALLS)
def test_how_often_a_quota_allows_a_method(emulator: Emulator, registry: RegistryClient, row: str) -> None:
    """The page says how many requests a call sends, and the emulator accepts as many calls in a minute as follows."""
    call = CALLS[row]
    counted = sent(emulator, lambda: call(registry))
    if row in {"`set_stage` with `archive_existing`", "`rollback`"}:
        counted["GetModel"] -= 1  # the read that chooses which version to promote
    if row == "`rollback`":
        counted -= sent(emulator, lambda: _promote(registry))
        counted["GetModel"] += 1
    submissions = sum(count for rpc, count in counted.items() if rpc in SUBMISSIONS)
    requests = counted.total() - submissions
    assert table("method")[row] == [str(submissions), str(requests), f"{per_hour(submissions, requests):,}"]


@pytest.mark.parametrize("row", ["`register_version`", "`get_version`", "`update_version`"])
def test_the_emulator_accepts_as_many(emulator: Emulator, registry: RegistryClient, row: str) -> None:
    """In a minute of the emulator, a tenth of the published quota allows a 600th of an hour's calls."""
    submissions, requests, hourly = (int(cell.replace(",", "")) for cell in table("method")[row])
    emulator.quota = Quota(PUBLISHED.requests // 10, PUBLISHED.submissions // 10)
    done = 0
    with contextlib.suppress(UnavailableError):
        for done in range(1000):  # noqa: B007  # it is used after the loop
            CALLS[row](registry)
    allowed = [emulator.quota.submissions // submissions] if submissions else []
    assert done == min([*allowed, emulator.quota.requests // requests])
    assert done == hourly // 600


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_how_often_an_upload_is_polled(seconds: int) -> None:
    """The page says how many requests it takes to wait for an upload of so many seconds."""
    clock = Clock()
    retry = Retry(operation_timeout=seconds, sleep=clock.sleep, clock=clock)
    with (
        Emulator(polls_until_done=10**6) as emulator,
        RegistryClient(project="acme", endpoint=emulator.grpc, retry=retry) as registry,
    ):
        with pytest.raises(OperationTimeoutError):
            registry.register_version("churn", "gs://models/churn/1", request_id="r")
        polls = sum(request.rpc == "GetOperation" for request in emulator.requests())
    assert table("an upload takes")[f"{seconds} s"][0] == str(polls)


def test_what_a_large_team_needs() -> None:
    """The page's example follows from its tables."""
    methods: dict[str, Any] = table("method")
    requests = int(methods["`register_version`"][1]) + int(table("an upload takes")["10 s"][0])
    expected = {
        "500 pipelines register a version": (500, 500 * requests),
        "500 pipelines promote what they registered": (0, 500 * int(methods["`set_stage` with `archive_existing`"][1])),
        "1,000 services read what's in Production": (0, 1000 * int(methods["`get_version` by stage"][1])),
        "somebody lists every version of 10,000 models": (0, 10_000 + 10),
    }
    assert table("job") == {
        job: [f"{uploads:,}", f"{reads:,}", f"{max(uploads / PUBLISHED.submissions, reads / PUBLISHED.requests):.0f}"]
        for job, (uploads, reads) in expected.items()
    }
