"""Compare the client with Google's: calls, lists, promotions, and the start of a process.

    python -m benchmarks.client [--quick] [--only calls|lists|size|latency|processes]

Both sides use the same emulator, which runs in its own process. They take turns and alternate in going first, so a busy
machine slows down both. A row has the medians of both sides and the ratio of these medians. Below 1, this package is
faster. Google's side is what people write with its `ModelServiceClient` ("gapic").
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1

from benchmarks.emulator import (
    IMAGE,
    PARENT,
    SERVICE,
    ask_emulator,
    ask_moto,
    emulator,
    free_port,
    gapic,
    served,
    wait_until_answered,
)
from vertex_registry import RegistryClient, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import grpc

PROJECT: Final = PARENT.split("/")[1]
BIG: Final = 10_000
FEW: Final = 10
MODELS: Final = 500
LATENCY: Final = 0.02
IN_FLIGHT: Final = 32
PRODUCTION: Final = Stage.PRODUCTION
METADATA: Final = {"team": "growth", "git": "9f2c1e7", "accuracy": 0.93, "trained_by": "Ann Lee"}
#: The labels that `register_version` writes for this metadata, besides the one of the request. See `check_labels`.
LABELS: Final = {
    "managed_by": "zenml",
    "stage": "none",
    "team": "growth",
    "git": "9f2c1e7",
    "accuracy": "_j_0_2e93",
    "trained_by": "_j__22_41nn_20_4cee_22",
}
REQUEST_LABEL: Final = "vr-request"


class Row(NamedTuple):
    """One line of the table: both medians in milliseconds, the ratio, the goal, and the number of rounds."""

    what: str
    beside: str
    ours: float
    theirs: float
    ratio: float
    goal: str
    rounds: int

    def __str__(self) -> str:
        ours, theirs = (f"{number:.0f}" if number >= 100 else f"{number:.2f}" for number in self[2:4])  # noqa: PLR2004 - three digits
        return (
            f"| {self.what} | {self.beside} | {ours} | {theirs} | **{self.ratio:.2f}** | {self.goal} | {self.rounds} |"
        )


class Medians(NamedTuple):
    """The median milliseconds of both sides, and the number of rounds."""

    ours: float
    theirs: float
    rounds: int


# --- measuring ---------------------------------------------------------------


def alternate(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> Medians:
    """Return the medians of what both sides measure. Both sides take turns in each round."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            times[side].append((ours, theirs)[side]())
    return Medians(statistics.median(times[0]), statistics.median(times[1]), rounds)


def pairs(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, calls: int = 1) -> Medians:
    """Return the median milliseconds of one call of each side, after one call that isn't measured."""

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            begin = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - begin) / calls * 1000

        return measure

    for work in (ours, theirs):
        work()
    return alternate(timed(ours), timed(theirs), rounds)


def row(what: str, beside: str, medians: Medians, goal: str) -> Row:
    """Return a line of the table."""
    return Row(what, beside, medians.ours, medians.theirs, medians.ours / medians.theirs, goal, medians.rounds)


# --- models ------------------------------------------------------------------


def fill(channel: grpc.Channel, uploads: Iterator[aiplatform_v1.UploadModelRequest]) -> None:
    """Upload versions with several requests at a time."""
    send: Any = channel.unary_unary(f"{SERVICE}/UploadModel", request_serializer=None, response_deserializer=None)
    waiting: list[Any] = []
    for request in uploads:
        waiting.append(send.future(aiplatform_v1.UploadModelRequest.serialize(request)))
        if len(waiting) >= 2 * IN_FLIGHT:
            waiting.pop(0).result()
    for future in waiting:
        future.result()


def new_model(name: str) -> aiplatform_v1.UploadModelRequest:
    """Return an upload of a new model, with the labels of a version that `register_version` has registered."""
    # Every registration has another request.
    labels = {**LABELS, REQUEST_LABEL: base64.b32encode(os.urandom(20)).decode().lower()}
    return aiplatform_v1.UploadModelRequest(
        parent=PARENT,
        model_id=name,
        model={
            "display_name": name,
            "container_spec": {"image_uri": IMAGE},
            "artifact_uri": f"gs://models/{name}/1",
            "version_description": "trained tonight",
            "labels": labels,
        },
    )


def check_labels(running: Registry) -> None:
    """Stop unless `register_version` writes the labels that the uploads have."""
    running.ours.register_version("labels", "gs://models/labels/1", metadata=METADATA, request_id="nightly-1")
    written = dict(running.google.get_model(name=running.ours.get_version("labels", 1).resource_name).labels)
    if {key: value for key, value in written.items() if key != REQUEST_LABEL} != LABELS or REQUEST_LABEL not in written:
        raise SystemExit(f"register_version writes other labels than the benchmark's LABELS: {written}")


def new_version(name: str) -> aiplatform_v1.UploadModelRequest:
    """Return an upload of another version."""
    request = new_model(name)
    request.model_id, request.parent_model = "", f"{PARENT}/models/{name}"
    return request


def fill_model(
    client: aiplatform_v1.ModelServiceClient, channel: grpc.Channel, name: str, have: int, want: int
) -> None:
    """Upload versions until the model has `want`. It already has `have`."""
    if not have:
        client.upload_model(new_model(name))
        have = 1
    fill(channel, (new_version(name) for _ in range(want - have)))


class Registry(NamedTuple):
    """A running emulator, and both sides' clients of it."""

    grpc: str
    rest: str
    channel: grpc.Channel
    google: aiplatform_v1.ModelServiceClient
    ours: RegistryClient


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """Run an emulator, and connect both sides' clients."""
    with emulator() as (address, _, rest):
        import grpc as library  # noqa: PLC0415 - the name is an attribute above

        channel = library.insecure_channel(address)
        google = gapic(address)
        with RegistryClient(project=PROJECT, location="us-central1", endpoint=address) as ours:
            yield Registry(address, rest, channel, google, ours)


def count_requests(running: Registry, work: Callable[[], object]) -> int:
    """Return how many requests a call sends. An RPC is one request."""
    running.google.get_location(request={"name": PARENT})
    work()
    running.google.get_location(request={"name": PARENT})
    with urllib.request.urlopen(f"{running.rest}/emulator/requests") as answer:  # noqa: S310 - loopback
        names = [request["rpc"] for request in json.load(answer)["requests"]]
    begin, end = [at for at, name in enumerate(names) if name == "GetLocation"][-2:]
    return end - begin - 1


# --- the rows ----------------------------------------------------------------


def read_record(version: Any) -> tuple[object, ...]:
    """Read twelve fields of a record."""
    return (
        version.name,
        version.version,
        version.resource_name,
        version.stage,
        version.aliases,
        version.description,
        version.metadata,
        version.labels,
        version.artifact_uri,
        version.container.image,
        version.created_at,
        version.updated_at,
    )


def read_model(model: aiplatform_v1.Model) -> tuple[object, ...]:
    """Read the same twelve fields from a message, except that it has no metadata: read its etag instead."""
    return (
        model.display_name,
        model.version_id,
        model.name,
        model.labels["stage"],
        list(model.version_aliases),
        model.version_description,
        model.etag,
        dict(model.labels),
        model.artifact_uri,
        model.container_spec.image_uri,
        model.version_create_time,
        model.version_update_time,
    )


def calls(running: Registry, rounds: int) -> Iterator[Row]:
    """Measure reads of one version over both transports."""
    name = f"{PARENT}/models/small@1"
    yield row(
        "`get_version`, gRPC",
        "gapic `get_model`",
        pairs(lambda: running.ours.get_version("small", 1), lambda: running.google.get_model(name=name), rounds, 100),
        "1.0",
    )
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    rest = aiplatform_v1.ModelServiceClient(
        transport="rest", credentials=anonymous, client_options={"api_endpoint": running.rest}
    )
    with RegistryClient(project=PROJECT, location="us-central1", endpoint=running.rest) as ours:
        yield row(
            "`get_version`, REST",
            "gapic `get_model`",
            pairs(lambda: ours.get_version("small", 1), lambda: rest.get_model(name=name), rounds, 50),
            "1.0",
        )


def lists(running: Registry, rounds: int) -> Iterator[Row]:
    """Measure lists of many versions, and reads of the newest."""
    ours, google, of_big = running.ours, running.google, {"name": f"{PARENT}/models/big", "page_size": 1000}

    def pages() -> int:
        return sum(1 for _ in google.list_model_versions(of_big).pages)

    def read_all() -> list[object]:
        return [read_record(version) for version in ours.list_versions("big")]

    def first_page() -> object:
        return next(google.list_model_versions({**of_big, "page_size": 1}).pages)

    few = max(3, rounds // 3)
    what = f"`list_versions`, {BIG:,} versions, 12 fields of every record read"
    yield row(
        what,
        "gapic's pager, 12 fields of every message read",
        pairs(read_all, lambda: [read_model(model) for model in google.list_model_versions(of_big)], few),
        "0.33",
    )
    yield row(what, "gapic's pages of 1,000, no message read", pairs(read_all, pages, few), "1.6")
    for what, work in (
        (f"`list_versions(limit=1)` of {BIG:,}", lambda: list(ours.list_versions("big", limit=1))),
        (
            f"`next(list_versions())` of {BIG:,}, which reads a page of 100",
            lambda: next(iter(ours.list_versions("big"))),
        ),
        (f"`latest_version(name)` of {BIG:,}", lambda: ours.latest_version("big")),
    ):
        beside = f"gapic's page of 1 (RPCs: {count_requests(running, work)} and 1)"
        yield row(what, beside, pairs(work, first_page, rounds), "3, 1 RPC")


def size(running: Registry, rounds: int) -> Iterator[Row]:
    """Measure the same call on a model with many versions and on one with few."""
    ours = running.ours

    def promote(name: str) -> Callable[[], object]:
        turns = iter(range(10**9))
        return lambda: ours.set_stage(name, next(turns) % 2 + 1, PRODUCTION, archive_existing=True)

    def promote_and_roll_back(name: str) -> Callable[[], object]:
        turns = iter(range(10**9))

        def work() -> None:
            # Use other versions each time, because a version's history has room for a dozen changes.
            first = next(turns) * 2 % FEW + 1
            for number in (first, first + 1):
                ours.set_stage(name, number, PRODUCTION, archive_existing=True)
            ours.rollback(name)

        return work

    works: Sequence[tuple[str, Callable[[str], Callable[[], object]]]] = (
        ("`latest_version(stage=)`", lambda name: lambda: ours.latest_version(name, stage=PRODUCTION)),
        ("`set_stage(archive_existing=True)`", promote),
        ("two promotions and a `rollback`", promote_and_roll_back),
    )
    for what, make in works:
        of_big, of_small = make("big"), make("small")
        for name in ("big", "small"):
            # None of the works begins with the last version, so the first promotion always archives another version.
            ours.set_stage(name, FEW, PRODUCTION, archive_existing=True)
        counts = [count_requests(running, work) for work in (of_big, of_small)]
        beside = f"the same of {FEW} (RPCs: {counts[0]} and {counts[1]})"
        # Five runs, including the first and the counted one, use up the versions of the small model.
        few = 3 if make is promote_and_roll_back else max(3, rounds // 2)
        yield row(f"{what} of {BIG:,}", beside, pairs(of_big, of_small, few), "2, the same RPCs")


def latency(_: Registry, rounds: int) -> Iterator[Row]:
    """Measure a list of every version of many models, if each request takes 20 ms."""
    with registry() as running:
        yield from latency_of(running, rounds)


def latency_of(running: Registry, rounds: int) -> Iterator[Row]:
    """Measure it in this registry, which must be empty."""
    fill(running.channel, (new_model(f"many-{number}") for number in range(MODELS)))
    body = {"rpc": "ListModelVersions", "delay": LATENCY, "times": 10**6}
    for rpc in ("ListModelVersions", "ListModels"):
        plan = urllib.request.Request(f"{running.rest}/emulator/faults", json.dumps({**body, "rpc": rpc}).encode())  # noqa: S310 - loopback
        urllib.request.urlopen(plan).close()  # noqa: S310 - loopback

    def work() -> list[str]:
        return [version.name for version in running.ours.list_versions()]

    requests = count_requests(running, work)
    took = []
    for _ in range(max(3, rounds // 3)):
        begin = time.perf_counter()
        work()
        took.append((time.perf_counter() - begin) * 1000)
    bound = (requests / IN_FLIGHT + 1) * LATENCY * 1000
    beside = f"the bound: {requests} requests, {IN_FLIGHT} at a time, and nothing else"
    what = f"`list_versions()`, every version of {MODELS} models, 20 ms latency, names read"
    yield row(what, beside, Medians(statistics.median(took), bound, len(took)), "1.3")

    def in_threads() -> list[str]:
        models = [model.name for model in running.google.list_models({"parent": PARENT, "page_size": 1000})]
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return [version.display_name for found in pool.map(list_of, models) for version in found]

    def list_of(model: str) -> list[aiplatform_v1.Model]:
        return list(running.google.list_model_versions({"name": model, "page_size": 1000}))

    beside = f"gapic in {IN_FLIGHT} threads, display names read"
    yield row(what, beside, pairs(work, in_threads, max(3, rounds // 3)), "1.0")


# --- processes ---------------------------------------------------------------

OURS: Final = """
from vertex_registry import RegistryClient
with RegistryClient(project={project!r}, location="us-central1", endpoint={address!r}) as registry:
    print(registry.get_version("small", 1).version)
"""
GOOGLES: Final = """
import grpc
from google.cloud.aiplatform_v1 import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
client = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=grpc.insecure_channel({address!r})))
print(client.get_model(name={name!r}).version_id)
"""
GOOGLES_LIST: Final = GOOGLES.replace(
    "print(client.get_model(name={name!r}).version_id)",
    "print(*(model.version_id for model in client.list_model_versions(name={name!r})))",
)


def ran(*command: str, **variables: str) -> Callable[[], object]:
    """Return a function that runs a command. Unlike this process, it may cache compiled modules."""
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(command, env={**settings, **variables}, check=True, capture_output=True)  # noqa: S603


def processes(running: Registry, rounds: int) -> Iterator[Row]:
    """Measure the start of processes."""
    python, address = sys.executable, running.grpc
    bare = ran(python, "-c", "pass")
    imported = row(
        "`import vertex_registry`",
        "a bare interpreter",
        pairs(ran(python, "-c", "import vertex_registry"), bare, 2 * rounds),
        "",
    )
    yield imported._replace(goal="+ 30 ms", beside=f"a bare interpreter (+ {imported.ours - imported.theirs:.0f} ms)")
    few = max(3, rounds // 2)
    mine = OURS.format(project=PROJECT, address=address)
    google = GOOGLES.format(address=address, name=f"{PARENT}/models/small@1")
    yield row(
        "first record in a fresh process",
        "gapic",
        pairs(ran(python, "-c", mine), ran(python, "-c", google), few),
        "1.0",
    )
    program = os.path.join(os.path.dirname(python), "vertex-registry")  # noqa: PTH118, PTH120 - it's beside the interpreter
    yield row("`vertex-registry --help`", "`python -c pass`", pairs(ran(program, "--help"), bare, rounds), "3")
    variables = {
        "VERTEX_AI_EMULATOR_HOST": address,
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "GOOGLE_CLOUD_LOCATION": "us-central1",
    }
    listed = ran(program, "versions", "list", "small", **variables)
    theirs = ran(python, "-c", GOOGLES_LIST.format(address=address, name=f"{PARENT}/models/small"))
    yield row(
        "`vertex-registry versions list`", "gapic's first list in a fresh process", pairs(listed, theirs, few), "0.35"
    )
    yield row(
        "`python -m vertex_registry.emulator`, until it answers a list",
        "`moto_server`, until it answers a list",
        alternate(start_emulator, start_moto, few),
        "< 1",
    )


def start_emulator() -> float:
    """Start the emulator, and return the milliseconds until it has answered a request. It ends after that."""
    port, rest = free_port(), free_port()
    words = ["-m", "vertex_registry.emulator", "--grpc-port", str(port), "--rest-port", str(rest)]
    begin = time.perf_counter()
    with served(sys.executable, *words) as process:
        wait_until_answered(process, lambda: ask_emulator(rest))
        return (time.perf_counter() - begin) * 1000


def start_moto() -> float:
    """Start moto's server, and return the milliseconds until it has answered a request. It ends after that."""
    port = free_port()
    begin = time.perf_counter()
    with served(os.path.join(os.path.dirname(sys.executable), "moto_server"), "-p", str(port)) as process:  # noqa: PTH118, PTH120 - likewise
        wait_until_answered(process, lambda: ask_moto(port))
        return (time.perf_counter() - begin) * 1000


GROUPS: Final = {"calls": calls, "lists": lists, "size": size, "processes": processes, "latency": latency}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=GROUPS)
    given = parser.parse_args()
    print("== client")
    print("| what | beside | this package, ms | the other, ms | ratio | goal | rounds |\n|---|---|---|---|---|---|---|")
    with registry() as running:
        check_labels(running)
        fill_model(running.google, running.channel, "small", 0, FEW)
        if given.only in {None, "lists", "size"}:
            fill_model(running.google, running.channel, "big", 0, BIG)
        for name, measure in GROUPS.items():
            if given.only in {None, name}:
                for line in measure(running, 7 if given.quick else 21):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
