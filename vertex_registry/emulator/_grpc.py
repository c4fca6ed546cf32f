"""The RPC table served over gRPC.

Google's package ships no servicers, so that the handlers are made from the table. A handler takes the bytes and parses
them itself: what cannot be parsed is the caller's mistake, and gRPC would call it an internal error of ours.
"""

from __future__ import annotations

import threading
import urllib.parse
from concurrent import futures
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2

from vertex_registry.emulator._bounds import LONGEST_REQUEST, check_message
from vertex_registry.emulator._dispatch import (
    APIS,
    FIELD_MASK,
    RPCS,
    Dropped,
    message_class,
    response_class,
)
from vertex_registry.emulator._selection import apply_selection, parse_selection
from vertex_registry.emulator._status import Failure, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry.emulator._dispatch import Dispatcher, Rpc

_LONGEST_METADATA: Final = 1024 * 1024
_OPTIONS: Final = (
    # A port that somebody has is an error, and not a port to share.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LONGEST_REQUEST),
    ("grpc.max_send_message_length", -1),
    # Google's clients repeat the name of a request in its metadata; of a long one too it is the service that judges.
    ("grpc.max_metadata_size", _LONGEST_METADATA),
    ("grpc.absolute_max_metadata_size", _LONGEST_METADATA),
    # The requests that a connection may have under way, as at Google's front end. A client that begins and resets them
    # without end would else fill the queue, and gRPC would cancel the requests of others.
    ("grpc.max_concurrent_streams", 100),
)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
# gRPC's clients take trailers of 8 KiB. The message is in them twice: as it is, each byte that is not plain as three,
# and in the status, which has the detail too, three bytes as four.
_LONGEST_MESSAGE: Final = 2400
_LONGEST_DETAIL: Final = 1200
# The seconds after which another thread takes over from one that gets nothing done while there is something to do.
# Where one is held up the next may be too: it is waited for half as long, down to the least.
_HELD_UP: Final = 0.1
_LEAST: Final = 0.005
# The seconds that requests under way have when the server stops.
_GRACE: Final = 2.0


class _Worker(futures.Executor):
    """One thread that does all the work.

    Python lets many threads only take turns, and each turn that is taken in between costs. Where the one is held up,
    another takes over, and the first ends with what it has: one that is to wait steps aside, and one that waits for a
    message which its client does not send is noticed. All are daemons, so that a request may still come while Python
    ends: it is not answered, and keeps nobody.
    """

    def __init__(self) -> None:
        self._todo: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._done = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.take_over()
        self._watcher = threading.Thread(target=self._watch, name="vertex-emulator-grpc-watch", daemon=True)
        self._watcher.start()

    def take_over(self) -> None:
        """Let another thread go on with what there is to do, if the system has one left."""
        thread = threading.Thread(target=self._work, name="vertex-emulator-grpc", daemon=True)
        with self._lock:
            try:
                thread.start()
            except RuntimeError:
                if self._thread is None:
                    raise
            else:
                self._thread = thread

    def _work(self) -> None:
        with self._lock:
            pass  # only then has it taken over
        while self._thread is threading.current_thread():
            task = self._todo.get()
            if task is None:
                self._todo.put(None)  # for whoever has taken over meanwhile
                return
            task()
            self._done += 1

    def _watch(self) -> None:
        done, patience = -1, _HELD_UP
        while not self._closed.wait(patience):
            if self._done == done and not self._todo.empty():
                self.take_over()
                patience = max(patience / 2, _LEAST)
            else:
                patience = _HELD_UP
            done = self._done

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> futures.Future[Any]:
        """The future of a call that is done when its turn comes."""
        future: futures.Future[Any] = futures.Future()

        def task() -> None:
            try:
                future.set_result(function(*given, **named))
            except BaseException as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)

        self._todo.put(task)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do what is there, and end."""
        del cancel_futures
        self._closed.set()
        self._watcher.join()
        self._todo.put(None)
        with self._lock:
            last = self._thread  # it is started, and so it can be joined
        if wait and last is not None:
            last.join()


class GrpcServer:
    """The gRPC server. It is up when it is made.

    Raises:
        OSError: The address cannot be had.
    """

    def __init__(self, dispatcher: Dispatcher, host: str, port: int, tls: tuple[bytes, bytes] | None = None) -> None:
        self._executor = _Worker()
        self._server = grpc.server(self._executor, options=_OPTIONS)  # type: ignore[arg-type] # it submits, no more
        self._server.add_generic_rpc_handlers(tuple(_handlers(dispatcher, self._executor)))
        shown = f"[{host}]" if ":" in host else host
        address = f"{shown}:{port}"
        try:
            if tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                certificate, key = tls
                bound = self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
        except RuntimeError as error:
            self._executor.shutdown()
            # What is wrong with an address is seen before: it was taken since, or gRPC cannot read how it is written.
            raise OSError(f"The address {address} cannot be had for gRPC. Name another one.") from error
        self._server.start()
        self.address = f"{shown}:{bound}"

    def close(self) -> None:
        """Answer what is under way, and stop."""
        self._server.stop(grace=_GRACE).wait()
        self._executor.shutdown()


def _handlers(dispatcher: Dispatcher, worker: _Worker) -> list[grpc.GenericRpcHandler]:
    services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
    for rpc in RPCS:
        for api in APIS:
            service = rpc.service.format(api=api)
            # Operations have no version of their own: the first of the two handlers is for both.
            services.setdefault(service, {}).setdefault(
                rpc.name, grpc.unary_unary_rpc_method_handler(_behaviour(dispatcher, worker, rpc, api))
            )
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


def _behaviour(
    dispatcher: Dispatcher, worker: _Worker, rpc: Rpc, api: str
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def behave(data: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = {
            name: value if isinstance(value, str) else value.hex() for name, value in context.invocation_metadata()
        }
        try:
            try:
                message = _parse(rpc, api, data)
            except DecodeError:
                _refuse(context, bad_request("The request cannot be read as a message of this method."))
            wanted = metadata.get(FIELD_MASK)
            selection = parse_selection(wanted, response_class(rpc, api).DESCRIPTOR) if wanted else None
            response = dispatcher.call(
                rpc, message, api=api, transport="grpc", metadata=metadata, step_aside=worker.take_over
            )
        except Failure as failure:
            _refuse(context, failure)
        except Dropped:
            # One RPC's connection cannot be cut by itself: it ends as a client would see it end.
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        serialised: bytes = response if isinstance(response, bytes) else response.SerializeToString()
        if selection is not None:
            selected = response_class(rpc, api).FromString(serialised)
            apply_selection(selected, selection)
            serialised = selected.SerializeToString()
        return serialised

    return behave


def _parse(rpc: Rpc, api: str, data: bytes) -> Any:
    """The request's message, as one of v1. What no field is known for is dropped: nobody could read it again."""
    of_api = message_class(rpc, api)
    check_message(data, of_api.DESCRIPTOR)
    message = of_api.FromString(data)
    message.DiscardUnknownFields()
    return message if of_api is rpc.request else rpc.request.FromString(message.SerializeToString())


def _refuse(context: Any, failure: Failure) -> NoReturn:
    status = _fit(failure)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(_CODES[failure.code.number], status.message)
    raise AssertionError  # pragma: no cover - abort raises


def _fit(failure: Failure) -> Any:
    """The failure's status, cut to what trailers carry: of more, a client would see only that it was too much."""
    message = failure.message[:_LONGEST_MESSAGE]
    while len(urllib.parse.quote(message, errors="replace")) > _LONGEST_MESSAGE:
        message = message[: len(message) * 9 // 10]
    if message != failure.message:
        message += "..."
    details = [
        _cut(detail) if isinstance(detail, error_details_pb2.BadRequest) else detail for detail in failure.details
    ]
    return Failure(failure.code, message, *details).status


def _cut(detail: error_details_pb2.BadRequest) -> error_details_pb2.BadRequest:
    """As many of its violations, from the first one on, as fit."""
    cut = error_details_pb2.BadRequest()
    for violation in detail.field_violations:
        cut.field_violations.append(violation)
        if cut.ByteSize() > _LONGEST_DETAIL:
            cut.field_violations.pop()
            break
    return cut
