"""Many processes and threads at once, and processes that are killed in the middle."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import RegistryClient, Retry, Stage

if TYPE_CHECKING:
    from tests.behaviour.conftest import Backend, Connect, NewName, NewSource, WaitForLists
    from vertex_registry.emulator import Emulator


MANY = 16

pytestmark = [
    pytest.mark.polls(4),
    pytest.mark.switches_together,
    pytest.mark.emulator_only("a crowd would use up the quota"),
]


def register(endpoint: str, name: str, source: str, number: int, start: Any, answers: Any) -> None:
    """Register a version from its own process, at the same moment as the others."""
    with RegistryClient(endpoint=endpoint, project="test-project", location="us-central1") as registry:
        start.wait()
        version = registry.register_version(
            name, source, request_id=f"run-{number}", stage=Stage.STAGING, metadata={"number": number}
        )
        answers.put((number, version.version, version.model_resource_name))


def processes(endpoint: str, name: str, source: str) -> tuple[list[Any], Any, Any]:
    """Return processes that will register the same name, the event that starts them, and a queue of their results."""
    context = multiprocessing.get_context("forkserver")
    # Each process is a fork of one that has imported what they need.
    context.set_forkserver_preload(["vertex_registry._client", "vertex_registry._registration", "pytest"])
    start, answers = context.Barrier(MANY + 1), context.Queue()
    made = [
        context.Process(target=register, args=(endpoint, name, source, number, start, answers))
        for number in range(MANY)
    ]
    for process in made:
        process.start()
    return made, start, answers


def check(registry: RegistryClient, emulator: Emulator, name: str) -> None:
    """Check that one model has the name, and that each registration has its complete version."""
    versions = list(registry.list_versions(name))
    assert [version.version for version in versions] == [str(number) for number in range(MANY, 0, -1)]
    assert sorted(version.metadata["number"] for version in versions) == list(range(MANY))
    assert {version.stage for version in versions} == {Stage.STAGING}
    assert {version.managed_by for version in versions} == {"zenml"}
    assert name not in registry.duplicates()
    assert not emulator.faults()


def test_many_threads(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Threads that register one new name at once create one model, and each creates its own version."""
    churn, artifact = name(), source()
    clients = [connect() for _ in range(MANY)]
    barrier = threading.Barrier(MANY)

    def run(number: int) -> Any:
        barrier.wait()
        return clients[number].register_version(churn, artifact, stage=Stage.STAGING, metadata={"number": number})

    with ThreadPoolExecutor(MANY) as pool:
        made = list(pool.map(run, range(MANY)))
    wait_for_lists()
    wait_for_lists()

    assert sorted(int(version.version) for version in made) == list(range(1, MANY + 1))
    assert all(version.metadata == {"number": number} for number, version in enumerate(made))
    assert len({version.model_resource_name for version in made}) == 1
    check(connect(), emulator, churn)


@pytest.mark.only("grpc")
def test_many_processes(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """Processes that register one new name at once create one model, and each returns a version of its own."""
    churn = name()
    made, start, answers = processes(emulator.grpc, churn, source())
    start.wait()
    told = [answers.get(timeout=60) for _ in made]
    for process in made:
        process.join(60)

    assert {process.exitcode for process in made} == {0}
    assert len({model for _, _, model in told}) == 1
    assert all(registry.get_version(churn, version).metadata == {"number": number} for number, version, _ in told)
    check(registry, emulator, churn)


@pytest.mark.only("grpc")
def test_half_of_them_are_killed(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If half of the processes are killed, there's no second model, and a second run finishes what they began."""
    churn, artifact = name(), source()
    made, start, answers = processes(emulator.grpc, churn, artifact)
    start.wait()
    while sum(request.rpc == "UploadModel" for request in emulator.requests()) < MANY // 2:
        pass
    for process in made[::2]:
        process.kill()
    told = [answers.get(timeout=60) for _ in made[1::2]]
    for process in made:
        process.join(60)

    assert len({model for _, _, model in told}) == 1
    assert churn not in registry.duplicates()
    with ThreadPoolExecutor(MANY) as pool:
        again = list(
            pool.map(
                lambda number: registry.register_version(
                    churn, artifact, request_id=f"run-{number}", stage=Stage.STAGING, metadata={"number": number}
                ),
                range(MANY),
            )
        )
    assert {version.version for version in again} == {str(number) for number in range(1, MANY + 1)}
    assert {(number, version) for number, version, _ in told} <= {
        (number, version.version) for number, version in enumerate(again)
    }
    check(registry, emulator, churn)


@pytest.mark.parametrize("change", ["update", "promote", "register"])
def test_a_change_in_between(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, change: str
) -> None:
    """However Vertex rejects a stale etag, the change is applied on top of the other client's change."""
    churn, somebody = name(), connect()
    number = 3 if change == "register" else 2
    met: list[float] = []

    def meanwhile(seconds: float) -> None:
        if not emulator.faults() and not met:
            met.append(seconds)
            somebody.update_version(churn, number, metadata={"theirs": 1})

    registry = connect(retry=Retry(sleep=meanwhile))
    for _ in range(2):
        somebody.register_version(churn, source())
    emulator.fail("UpdateModel", "UNAVAILABLE")
    if change == "update":
        made = registry.update_version(churn, 2, stage=Stage.PRODUCTION, metadata={"ours": 1})
    elif change == "promote":
        made = registry.set_stage(churn, 2, Stage.PRODUCTION, archive_existing=True)
    else:
        made = registry.register_version(churn, source(), stage=Stage.PRODUCTION, metadata={"ours": 1})

    assert made.stage is Stage.PRODUCTION
    assert made.metadata == ({"theirs": 1} if change == "promote" else {"theirs": 1, "ours": 1})


def test_concurrent_promotions(
    connect: Connect, backend: Backend, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """During concurrent promotions, Production is never empty. Afterwards it has exactly one version."""
    if "list-lag" in backend.switches:
        pytest.skip("promoters find each other by a list: where lists lag, they wait_for_lists by running again")
    churn = name()
    clients = [connect() for _ in range(6)]
    for _ in clients:
        clients[0].register_version(churn, source())
    clients[0].set_stage(churn, 1, Stage.PRODUCTION)
    wait_for_lists()
    done = threading.Event()
    missing: list[int] = []
    looked = 0

    def look() -> None:
        nonlocal looked
        reader = connect()
        while not done.is_set() or looked < 3:
            looked += 1
            if not any(version.stage is Stage.PRODUCTION for version in reader.list_versions(churn)):
                missing.append(looked)

    def promote(number: int) -> Any:
        return clients[number].set_stage(churn, number + 1, Stage.PRODUCTION, archive_existing=True)

    watcher = threading.Thread(target=look)
    watcher.start()
    with ThreadPoolExecutor(6) as pool:
        promoted = list(pool.map(promote, range(6)))
    done.set()
    watcher.join()

    assert not missing
    standing = [version for version in clients[0].list_versions(churn) if version.stage is Stage.PRODUCTION]
    assert len(standing) == 1
    assert standing[0].version in {v.version for v in promoted}
    others = [version for version in clients[0].list_versions(churn) if version.stage is not Stage.PRODUCTION]
    assert {version.stage for version in others} <= {Stage.ARCHIVED, Stage.NONE}


def test_eight_threads_add_metadata(connect: Connect, name: NewName, source: NewSource) -> None:
    """No concurrent update of one version is lost."""
    churn = name()
    clients = [connect() for _ in range(8)]
    clients[0].register_version(churn, source())

    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: clients[number].update_version(churn, 1, metadata={f"Key {number}": number}), range(8)
            )
        )

    assert clients[0].get_version(churn, 1).metadata == {f"Key {number}": number for number in range(8)}
