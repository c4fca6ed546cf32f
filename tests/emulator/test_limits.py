"""One client can't use up the server's descriptors, time or memory."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import types
from google.protobuf import struct_pb2

from vertex_registry.emulator._bounds import MOST_VALUES, check_message
from vertex_registry.emulator._dispatch import MOST_FAULTS
from vertex_registry.emulator._http import _EXHAUSTED_WAIT
from vertex_registry.emulator._status import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vertex_registry.emulator import Emulator

#: An emulator that counts how often it tries to accept a connection, and prints it for each line that it reads.
COUNTING = """
import sys, threading
from vertex_registry.emulator.__main__ import main

attempts = 0

def count(frame, event, _):
    global attempts
    attempts += event == "call" and frame.f_code.co_name == "_accept"

def tell():
    for _ in sys.stdin:
        print(attempts, flush=True)

threading.Thread(target=tell, daemon=True).start()
threading.setprofile(count)
sys.exit(main(["--grpc-port", "0", "--rest-port", "0"]))
"""


# --- descriptors -------------------------------------------------------------


class Process:
    """An emulator in its own process, which may open few files."""

    def __init__(self, process: subprocess.Popen[str], rest: str) -> None:
        self.process = process
        self.rest = rest
        host, _, port = rest.removeprefix("http://").partition(":")
        self.address = (host, int(port))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def attempts(self) -> int:
        """How often it has tried to accept a connection."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(name="process", scope="module")
def _process() -> Iterator[Process]:
    pipe, command = subprocess.PIPE, [sys.executable, "-c", COUNTING]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        served = Process(process, json.loads(process.stdout.readline())["rest"])
        assert requests.get(f"{served.rest}/emulator/health", timeout=60).ok
        limit = served.descriptors() + 20
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        yield served
        process.terminate()


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_idle_connections_are_closed_for_new_ones(process: Process, sent: bytes) -> None:
    """Even if clients open more connections than the process has descriptors, it answers."""
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(socket.create_connection(process.address, timeout=30))
            connection.sendall(sent)
        assert requests.get(f"{process.rest}/emulator/health", timeout=30).ok
    assert process.process.poll() is None


def test_the_oldest_kept_connections_are_closed_first(process: Process) -> None:
    """Connections that wait for another request are closed, but not one that was just used."""
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(requests.Session()) for _ in range(25)]
        for session in old:
            assert session.get(f"{process.rest}/emulator/health", timeout=30).ok
        active = socket.create_connection(process.address, timeout=30)
        stack.enter_context(active)
        request = f"GET /emulator/health HTTP/1.1\r\nHost: {process.rest.removeprefix('http://')}\r\n\r\n".encode()
        for session in old[:3]:
            active.sendall(request)
            assert active.recv(65536).startswith(b"HTTP/1.1 200")
            assert requests.get(f"{process.rest}/emulator/health", timeout=30).ok
            assert session.get(f"{process.rest}/emulator/health", timeout=30).ok  # the client connects again


def test_a_server_without_descriptors_waits(process: Process) -> None:
    """If every connection has a running request, new ones wait, and the server pauses between its attempts."""
    count, delay = 30, 1.0
    planned = {"rpc": "ListModels", "delay": delay, "times": count}
    assert requests.post(f"{process.rest}/emulator/faults", json=planned, timeout=30).ok
    host = process.rest.removeprefix("http://")
    lines = ["GET /v1/projects/p/locations/l1/models HTTP/1.1", f"Host: {host}", "Connection: close", "", ""]
    with contextlib.ExitStack() as stack:
        begin, before = time.monotonic(), process.attempts()
        busy = [stack.enter_context(socket.create_connection(process.address, timeout=60)) for _ in range(count)]
        for connection in busy:
            connection.sendall("\r\n".join(lines).encode())

        answers = [connection.recv(65536) for connection in busy]

        attempts, lasted = process.attempts() - before, time.monotonic() - begin
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * count
    assert lasted > delay
    # Each is accepted once. The rest failed: with a rest before the next, or because an idle one was given up for it.
    assert count <= attempts <= 2 * count + lasted / _EXHAUSTED_WAIT
    assert requests.get(f"{process.rest}/emulator/health", timeout=30).ok


# --- time --------------------------------------------------------------------

MANY = 300_000
TOO_MANY = f"The request has more than {MOST_VALUES} values. Split it, or leave some out."


def upload(emulator: Emulator, parent: str, body: str | bytes) -> requests.Response:
    data = body.encode() if isinstance(body, str) else body
    return requests.post(f"{emulator.rest}/v1/{parent}/models:upload", data=data, timeout=120)


def model(fields: str = "", container: str = "") -> str:
    """Return the body of an upload, with more fields in its model or its container."""
    return f'{{"model": {{"displayName": "m", "containerSpec": {{"imageUri": "x/y:1"{container}}}{fields}}}}}'


def many(value: str, separator: str = ",") -> str:
    return separator.join([value] * MANY)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda: model(f', "metadata": [{many("[]")}]'), id="metadata"),
        pytest.param(lambda: model(f', "metadata": {{"a": {"[" * 30}{many("{}")}{"]" * 30}}}'), id="deep metadata"),
        pytest.param(lambda: model(container=f', "ports": [{many("{}")}]'), id="ports"),
        pytest.param(lambda: model(container=f', "args": [{many(json.dumps("é"))}]'), id="args"),
        pytest.param(lambda: model(container=f', "env": [{many("1")}]'), id="env"),
        pytest.param(lambda: model(f', "labels": {{{many(chr(34) + "a" + chr(34) + ":1")}}}'), id="labels"),
        pytest.param(lambda: model(f', "versionAliases": [{many("1")}]'), id="aliases"),
        pytest.param(lambda: "[" * MANY, id="brackets"),
        pytest.param(lambda: "," * MANY + '"' + '\\"' * MANY, id="an open text"),
        pytest.param(lambda: "," * MANY + '"' * MANY, id="quotes"),
    ],
)  # fmt: skip
def test_json_with_too_many_values_is_refused(emulator: Emulator, parent: str, body: Callable[[], str]) -> None:
    """JSON is refused before it's parsed, which could take minutes. These bodies aren't even valid JSON."""
    answer = upload(emulator, parent, body() + "!")

    assert (answer.status_code, answer.json()["error"]["message"]) == (400, TOO_MANY)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(model(container=f', "args": {json.dumps(["a"] * 90_000)}'), id="values"),
        pytest.param(model(f', "description": {json.dumps("," * 300_000)}'), id="commas in a text"),
        pytest.param(model(f', "description": {json.dumps(chr(34) * 99 + ",[{" * 100_000 + chr(92))}'), id="escapes"),
        pytest.param(model(f', "description": "{"é" * 3_000_000}"'), id="a long text"),
    ],
)  # fmt: skip
def test_json_with_many_values_is_accepted(emulator: Emulator, parent: str, body: str) -> None:
    """A string is one value, whatever it contains."""
    answer = upload(emulator, parent, body)

    assert answer.status_code == 200, answer.text


NULL = struct_pb2.Value()
UPLOAD = types.UploadModelRequest.pb()


def message(fill: Callable[[Any], object]) -> bytes:
    request = UPLOAD(parent="projects/4711/locations/us-central1")
    request.model.display_name = "m"
    request.model.container_spec.image_uri = "x/y:1"
    fill(request.model)
    serialised: bytes = request.SerializeToString()
    return serialised


def send(emulator: Emulator, method: str, data: bytes, api: str = "v1") -> str:
    """Send a serialised request over gRPC, and return "ok" or the error's message."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(str(emulator.grpc), options=options) as channel:
        stub: Any = channel.unary_unary(f"/google.cloud.aiplatform.{api}.ModelService/{method}")
        try:
            stub(data, timeout=120)
        except grpc.RpcError as error:
            refused: Any = error
            assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
            return str(refused.details())
    return "ok"


@pytest.mark.parametrize("api", ["v1", "v1beta1"])
@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"\x1a\x00", id="ports"),
        pytest.param(b"\x12\x01a", id="commands"),
        pytest.param(b"\x22\x00", id="env"),
    ],
)
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_a_message_with_too_many_fields_is_refused(emulator: Emulator, extra: bytes, api: str) -> None:
    """Over gRPC, an empty message in a list takes two bytes, so a request could contain sixteen million."""
    container = types.ModelContainerSpec.pb()(image_uri="x/y:1").SerializeToString() + extra * 400_000
    spec = b"\x4a" + varint(len(container)) + container  # Model.container_spec
    body = types.Model.pb()(display_name="m").SerializeToString() + spec
    data = UPLOAD(parent="projects/4711/locations/us-central1").SerializeToString()
    data += b"\x12" + varint(len(body)) + body  # UploadModelRequest.model

    assert send(emulator, "UploadModel", data, api) == TOO_MANY


def varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


@pytest.mark.parametrize(
    "fill",
    [
        pytest.param(lambda model: model.labels.update({f"é{n}": "é" for n in range(60_000)}), id="labels"),
        pytest.param(lambda model: model.supported_deployment_resources_types.extend([1] * 300_000), id="packed"),
        pytest.param(lambda model: model.metadata.list_value.values.extend([NULL] * 150_000), id="values"),
        pytest.param(lambda model: model.version_aliases.extend(["é"] * 150_000), id="aliases"),
    ],
)  # fmt: skip
def test_fields_of_every_kind_are_counted(emulator: Emulator, fill: Callable[[Any], object]) -> None:
    """Entries of maps, packed numbers and nested messages all count."""
    assert send(emulator, "UploadModel", message(fill)) == TOO_MANY


def test_a_message_with_many_fields_is_accepted(emulator: Emulator) -> None:
    """A long text counts as one field."""
    assert (
        send(emulator, "UploadModel", message(lambda model: model.container_spec.args.extend(["é"] * 90_000))) == "ok"
    )
    assert (
        send(emulator, "UploadModel", message(lambda model: setattr(model, "description", "\x1a\x00" * 10**6))) == "ok"
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_can_be_counted(seed: int) -> None:
    """Bytes that aren't a message are refused by protobuf, and never break the count."""
    noise = random.Random(seed)  # noqa: S311 - not for security
    data = (
        noise.randbytes(MOST_VALUES + 1)
        if seed % 2
        else bytes(noise.choices(b"\x0a\x12\x1a\x22\x4a\x00\x02", k=MOST_VALUES * 2))
    )
    for end in (len(data), noise.randrange(MOST_VALUES, len(data))):
        with contextlib.suppress(Failure):
            check_message(data[:end], UPLOAD.DESCRIPTOR)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("filter", "labels.a=" + '"' + "\\u0041" * 500_000 + '"', id="filter"),
        pytest.param("filter", " AND ".join(["labels.a=b"] * 200_000), id="terms"),
        pytest.param("order_by", ",".join(["display_name"] * 200_000), id="order"),
        pytest.param("order_by", "display_name" + " " * 2_000_000, id="spaces"),
        pytest.param("page_token", "A" * 3_000_000, id="token"),
        pytest.param("read_mask", ["name" + ".a" * 1_000_000], id="path"),
        pytest.param("read_mask", ["name"] * 90_000, id="paths"),
        pytest.param("parent", "projects/" + "p" * 3_000_000 + "/locations/us-central1", id="parent"),
    ],
)
def test_a_query_that_is_too_long_is_refused(emulator: Emulator, parent: str, field: str, value: Any) -> None:
    """Every field of a query has a maximum length, far longer than anyone needs."""
    request = types.ListModelsRequest.pb()(parent=parent)
    if field == "read_mask":
        request.read_mask.paths.extend(value)
    else:
        setattr(request, field, value)

    error = send(emulator, "ListModels", request.SerializeToString())

    assert f"Field: {field}; Message: " in error


def test_labels_aliases_and_slices_are_bounded(emulator: Emulator, connect: Callable[..., Any], parent: str) -> None:
    """A model has a maximum of each, even if they come a few at a time."""
    client = connect(emulator)
    labels = {f"é{number}": "É" for number in range(20_000)}
    spec = {"image_uri": "x/y:1"}

    with pytest.raises(exceptions.InvalidArgument, match="No more than 64 labels"):
        client.upload_model(parent=parent, model={"display_name": "m", "container_spec": spec, "labels": labels})
    name = client.upload_model(parent=parent, model={"display_name": "m", "container_spec": spec}).result().model
    client.merge_version_aliases(name=f"{name}@1", version_aliases=[f"a{number}" for number in range(60_000)])
    with pytest.raises(exceptions.InvalidArgument, match="At most 100000 version aliases can be set"):
        client.merge_version_aliases(name=f"{name}@1", version_aliases=[f"b{number}" for number in range(60_000)])
    assert len(client.get_model(name=name).version_aliases) == 60_001
    evaluation = client.import_model_evaluation(parent=name, model_evaluation={"display_name": "e"}).name
    with pytest.raises(exceptions.InvalidArgument, match="At most 1000 slices"):
        client.batch_import_model_evaluation_slices(parent=evaluation, model_evaluation_slices=[{}] * 1001)


def test_a_fault_that_is_too_long_is_refused(emulator: Emulator) -> None:
    """The size and the number of planned faults are bounded, so planning one can't block other requests."""
    for body in (
        "[" + "[]," * 500_000 + "[]]",
        json.dumps({"rpc": "GetModel", "code": "ABORTED", "message": "x" * 2**21}),
    ):
        answer = requests.post(f"{emulator.rest}/emulator/faults", data=body, timeout=60)
        assert answer.status_code == 400
        assert "A fault has at most 1048576 bytes" in answer.text

    for _ in range(MOST_FAULTS):
        emulator.fail("GetModel", "ABORTED")
    with pytest.raises(ValueError, match="Plan one with a larger `times`"):
        emulator.fail("GetModel", "ABORTED")
    answer = requests.post(f"{emulator.rest}/emulator/faults", json={"rpc": "GetModel", "code": "ABORTED"}, timeout=60)
    assert (answer.status_code, "larger `times`" in answer.text) == (400, True)
    emulator.forget_faults()


@pytest.mark.unmeasured  # likewise
def test_a_slow_request_does_not_block_others(emulator: Emulator, connect: Callable[..., Any], parent: str) -> None:
    """While a request with the most values is checked, other requests are answered."""
    inputs = {"f": {"inputBaselines": [1] * 90_000}}
    baselines = f', "explanationSpec": {{"metadata": {{"inputs": {json.dumps(inputs)}}}}}'
    client = connect(emulator)
    slow = threading.Thread(target=upload, args=(emulator, parent, model(baselines)))
    answered = 0

    slow.start()
    while slow.is_alive():
        assert requests.get(f"{emulator.rest}/emulator/health", timeout=60).ok
        assert list(client.list_models(parent=parent)) == []
        answered += slow.is_alive()
    slow.join()

    assert answered > 5


# --- streams -----------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def test_a_client_that_resets_requests_does_not_cancel_others(emulator: Emulator, parent: str) -> None:
    """A client that starts and resets requests as fast as it can only harms itself."""
    address = str(emulator.grpc)
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/google.cloud.aiplatform.v1.ModelService/ListModels",
        ":authority": address,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    headers = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in names.items()
    )
    enough, over = threading.Event(), threading.Event()

    def attack() -> None:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
            answers = threading.Thread(target=read, args=(connection,))
            answers.start()
            with contextlib.suppress(OSError):  # the server may close the connection
                for begin in range(1, 400_000, 400):
                    resets = (
                        frame(1, 4, n, headers) + frame(3, 0, n, b"\0\0\0\x08") for n in range(begin, begin + 400, 2)
                    )
                    connection.sendall(b"".join(resets))
                    if begin > 10_000:
                        enough.set()
                    if over.is_set():
                        break
            enough.set()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            answers.join()

    def read(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass

    attacker = threading.Thread(target=attack)
    attacker.start()
    assert enough.wait(60)
    with grpc.insecure_channel(address) as channel:
        stub: Any = channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels")
        request = types.ListModelsRequest.pb()(parent=parent).SerializeToString()
        answers = [stub(request, timeout=60) for _ in range(30)]
    over.set()
    attacker.join()

    assert answers == [b""] * 30
