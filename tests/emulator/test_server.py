"""The emulator as a whole: starting, closing, TLS, edge cases of gRPC, and many clients at once."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import pytest
import requests
import trustme
from google.api_core import exceptions
from google.cloud import aiplatform_v1, aiplatform_v1beta1
from google.cloud.aiplatform_v1 import types
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2, status_pb2

from vertex_registry.emulator import DataFileError, Emulator, _status, _validation
from vertex_registry.emulator._bounds import LONGEST_REQUEST
from vertex_registry.emulator._dispatch import APIS, BY_NAME, MODEL_SERVICE, RPCS
from vertex_registry.emulator._grpc import _MAXIMUM_DETAIL, _within_trailers
from vertex_registry.emulator._operations import Call
from vertex_registry.emulator._store import View
from vertex_registry.emulator._transcoding import ROUTES
from vertex_registry.emulator._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Google's client takes dictionaries where its types name messages.
    Client = Any
    Start = Callable[..., Emulator]
    Connect = Callable[..., Client]
    Upload = Callable[..., str]

METHOD = "/google.cloud.aiplatform.v1.ModelService/"


def call(emulator: Emulator, method: str, data: bytes) -> bytes:
    with grpc.insecure_channel(str(emulator.grpc)) as channel:
        stub: Any = channel.unary_unary(method)
        answer: bytes = stub(data, timeout=30)
        return answer


def emulator_threads() -> list[str]:
    """Return the names of all threads that belong to emulators."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vertex-emulator")]


# --- starting and closing ----------------------------------------------------


@pytest.fixture(name="pems", scope="module")
def _pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate and its key, another key, a locked key and a broken certificate."""
    folder = tmp_path_factory.mktemp("pems")
    issued, other = trustme.CA().issue_cert("localhost"), trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    other.private_key_pem.write_to_path(folder / "other.pem")
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
    locked = b"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00000000000000000000000000000000\n\n"
    (folder / "locked.pem").write_bytes(
        issued.private_key_pem.bytes().replace(b"KEY-----\n", b"KEY-----\n" + locked, 1)
    )
    return folder


def test_closing_leaves_nothing_behind(connect: Connect, parent: str) -> None:
    """Closing ends all threads, even if connections are open, and frees the ports. You can close twice."""
    emulator = Emulator()
    with requests.Session() as session:
        assert session.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).ok
        list(connect(emulator).list_models(parent=parent))

        emulator.close()
        emulator.close()

    assert emulator_threads() == []
    for address in (str(emulator.grpc), str(emulator.rest).removeprefix("http://")):
        host, port = address.split(":")
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((host, int(port)))


def test_closed_emulators_leave_no_descriptors(tmp_path: Path, parent: str) -> None:
    """Neither threads nor descriptors are left, even if clients keep their connections open."""
    authority = trustme.CA()
    pem, root = tmp_path / "server.pem", tmp_path / "root.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(root)

    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    def start_and_close() -> None:
        with contextlib.ExitStack() as stack:
            emulators = [stack.enter_context(Emulator(grpc_port=None)) for _ in range(3)]
            emulators.append(stack.enter_context(Emulator(grpc_port=None, tls_cert=pem, tls_key=pem)))
            session = stack.enter_context(requests.Session())
            for emulator in emulators:
                url = emulator.rest.replace("127.0.0.1", "localhost")
                assert session.get(f"{url}/v1/{parent}/models", verify=str(root), timeout=10).ok
                address = "127.0.0.1", int(emulator.rest.rpartition(":")[2])
                stack.enter_context(socket.create_connection(address)).sendall(b"GET / HTTP")

    start_and_close()  # the first time opens what the process keeps
    before = descriptors()
    start_and_close()

    assert emulator_threads() == []
    assert descriptors() == before


def test_a_forked_process_does_not_close_its_parents_server(start: Start) -> None:
    """If a forked process closes the emulator that it inherited, the parent's server keeps running."""
    emulator = start(grpc_port=None)
    with requests.Session() as session:
        assert session.get(f"{emulator.rest}/emulator/health", timeout=10).ok
        child = os.fork()
        if not child:  # pragma: no cover - in the forked process
            status = 1
            try:
                emulator.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert session.get(f"{emulator.rest}/emulator/health", timeout=10).ok
    assert requests.get(f"{emulator.rest}/emulator/health", timeout=10).ok


def test_only_http_needs_the_extra() -> None:
    """Without aiohttp, gRPC and the local registry work. Anything that needs HTTP says what to install."""
    code = """
import sys; sys.modules["aiohttp"] = None
from vertex_registry import local_registry
from vertex_registry.emulator import Emulator, SiteServer
from vertex_registry.emulator.__main__ import main
with local_registry() as registry:
    print(registry.register_version("churn", "gs://models/churn/1").version)
for start in (Emulator, lambda: SiteServer(None)):
    try:
        start()
    except ImportError as error:
        print(error)
print(main(["--grpc-port", "0", "--rest-port", "0"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    message = (
        "Serving HTTP needs aiohttp. Install it: pip install 'vertex-registry[emulator]'. For gRPC alone, pass"
        " rest_port=None."
    )
    assert done.stdout.splitlines() == ["1", message, message, "2"]
    assert done.stderr.splitlines() == [message]


def test_a_server_can_be_left_out(start: Start) -> None:
    """A server whose port is None isn't started."""
    assert not start(grpc_port=None).grpc
    assert not start(rest_port=None).rest
    assert repr(start(grpc_port=None, rest_port=None)) == "<Emulator grpc=None rest=None>"


@pytest.mark.parametrize(("kind", "name"), [("grpc_port", "gRPC"), ("rest_port", "REST")])
def test_a_port_that_is_taken_is_an_error(
    start: Start, capfd: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    """The error is one sentence, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"^Can't listen on port {port} of 127\.0\.0\.1 for {name}: Address already .*free port\.$"
        ):
            start(**{kind: port})
        assert emulator_threads() == []
    assert capfd.readouterr() == ("", "")


def test_an_address_that_only_grpc_cannot_read_is_an_error(start: Start, tmp_path: Path) -> None:
    """The error is one sentence. Nothing is left running, and the data file is free."""
    with pytest.raises(OSError, match=r"^gRPC can't listen on the address 127\.1:0\. Choose another address\.$"):
        start(tmp_path / "data", host="127.1")
    assert emulator_threads() == []
    start(tmp_path / "data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"polls_until_done": -1}, "polls_until_done can't be -1. Use a number from 0 to 1000000000."),
        ({"polls_until_done": 10**30}, "Use a number from 0 to 1000000000."),
        ({"grpc_port": 9, "rest_port": 9}, "gRPC and REST can't both use port 9. Choose another port for one of them."),
        ({"host": "not..a.host"}, "The address 'not..a.host' doesn't exist. Use an address of this machine"),
        ({"host": ""}, "The address '' doesn't exist. "),
        ({"host": "[::1]"}, "The address '[::1]' doesn't exist. "),
        ({"host": "127.0.0.1:80"}, "Use an address of this machine without a port"),
        ({"host": "http://127.0.0.1"}, "The address 'http://127.0.0.1' doesn't exist. "),
        ({"host": "192.0.2.1"}, "Can't listen on the address 192.0.2.1: Cannot assign requested address. Use an"),
        ({"host": "192.0.2.1", "grpc_port": None}, "Can't listen on the address 192.0.2.1: "),
        ({"tls_cert": "{pems}/cert.pem"}, "TLS needs both a certificate and its key."),
        ({"tls_cert": "{pems}/x", "tls_key": "{pems}/key.pem"}, "/x can't be read: No such file or directory."),
        ({"tls_cert": "{pems}", "tls_key": "{pems}/key.pem"}, "can't be read: Is a directory."),
        ({"tls_cert": "{pems}/key.pem", "tls_key": "{pems}/key.pem"}, "The file {pems}/key.pem has no certificate."),
        (
            {"tls_cert": "{pems}/cert.pem", "tls_key": "{pems}/cert.pem"},
            "The file {pems}/cert.pem has no private key.",
        ),
        ({"tls_cert": "{pems}/cert.pem", "tls_key": "{pems}/other.pem"}, "isn't the key of the certificate in"),
        (
            {"tls_cert": "{pems}/cert.pem", "tls_key": "{pems}/locked.pem"},
            "has a password. Use one without a password.",
        ),
        ({"tls_cert": "{pems}/broken.pem", "tls_key": "{pems}/key.pem"}, "can't be used: "),
        ({"data": "{pems}/nowhere/data"}, "because the folder {pems}/nowhere doesn't exist. Create the"),
        ({"data": "{pems}"}, "The data file {pems} is a folder. Name a file in it, such as {pems}/registry.db."),
        (
            {"storage": "ftp://storage"},
            "The storage 'ftp://storage' isn't an address. Use one such as http://127.0.0.1:",
        ),
        ({"storage": "http://["}, "The storage 'http://[' isn't an address."),
        ({"storage": "my storage"}, "The storage 'my storage' isn't an address."),
        *(
            ({"storage": storage}, "The storage isn't an address. Use one such as http://127.0.0.1:4443, without")
            for storage in (
                "http://ann:secret@storage",
                "ann@storage",
                "http://storage?key=secret",
                "http://storage/#x",
            )
        ),
        ({"allowed_hosts": [""]}, "The allowed host '' isn't a name. Give it without a scheme and a port"),
        ({"allowed_hosts": ["vertex:8471"]}, "The allowed host 'vertex:8471' isn't a name"),
        ({"allowed_hosts": ["http://vertex"]}, "The allowed host 'http://vertex' isn't a name"),
        ({"allowed_hosts": "vertex"}, "allowed_hosts can't be 'vertex'. It has to be a list of names."),
        ({"allowed_hosts": [1]}, "The allowed host 1 isn't a name"),
        ({"allowed_hosts": None}, "allowed_hosts can't be None. It has to be a list of names."),
        ({"data": 1}, "data can't be 1. It has to be the path of a file."),
        ({"host": None}, "host can't be None. It has to be the name or the number of an address."),
        ({"grpc_port": "8470"}, "grpc_port can't be '8470'. It has to be a number, or None to serve nothing there."),
        ({"rest_port": "8471"}, "rest_port can't be '8471'. It has to be a number"),
        ({"rest_port": True}, "rest_port can't be True. It has to be a number"),
        ({"polls_until_done": "1"}, "polls_until_done can't be '1'. It has to be a number."),
        ({"polls_until_done": 0.5}, "polls_until_done can't be 0.5. It has to be a number."),
        (
            {"assume": "list-lag=3"},
            "assume can't be 'list-lag=3'. It has to be values by the names of switches, such as",
        ),
        ({"assume": {"list-lag": 0.5}}, "list-lag can't be '0.5'. Choose one of: 0, N."),
        ({"assume": {"label-wins": 1}}, "label-wins can't be '1'. Choose one of: version, model."),
        ({"assume": {"label-wins": None}}, "label-wins can't be 'None'. Choose one of: version, model."),
        ({"assume": {1: "x"}}, "The switch 1 doesn't exist. Choose one of: "),
        ({"tls_cert": 1, "tls_key": 1}, "tls_cert can't be 1. It has to be the path of a file."),
        ({"storage": 1}, "storage can't be 1. It has to be a URL."),
        ({"now": 1}, "now can't be 1. It has to be a function."),
        ({"new_id": "x"}, "new_id can't be 'x'. It has to be a function."),
    ],
)
def test_arguments_are_checked(
    start: Start, pems: Path, capfd: pytest.CaptureFixture[str], arguments: dict[str, Any], message: str
) -> None:
    """Every mistake is reported in a sentence. Nothing is started, and no data file is created."""
    formatted = {
        name: value.format(pems=pems) if isinstance(value, str) else value for name, value in arguments.items()
    }
    before = sorted(pems.iterdir())

    with pytest.raises((ValueError, OSError, DataFileError)) as caught:
        start(**{"data": pems / "data", **formatted})

    assert message.format(pems=pems) in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert sorted(pems.iterdir()) == before
    assert emulator_threads() == []
    assert capfd.readouterr() == ("", "")


def test_a_lag_may_be_a_number(start: Start, connect: Connect, upload: Upload, parent: str) -> None:
    """In Python, the value of a switch can be a number."""
    client = connect(start(assume={"list-lag": 1}))
    upload(client)

    assert [len(list(client.list_models(parent=parent))) for _ in range(2)] == [0, 1]


def test_ipv6_is_served(start: Start, parent: str) -> None:
    """An emulator can listen on IPv6. Its addresses have brackets."""
    emulator = start(host="::1")

    assert str(emulator.grpc).startswith("[::1]:")
    assert requests.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).json() == {}
    assert (
        call(emulator, f"{METHOD}ListModels", BY_NAME["ListModels"].request(parent=parent).SerializeToString()) == b""
    )


def test_both_ports_use_tls(start: Start, parent: str, tmp_path: Path) -> None:
    """Both ports use the certificate. A client without TLS gets no response and doesn't delay others."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    pem, root = tmp_path / "server.pem", tmp_path / "root.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(root)
    emulator = start(tls_cert=pem, tls_key=pem)
    port = str(emulator.rest).rpartition(":")[2]

    assert str(emulator.rest).startswith("https://")
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as plain:
        assert requests.get(f"https://localhost:{port}/v1/{parent}/models", verify=str(root), timeout=10).json() == {}
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/1.1 200" not in plain.recv(100)
    credentials = grpc.ssl_channel_credentials(root.read_bytes())
    with grpc.secure_channel(f"localhost:{str(emulator.grpc).rpartition(':')[2]}", credentials) as channel:
        request = BY_NAME["ListModels"].request(parent=parent).SerializeToString()
        assert channel.unary_unary(f"{METHOD}ListModels")(request, timeout=30) == b""


def test_closing_ends_connections_under_tls(start: Start, parent: str, tmp_path: Path) -> None:
    """Closing ends idle connections, and those without a finished handshake. It doesn't wait for them."""
    authority = trustme.CA()
    pem, root = tmp_path / "server.pem", tmp_path / "root.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(root)
    emulator = start(tls_cert=pem, tls_key=pem)
    port = str(emulator.rest).rpartition(":")[2]

    with socket.create_connection(("127.0.0.1", int(port))) as silent, requests.Session() as session:
        assert session.get(f"https://localhost:{port}/v1/{parent}/models", verify=str(root), timeout=10).ok
        emulator.close()
        silent.settimeout(10)
        assert silent.recv(1) == b""


# --- gRPC --------------------------------------------------------------------


def test_a_failure_carries_its_details(emulator: Emulator) -> None:
    """The details are a google.rpc.Status in the trailers, where Google's clients read them."""
    with pytest.raises(grpc.RpcError) as caught:
        call(emulator, f"{METHOD}GetModel", b"")

    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    assert detail.field_violations[0].field == "name"


def test_the_first_of_many_mistakes_are_reported(emulator: Emulator) -> None:
    """The first mistakes are reported, however many there are."""
    bad = types.ModelEvaluationSlice.pb()(metrics=struct_pb2.Value(number_value=math.nan))
    parent = "projects/p/locations/l/models/m/evaluations/e"
    request = types.BatchImportModelEvaluationSlicesRequest.pb()(parent=parent, model_evaluation_slices=[bad] * 101)

    name = "batch_import_model_evaluation_slices"
    method = emulator._dispatcher._service.methods([name])[name]

    with pytest.raises(_status.Failure) as caught:
        method(request, Call())

    detail: Any = caught.value.details[0]
    fields = [violation.field for violation in detail.field_violations]
    assert fields == [f"model_evaluation_slices[{position}]" for position in range(100)]
    cut, more = error_details_pb2.BadRequest(), error_details_pb2.BadRequest()
    assert _within_trailers(caught.value).details[0].Unpack(cut)
    more.field_violations.extend(detail.field_violations[: len(cut.field_violations) + 1])
    assert cut.field_violations == more.field_violations[:-1]
    assert cut.ByteSize() <= _MAXIMUM_DETAIL < more.ByteSize()


@pytest.mark.parametrize(
    ("method", "data", "code"),
    [
        (f"{METHOD}Nonsense", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/google.cloud.aiplatform.v1.EndpointService/ListEndpoints", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/google.cloud.aiplatform.v1beta1.ModelService/RecommendSpec", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/google.iam.v1.IAMPolicy/GetIamPolicy", b"", grpc.StatusCode.UNIMPLEMENTED),
        (f"{METHOD}GetModel", b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (f"{METHOD}GetModel", b"\x0a\x01\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_an_invalid_request_is_refused(emulator: Emulator, method: str, data: bytes, code: grpc.StatusCode) -> None:
    """An unknown method is refused, and so are bytes that aren't a message."""
    with pytest.raises(grpc.RpcError) as caught:
        call(emulator, method, data)

    error: Any = caught.value
    assert error.code() is code


def test_silent_clients_do_not_block_others(emulator: Emulator, parent: str) -> None:
    """Requests without a message and delayed responses don't block other requests."""
    emulator.fail("GetModel", delay=1e6)
    emulator.fail("GetModel", delay=1e6)
    hung = threading.Event()
    request = aiplatform_v1.ListModelsRequest.serialize(aiplatform_v1.ListModelsRequest(parent=parent))
    with grpc.insecure_channel(emulator.grpc) as channel:
        service = "/google.cloud.aiplatform.v1.ModelService"
        silent: Any = channel.stream_unary(f"{service}/ListModels")
        late: Any = channel.unary_unary(f"{service}/GetModel")
        calls = [silent.future(iter(hung.wait, True)) for _ in range(90)] + [late.future(b"") for _ in range(2)]
        for _ in range(3):
            channel.unary_unary(f"{service}/ListModels")(request, timeout=6)
        assert not any(call.done() for call in calls)
        hung.set()


def test_the_server_survives_a_system_without_threads(emulator: Emulator, parent: str) -> None:
    """If no thread can be started, the existing ones serve the requests."""
    request = BY_NAME["ListModels"].request(parent=parent).SerializeToString()
    emulator.fail("ListModels", delay=0.01)  # during the delay, another thread would take over
    before = threading.stack_size(2**46)  # no thread can be started with such a stack
    try:
        assert call(emulator, f"{METHOD}ListModels", request) == b""
        assert requests.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).ok
    finally:
        threading.stack_size(before)

    assert call(emulator, f"{METHOD}ListModels", request) == b""
    assert requests.get(f"{emulator.rest}/v1/{parent}/models", timeout=10).ok
    emulator.close()


def test_a_request_that_is_too_long_is_refused(emulator: Emulator) -> None:
    """Even a message that's only short because it's compressed is refused."""
    request = BY_NAME["GetModel"].request(name="x" * LONGEST_REQUEST).SerializeToString()
    with grpc.insecure_channel(str(emulator.grpc), compression=grpc.Compression.Gzip) as channel:
        stub: Any = channel.unary_unary(f"{METHOD}GetModel")
        with pytest.raises(grpc.RpcError) as caught:
            stub(request, timeout=30)

    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert emulator.requests() == ()


def test_a_worker_ends_while_others_take_over() -> None:
    """A worker can end while another thread takes over its work."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            worker = Worker("vertex-emulator-test")
            taker = threading.Thread(target=lambda worker=worker: [worker.take_over() for _ in range(20)])
            taker.start()
            worker.shutdown()
            taker.join()
    finally:
        sys.setswitchinterval(interval)


def test_a_worker_keeps_its_threads() -> None:
    """A thread whose work was taken over waits for another turn, and ends with the worker."""
    worker = Worker("vertex-emulator-test")
    threads: set[threading.Thread] = set()

    def step_aside() -> None:
        threads.add(threading.current_thread())
        worker.take_over()

    for _ in range(100):
        worker.submit(step_aside).result(timeout=10)
    worker.shutdown()

    assert len(threads) < 20
    assert not any(thread.is_alive() for thread in threads)


def test_a_worker_survives_its_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """A task that ends its thread, or whose caller no longer waits, doesn't keep the others from being done."""
    worker = Worker("vertex-emulator-test")
    started, go_on = threading.Event(), threading.Event()
    worker.put(lambda: sys.exit("a task's own end"))
    blocked = worker.submit(lambda: [started.set(), go_on.wait(10)])  # type: ignore[func-returns-value]  # two steps
    canceled = worker.submit(lambda: pytest.fail("it was canceled"))
    started.wait(10)

    assert not blocked.cancel()
    assert canceled.cancel()
    go_on.set()
    assert worker.submit(lambda: "done").result(timeout=10) == "done"
    worker.shutdown()

    assert "a task's own end" in caplog.text
    with pytest.raises(RuntimeError, match=r"^vertex-emulator-test has ended\.$"):
        worker.submit(lambda: None)


def test_v1beta1_is_the_same_on_the_wire() -> None:
    """Every message of v1 in the table has the same fields and numbers in v1beta1, or more."""
    seen: set[str] = set()

    def compare(one: Any, other: Any) -> None:
        if one.full_name in seen or not one.full_name.startswith("google.cloud.aiplatform.v1."):
            return
        seen.add(one.full_name)
        assert other.full_name == one.full_name.replace(".v1.", ".v1beta1.")
        for field in one.fields:
            counterpart = other.fields_by_number.get(field.number)
            if counterpart is None:
                # v1beta1's ListModelsRequest has no order_by. Such a field must not have another number in v1beta1.
                assert field.name not in other.fields_by_name
                continue
            assert (counterpart.name, counterpart.type, counterpart.is_repeated) == (
                field.name,
                field.type,
                field.is_repeated,
            )
            if field.message_type is not None:
                compare(field.message_type, counterpart.message_type)

    for rpc in RPCS:
        for message in (rpc.request, rpc.response):
            name = message.DESCRIPTOR.name
            if hasattr(aiplatform_v1.types, name):
                counterpart: Any = getattr(aiplatform_v1beta1.types, name)
                compare(message.DESCRIPTOR, counterpart.pb().DESCRIPTOR)
    assert len(seen) > 60


def test_every_row_of_the_table_is_served(emulator: Emulator) -> None:
    """Every RPC is served over gRPC in each version, and over HTTP by a route that no earlier route shadows."""
    for rpc in RPCS:
        for api in APIS:
            try:
                call(emulator, f"/{rpc.service.format(api=api)}/{rpc.name}", b"")
            except grpc.RpcError as error:
                refused: Any = error
                assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    samples = {"projects/*": "projects/p", "locations/*": "locations/l"}
    for rpc in RPCS:
        for http in rpc.http:
            path = http.path
            for pattern, sample in samples.items():
                path = path.replace(pattern, sample)
            concrete = "".join(part.partition("=")[2] or part for part in path.replace("}", "{").split("{"))
            found = next(
                route.rpc.name
                for route in ROUTES[http.verb]
                if route.path.fullmatch(f"/v1/{concrete.replace('*', 'x')}")
            )
            assert found == rpc.name
    assert {rpc.service for rpc in RPCS if rpc.service != MODEL_SERVICE} == {
        "google.longrunning.Operations",
        "google.cloud.location.Locations",
    }


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_bug_is_logged(
    start: Start, connect: Connect, upload: Upload, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug is logged with its traceback. The client gets INTERNAL, and nothing is written."""

    def broken() -> str:
        raise ZeroDivisionError

    emulator = start(new_id=broken)
    client = connect(emulator, transport)

    with pytest.raises(exceptions.InternalServerError, match="The emulator made a mistake in UploadModel"):
        upload(client)

    assert "ZeroDivisionError" in caplog.text


def test_a_bug_in_the_transport_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A bug outside of the RPCs is logged, too."""
    emulator = start()
    emulator._dispatcher._service._store.close()

    answer = requests.post(f"{emulator.rest}/emulator/reset", timeout=10)

    assert answer.json()["error"]["status"] == "INTERNAL"
    assert "Cannot operate on a closed database" in caplog.text


@pytest.mark.parametrize("lag", ["0", "3"])
def test_a_reset_forgets_everything(start: Start, connect: Connect, upload: Upload, parent: str, lag: str) -> None:
    """A reset deletes models, operations, faults and requests. Neither reads nor lists show them."""
    emulator = start(assume={"list-lag": lag}, polls_until_done=1)
    client = connect(emulator)
    upload(client, model_id="mine")
    operation = client.delete_model(name=f"{parent}/models/mine").operation
    emulator.fail("GetModel", "ABORTED")

    emulator.reset()

    assert not emulator.requests()
    assert not emulator.faults()
    for _ in range(5):
        assert list(client.list_models(parent=parent)) == []
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{parent}/models/mine")
    with pytest.raises(exceptions.NotFound):
        client.get_operation({"name": operation.name})
    assert upload(client, model_id="mine") == f"{parent}/models/mine@1"


def test_a_reset_clears_the_cache_of_list_entries(emulator: Emulator, client: Client, upload: Upload) -> None:
    """No entry of a list stays in memory."""
    parent = upload(client, model_id="shown").rpartition("/models/")[0]
    assert [model.display_name for model in client.list_models(parent=parent)] == ["churn"]

    def cached() -> list[str]:
        return [view.id for view in gc.get_objects() if type(view) is View and view.id == "shown"]

    assert cached() == ["shown"]
    emulator.reset()

    assert cached() == []


# --- many at once ------------------------------------------------------------


def test_many_clients_see_one_registry(emulator: Emulator, connect: Connect, upload: Upload) -> None:
    """With clients of both transports, no version number repeats, each alias is on one version, no update is lost."""
    clients = [connect(emulator, transport) for transport in ("grpc", "rest") * 3]
    bare = upload(clients[0], model_id="mine").partition("@")[0]

    def work(client: Client) -> list[str]:
        uploaded = []
        for _ in range(6):
            name = upload(client, under=bare, version_aliases=["default", "gold"])
            uploaded.append(name)
            client.merge_version_aliases(name=name, version_aliases=["gold", "hot"])
            while True:
                model = client.get_model(name=f"{bare}@1")
                count = int(model.version_description or 0) + 1
                update = {"name": model.name, "version_description": str(count), "etag": model.etag}
                try:
                    client.update_model(request={"model": update, "update_mask": "versionDescription"})
                except exceptions.Conflict:
                    continue
                break
        return uploaded

    with ThreadPoolExecutor(len(clients)) as pool:
        uploaded = [name for names in pool.map(work, clients) for name in names]

    assert len(set(uploaded)) == len(uploaded) == 36
    versions = list(clients[0].list_model_versions(name=bare))
    assert [version.version_id for version in versions] == [str(n) for n in range(1, 38)]
    aliases = [alias for version in versions for alias in version.version_aliases]
    assert sorted(aliases) == ["default", "gold", "hot"]
    assert versions[0].version_description == "36"


def test_one_of_many_creators_of_an_id_wins(emulator: Emulator, connect: Connect, upload: Upload) -> None:
    """Exactly one upload creates the model. All others get ALREADY_EXISTS."""
    clients = [connect(emulator) for _ in range(8)]

    def create(client: Client) -> bool:
        try:
            upload(client, model_id="mine")
        except exceptions.AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(len(clients)) as pool:
        assert sum(pool.map(create, clients)) == 1


# --- artifacts ---------------------------------------------------------------


def _json(body: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\n\r\n{body}".encode()


#: Invalid responses of a storage server, by the bucket in the request.
INVALID_RESPONSES = {
    "list": _json("[]"),
    "null": _json("null"),
    "items-number": _json('{"items": 5}'),
    "items-null": _json('{"items": null}'),
    "items-of-nothing": _json('{"items": [{}]}'),
    "items-of-text": _json('{"items": ["a"]}'),
    "name-number": _json('{"items": [{"name": 5}]}'),
    "deep": _json("[" * 100_000),
    "no-json": _json("<html>"),
    "no-text": b"HTTP/1.0 200 OK\r\n\r\n\xff",
    "short": b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    "endless-length": b"HTTP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    "no-http": b"\x00\x00\x12\x04\x00\r\n\r\n",
    "no-status": b"HTTP/1.0 nonsense\r\n\r\n",
    "more-and-more": _json('{"nextPageToken": "again"}'),
}


class _Storage(BaseHTTPRequestHandler):
    """A server with Cloud Storage's list of objects, for one bucket, in pages of two."""

    objects: ClassVar[list[str]] = [
        "good/a.txt",
        "good/metadata.json",
        "good/model.joblib",
        "both/a.txt",
        "both/model.joblib",
        "both/model.pkl",
        "good2/other.txt",
        "deep/down/model.joblib",
        "model.joblib",
    ]

    def do_GET(self) -> None:
        bucket = self.path.split("/")[4]
        if bucket in INVALID_RESPONSES:
            self.wfile.write(INVALID_RESPONSES[bucket])
            return
        _, _, query = self.path.partition("?")
        parameters = dict(part.split("=") for part in query.split("&"))
        prefix = parameters["prefix"].replace("%2F", "/")
        found = [name for name in self.objects if name.startswith(prefix) and "/" not in name[len(prefix) :]]
        status = 200 if "/b/bucket/" in self.path else 500 if "/b/broken/" in self.path else 404
        begin = int(parameters.get("pageToken", "0"))
        answer = {"items": [{"name": name} for name in found[begin : begin + 2]]} if found else {}
        more = {"nextPageToken": str(begin + 2)} if len(found) > begin + 2 else {}
        body = json.dumps(answer | more).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing."""


@pytest.fixture(name="storage")
def _storage() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Storage) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


SKLEARN = {"image_uri": "europe-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest"}


@pytest.mark.parametrize("uri", ["gs://bucket/good", "gs://bucket/good/", "gs://bucket", "gs://bucket/"])
def test_an_artifact_for_a_prebuilt_container_is_accepted(
    start: Start, connect: Connect, upload: Upload, storage: str, uri: str
) -> None:
    """The directory must have exactly one model file. It may have other files."""
    upload(connect(start(storage=storage)), artifact_uri=uri, container_spec=SKLEARN)


@pytest.mark.parametrize("uri", ["both", "good2", "goo", "deep", "nowhere", "good/model.joblib"])
def test_an_artifact_that_a_prebuilt_container_cannot_serve_is_refused(
    start: Start, connect: Connect, upload: Upload, storage: str, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """If the bucket can be read, a directory with no model file, or with two, is refused with Vertex's message."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{storage}")
    client = connect(start())

    with pytest.raises(exceptions.FailedPrecondition) as caught:
        upload(client, artifact_uri=f"gs://bucket/{uri}", container_spec=SKLEARN)

    expected = f"Model directory gs://bucket/{uri} is expected to contain exactly one of: [model.pkl, model.joblib]."
    assert caught.value.message == expected
    with pytest.raises(exceptions.FailedPrecondition):
        upload(client, artifact_uri="gs://other-bucket/good", container_spec=SKLEARN)
    upload(client, artifact_uri=f"gs://bucket/{uri}", container_spec={"image_uri": "example.com/mine"})
    upload(connect(start(storage="")), artifact_uri=f"gs://bucket/{uri}", container_spec=SKLEARN)


def test_an_unavailable_storage_is_reported(start: Start, connect: Connect, upload: Upload, storage: str) -> None:
    """The upload fails with UNAVAILABLE, and the error has the address."""
    with pytest.raises(exceptions.ServiceUnavailable, match=f"{storage} answered with status 500"):
        upload(connect(start(storage=storage)), artifact_uri="gs://broken/x", container_spec=SKLEARN)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    client = connect(start(storage=address))

    with pytest.raises(exceptions.ServiceUnavailable, match=address):
        upload(client, container_spec=SKLEARN)


def test_the_storage_is_reached_without_a_proxy(
    start: Start, connect: Connect, upload: Upload, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage's address is used directly, even if the environment names a proxy."""
    client = connect(start(storage=storage))
    upload(client)  # connect the client before it can use the proxy too
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    upload(client, artifact_uri="gs://bucket/good", container_spec=SKLEARN)


@pytest.mark.parametrize("bucket", INVALID_RESPONSES)
def test_an_invalid_response_of_the_storage_is_reported(
    start: Start, connect: Connect, upload: Upload, storage: str, bucket: str
) -> None:
    """A server with invalid responses counts as unavailable, even if it returns pages forever."""
    client = connect(start(storage=storage))

    with pytest.raises(exceptions.ServiceUnavailable, match=f"The storage at http://{storage} doesn't answer: "):
        upload(client, artifact_uri=f"gs://{bucket}/x", container_spec=SKLEARN)


def test_every_prebuilt_framework_has_its_files() -> None:
    """Every framework that the pattern of prebuilt images names is in the table."""
    frameworks = [
        _validation.PREBUILT_RE.fullmatch(f"us-docker.pkg.dev/vertex-ai/prediction/{name}:latest")
        for name in ("tf2-cpu.2-15", "tf-cpu.1-15", "sklearn-cpu.1-5", "xgboost-cpu.2-1", "pytorch-gpu.2-4")
    ]
    assert {match["framework"] for match in frameworks if match} == set(_validation.PREBUILT_FILES)


@pytest.mark.parametrize("ports", [{"grpc_port": 70000}, {"rest_port": 70000}, {"rest_port": -1}])
def test_an_invalid_port_is_refused(ports: dict[str, int]) -> None:
    """An invalid port is an error. No other port is used instead."""
    with pytest.raises(ValueError, match="isn't a port"):
        Emulator(**ports)  # type: ignore[arg-type]  # the dictionary only has ports
