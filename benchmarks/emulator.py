"""Compare the emulator's throughput with moto's SageMaker, and measure how cost grows with the number of models.

    python -m benchmarks.emulator                    # everything, some minutes
    python -m benchmarks.emulator --quick            # one round each, and a smaller registry

Both servers run in their own processes and keep their state in memory, unless a row says that the emulator writes to a
file. Each client is a process too, so clients don't share an interpreter. A row is measured in rounds, with one server
after the other, and the servers alternate in going first. Its ratio is the median of the rounds' ratios, because a busy
machine slows down both servers.

There are two kinds of clients. The stock ones are what people use: Google's `ModelServiceClient`, and boto3. They cost
more than either server. The bare ones send prepared requests over an open connection, and don't parse the responses.
They still share the processors with the server, so the rates are lower than those of a server alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import logging
import math
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import boto3
import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PARENT: Final = "projects/bench/locations/us-central1"
GROUP: Final = "churn"
IMAGE: Final = "us-docker.pkg.dev/acme/images/serve:1"
SERVICE: Final = "/google.cloud.aiplatform.v1.ModelService"
LABELS: Final = {"team": "growth", "git": "9f2c1e7", "stage": "none"}

# --- servers -----------------------------------------------------------------


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def served(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server's process within the context. Unlike this process, it may cache compiled modules."""
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(  # noqa: S603 - a known server
        command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_until_answered(process: subprocess.Popen[bytes], ask: Callable[[], None]) -> None:
    """Wait until a server has answered a request. Until it accepts connections, the request is sent again."""
    while True:
        with contextlib.suppress(ConnectionError):
            ask()
            return
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with status {process.returncode}")
        time.sleep(0.005)


def ask_emulator(rest: int) -> None:
    """Request a list of models over REST, from the emulator with this port."""
    _ask(rest, "GET", f"/v1/{PARENT}/models")


def ask_moto(port: int) -> None:
    """Request a list of model package groups, from moto's server with this port."""
    _ask(port, "POST", "/", b"{}", _moto_headers("ListModelPackageGroups"))


def _ask(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            raise SystemExit(f"{path} was answered with status {answer.status}: {text.decode()}")


def _moto_headers(action: str) -> dict[str, str]:
    return {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": f"SageMaker.{action}",
        "Authorization": "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/sagemaker/aws4_request",
    }


@contextlib.contextmanager
def emulator(*arguments: str) -> Iterator[tuple[str, int, str]]:
    """Run the emulator, and yield its gRPC address, its process ID and its REST address."""
    port, rest = free_port(), free_port()
    command = [sys.executable, "-m", "vertex_registry.emulator", "--grpc-port", str(port), "--rest-port", str(rest)]
    with served(*command, *arguments) as process:
        wait_until_answered(process, lambda: ask_emulator(rest))
        yield f"127.0.0.1:{port}", process.pid, f"http://127.0.0.1:{rest}"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto's server, and yield its address."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with served(*command) as process:
        wait_until_answered(process, lambda: ask_moto(port))
        yield f"127.0.0.1:{port}"


# --- requests ----------------------------------------------------------------


def gapic(address: str) -> aiplatform_v1.ModelServiceClient:
    """Create Google's client over plain gRPC."""
    return aiplatform_v1.ModelServiceClient(transport=ModelServiceGrpcTransport(channel=grpc.insecure_channel(address)))


def upload(model: str | None = None, **fields: Any) -> aiplatform_v1.UploadModelRequest:
    """Return a typical upload of a training job."""
    return aiplatform_v1.UploadModelRequest(
        parent=PARENT,
        parent_model=model,
        model={
            "display_name": GROUP,
            "container_spec": {"image_uri": IMAGE},
            "artifact_uri": "gs://models/churn/1",
            "labels": LABELS,
            **fields,
        },
    )


def sagemaker(address: str) -> Any:
    """Create boto3's client for moto."""
    return boto3.client(
        "sagemaker",
        endpoint_url=f"http://{address}",
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",  # noqa: S106 - moto doesn't check it
    )


PACKAGE: Final = {
    "ModelPackageGroupName": GROUP,
    "InferenceSpecification": {
        "Containers": [{"Image": IMAGE, "ModelDataUrl": "s3://models/churn/1"}],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
    },
    "CustomerMetadataProperties": LABELS,
    "ModelApprovalStatus": "PendingManualApproval",
}


def open_connection(address: str) -> http.client.HTTPConnection:
    """Return an open connection that sends at once."""
    connection = http.client.HTTPConnection(address)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def vertex_stock(address: str, job: str, model: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with Google's client over gRPC."""
    return gapic_job(gapic(address), job, model, versions)


def gapic_job(client: aiplatform_v1.ModelServiceClient, job: str, model: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with a Google client."""
    request = upload(model)
    if job == "create":
        return lambda: client.upload_model(request)
    if job == "describe":
        return lambda: client.get_model(name=f"{model}@{random.randint(1, versions)}")  # noqa: S311 - a sample
    return lambda: next(client.list_model_versions({"name": model, "page_size": 100}).pages)


def vertex_bare(address: str, job: str, model: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with prepared bytes over a gRPC channel."""
    channel = grpc.insecure_channel(address)

    def rpc(name: str) -> Any:
        return channel.unary_unary(f"{SERVICE}/{name}", request_serializer=None, response_deserializer=None)

    if job == "create":
        send, message = rpc("UploadModel"), aiplatform_v1.UploadModelRequest.serialize(upload(model))
        return lambda: send(message)
    if job == "describe":
        send = rpc("GetModel")
        messages = [
            aiplatform_v1.GetModelRequest.serialize(aiplatform_v1.GetModelRequest(name=f"{model}@{number}"))
            for number in range(1, versions + 1)
        ]
        return lambda: send(random.choice(messages))  # noqa: S311 - a sample
    send = rpc("ListModelVersions")
    message = aiplatform_v1.ListModelVersionsRequest.serialize(
        aiplatform_v1.ListModelVersionsRequest(name=model, page_size=100)
    )
    return lambda: send(message)


def rest_stock(address: str, job: str, model: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with Google's client over REST."""
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    client = aiplatform_v1.ModelServiceClient(
        transport="rest", credentials=anonymous, client_options={"api_endpoint": address}
    )
    return gapic_job(client, job, model, versions)


def rest_bare(address: str, job: str, model: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with prepared JSON over an open HTTP connection."""
    connection = open_connection(address.removeprefix("http://"))

    def send(method: str, path: str, body: bytes | None = None) -> bytes:
        connection.request(method, f"/v1/{path}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            raise SystemExit(text.decode())
        return text

    if job == "create":
        body = aiplatform_v1.UploadModelRequest.to_json(upload(model)).encode()
        return lambda: send("POST", f"{PARENT}/models:upload", body)
    if job == "describe":
        return lambda: send("GET", f"{model}@{random.randint(1, versions)}")  # noqa: S311 - a sample
    return lambda: send("GET", f"{model}:listVersions?pageSize=100")


def moto_stock(address: str, job: str, _: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with boto3."""
    client = sagemaker(address)
    if job == "create":
        return lambda: client.create_model_package(**PACKAGE)
    if job == "describe":
        arns = _arns(versions)
        return lambda: client.describe_model_package(ModelPackageName=random.choice(arns))  # noqa: S311 - a sample
    return lambda: client.list_model_packages(ModelPackageGroupName=GROUP, MaxResults=100)


def moto_bare(address: str, job: str, _: str, versions: int) -> Callable[[], object]:
    """Return a function that does a job with prepared bytes over an open HTTP connection."""
    connection = open_connection(address)

    def post(action: str, body: bytes) -> bytes:
        while True:
            connection.request("POST", "/", body, _moto_headers(action))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == http.client.OK:
                return text
            # With many clients, moto answers some creates with 500. boto3 silently retries those too.
            if answer.status != http.client.INTERNAL_SERVER_ERROR:
                raise SystemExit(text.decode())

    if job == "create":
        body = json.dumps(PACKAGE).encode()
        return lambda: post("CreateModelPackage", body)
    if job == "describe":
        bodies = [json.dumps({"ModelPackageName": arn}).encode() for arn in _arns(versions)]
        return lambda: post("DescribeModelPackage", random.choice(bodies))  # noqa: S311 - a sample
    body = json.dumps({"ModelPackageGroupName": GROUP, "MaxResults": 100}).encode()
    return lambda: post("ListModelPackages", body)


def _arns(versions: int) -> list[str]:
    return [
        f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{GROUP}/{number}" for number in range(1, versions + 1)
    ]


# --- measuring ---------------------------------------------------------------


_FORK: Final = multiprocessing.get_context("fork")


def _client_process(make: Callable[[], Callable[[], object]], ready: Any, seconds: float, counts: Any) -> None:
    work = make()
    for _ in range(20):
        work()
    ready.wait()
    counts.put(repeat(work, seconds))


def repeat(work: Callable[[], object], seconds: float) -> float:
    """Repeat a call for some seconds, and return the calls per second. The last call may take longer than that."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        work()
        done += 1
    return done / (time.perf_counter() - begin)


def rate(make: Callable[[], Callable[[], object]], clients: int, seconds: float) -> float:
    """Return how many calls per second all client processes together complete."""
    return sum_rates(_client_process, [(make,)] * clients, seconds)


def sum_rates(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]], seconds: float) -> float:
    """Run a function in several processes, and return the sum of their rates.

    Each process gets its own arguments, a barrier to wait for the others, the seconds, and a queue for its rate. If one
    of them fails, or isn't ready within five minutes, all end.
    """
    ready, counts = _FORK.Barrier(len(arguments), timeout=300), _FORK.SimpleQueue()

    def run(own: tuple[Any, ...]) -> None:
        try:
            work(*own, ready, seconds, counts)
        except BaseException:
            ready.abort()
            raise

    processes = [_FORK.Process(target=run, args=(own,)) for own in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process failed")
    return float(sum(counts.get() for _ in processes))


class Row(NamedTuple):
    """One line of the comparison."""

    job: str
    clients: int
    kind: str
    vertex: Callable[[str, str, str, int], Callable[[], object]]
    sagemaker: Callable[[str, str, str, int], Callable[[], object]]
    rest: bool = False


JOBS: Final = (("create", 8), ("describe", 8), ("list 100", 1), ("list 100", 8))
GRPC_ROWS: Final = [
    Row(job, clients, *kind)
    for job, clients in JOBS
    for kind in (("stock", vertex_stock, moto_stock), ("bare", vertex_bare, moto_bare))
]
REST_ROWS: Final = [
    Row(job, clients, *kind, rest=True)
    for job, clients in JOBS
    for kind in (("stock", rest_stock, moto_stock), ("bare", rest_bare, moto_bare))
]


def compare(
    rows: Sequence[Row], rounds: int, seconds: float, *, durable: bool = False
) -> Iterator[tuple[Row, float, float, float]]:
    """Yield each row with the rates of both servers, and the median ratio of the rounds."""
    versions = 100
    for row in rows:
        ours, theirs = [], []
        for turn in range(rounds):
            # The servers alternate in going first.
            if turn % 2 == 0:
                ours.append(_vertex_rate(row, versions, seconds, durable=durable))
            theirs.append(_moto_rate(row, versions, seconds))
            if turn % 2:
                ours.append(_vertex_rate(row, versions, seconds, durable=durable))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        yield row, statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


# Each measurement starts a new server, so no row is slowed down by the models of another.


def _vertex_rate(row: Row, versions: int, seconds: float, *, durable: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        data = ["--data", str(Path(folder) / "registry.db")] if durable else []
        with emulator(*data) as (address, _, rest):
            model = _in_process(functools.partial(_prepare_vertex, address, versions))
            make = functools.partial(row.vertex, rest if row.rest else address, row.job, model, versions)
            return rate(make, row.clients, seconds)


def _moto_rate(row: Row, versions: int, seconds: float) -> float:
    with moto() as address:
        _in_process(functools.partial(_prepare_moto, address, versions))
        make = functools.partial(row.sagemaker, address, row.job, "", versions)
        return rate(make, row.clients, seconds)


def _prepare_vertex(address: str, versions: int) -> str:
    client = gapic(address)
    model = f"{PARENT}/models/{GROUP}"
    client.upload_model({"parent": PARENT, "model_id": GROUP, "model": upload().model})
    for _ in range(versions - 1):
        client.upload_model(upload(model))
    return model


def _prepare_moto(address: str, versions: int) -> str:
    client = sagemaker(address)
    client.create_model_package_group(ModelPackageGroupName=GROUP)
    for _ in range(versions):
        client.create_model_package(**PACKAGE)
    return GROUP


def _in_process(prepare: Callable[[], str]) -> str:
    """Call a function in a new process, because a process that has used gRPC can't be forked."""
    answers = _FORK.SimpleQueue()
    process = _FORK.Process(target=lambda: answers.put(prepare()))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("a server couldn't be prepared")
    answer: str = answers.get()
    return answer


# --- growth ------------------------------------------------------------------


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/{pid}/status has no VmRSS")


#: How often each page is requested.
PAGES: Final = 40

#: The queries of a list of models. The label `rare` is always on 50 models, so pages have equal lengths. A display name
#: contains the model's number.
QUERIES: Final[dict[str, dict[str, str]]] = {
    "no filter": {},
    "no filter, the last page": {"page_token": "last"},
    "display_name=": {"filter": 'display_name="model 50"'},
    "model=": {"filter": "model=m-50"},
    "a label on every model": {"filter": "labels.team=growth"},
    "a label on few models": {"filter": "labels.rare=yes"},
    "a label on few models, whatever its value": {"filter": "labels:rare"},
    "order_by display_name": {"order_by": "display_name"},
    "order_by update_time desc": {"order_by": "update_time desc"},
    "display_name!=": {"filter": 'display_name!="model 50"'},
    "a common label and a rare one": {"filter": "labels.team=growth AND labels.rare=yes"},
    "a label on few models, order_by display_name": {"filter": "labels.rare=yes", "order_by": "display_name"},
    "two common labels that no model has both of": {"filter": "labels.half=a AND labels.other=b"},
}


def fill(address: str, first: int, last: int) -> None:
    """Upload the models with these numbers, each with one version, with several requests at a time."""
    channel = grpc.insecure_channel(address)
    send: Any = channel.unary_unary(f"{SERVICE}/UploadModel", request_serializer=None, response_deserializer=None)
    waiting: list[Any] = []
    for number in range(first, last):
        labels = {"team": "growth", "half": "ab"[number % 2], "other": "ab"[number % 2]}
        labels |= {"rare": "yes"} if number < 100 and number % 2 else {}  # noqa: PLR2004 - every registry has the first 100
        request = upload(display_name=f"model {number}", labels=labels)
        request.model_id = f"m-{number}"
        waiting.append(send.future(aiplatform_v1.UploadModelRequest.serialize(request)))
        if len(waiting) == 64:  # noqa: PLR2004 - a window
            for future in waiting:
                future.result()
            waiting.clear()
    for future in waiting:
        future.result()


def page_costs(clients: Sequence[aiplatform_v1.ModelServiceClient], query: dict[str, str]) -> list[float]:
    """Return each client's milliseconds for one page of 100: the minimum, because disturbances only add time.

    The clients take turns, so a disturbance affects all of them.
    """
    requests = [{"parent": PARENT, "page_size": 100, **query} for _ in clients]
    if "page_token" in query:
        for client, request in zip(clients, requests, strict=True):
            request["page_token"] = _last_token(client)
    minimums = [math.inf] * len(clients)
    for _ in range(PAGES):
        for at, (client, request) in enumerate(zip(clients, requests, strict=True)):
            begin = time.perf_counter()
            next(client.list_models(request).pages)
            minimums[at] = min(minimums[at], (time.perf_counter() - begin) * 1000)
    return minimums


def _last_token(client: aiplatform_v1.ModelServiceClient) -> str:
    token = ""
    for page in client.list_models({"parent": PARENT, "page_size": 1000, "read_mask": {"paths": ["name"]}}).pages:
        token = page.next_page_token or token
    return token


def sizes(models: int) -> None:
    """Print the cost of lists and memory with 100 models and with many more. Both registries are in files."""
    with (
        tempfile.TemporaryDirectory() as folder,
        emulator("--data", str(Path(folder) / "few.db")) as (few, _, _),
        emulator("--data", str(Path(folder) / "many.db")) as (many, pid, _),
    ):
        fill(few, 0, 100)
        fill(many, 0, 100)
        memory = [(100, resident(pid))]
        for last in (models // 10, models // 2, models):
            fill(many, memory[-1][0], last)
            memory.append((last, resident(pid)))
        clients = [gapic(few), gapic(many)]

        print("== emulator-sizes")
        print(f"| a page of 100 | 100 models, ms | {models:,} models, ms | ratio |\n|---|---|---|---|")
        for name, query in QUERIES.items():
            before, after = page_costs(clients, query)
            print(f"| {name} | {before:.2f} | {after:.2f} | {after / before:.2f} |", flush=True)
        print(f"\nRounds: {PAGES}, of which the fastest counts.")
        print("== emulator-memory\n| models | resident memory, MiB |\n|---|---|")
        for count, used in [*memory, (models, resident(pid))]:
            print(f"| {count:,} | {used:.0f} |")
        size = sum(file.stat().st_size for file in Path(folder).glob("many.db*")) / 1024**2
        print(f"\nThe last line is after the lists. The file has {size:.0f} MiB.")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of a second, and 10,000 models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--only", choices=["compare", "rest", "durable", "sizes"])
    given = parser.parse_args()
    logging.disable()
    if given.quick:
        given.rounds, given.seconds, given.models = 1, 1.0, 10_000
    if given.only in (None, "compare"):
        print("== emulator-memory-only")
        _print_comparison("in memory", GRPC_ROWS, given.rounds, given.seconds)
    if given.only in (None, "rest"):
        print("== emulator-rest")
        _print_comparison("over REST", REST_ROWS, given.rounds, given.seconds)
    if given.only in (None, "durable"):
        print("== emulator-durable")
        _print_comparison("with --data", GRPC_ROWS, given.rounds, given.seconds, durable=True)
    if given.only in (None, "sizes"):
        sizes(given.models)


def _print_comparison(how: str, rows: Sequence[Row], rounds: int, seconds: float, *, durable: bool = False) -> None:
    print(f"| {how} | clients | kind | emulator, /s | moto, /s | ratio |\n|---|---|---|---|---|---|")
    for row, ours, theirs, ratio in compare(rows, rounds, seconds, durable=durable):
        print(f"| {row.job} | {row.clients} | {row.kind} | {ours:.0f} | {theirs:.0f} | {ratio:.1f} |", flush=True)
    print(f"\nRounds: {rounds}, of {seconds:g} s for each server.")


if __name__ == "__main__":
    main()
