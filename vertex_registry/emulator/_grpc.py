"""The gRPC server. Google's package ships no servicers, so the handlers are created from the table of RPCs.

A handler parses the bytes itself. gRPC would report bytes that can't be parsed as an internal error of the server.
"""

from __future__ import annotations

import urllib.parse
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
    join_repeated,
    message_class,
    response_class,
)
from vertex_registry.emulator._selection import apply_selection, parse_selection
from vertex_registry.emulator._status import Failure, bad_request
from vertex_registry.emulator._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry.emulator._dispatch import Dispatcher, Rpc

_MAXIMUM_METADATA: Final = 1024 * 1024
_OPTIONS: Final = (
    # A port that is in use is an error. By default gRPC would share it.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LONGEST_REQUEST),
    ("grpc.max_send_message_length", -1),
    # Google's clients repeat the name of a request in its metadata. A long name is for the service to refuse.
    ("grpc.max_metadata_size", _MAXIMUM_METADATA),
    ("grpc.absolute_max_metadata_size", _MAXIMUM_METADATA),
    # The requests that a connection may have under way, as at Google's front end. Without a limit, a client that begins
    # and resets requests fills the queue, and gRPC cancels the requests of others.
    ("grpc.max_concurrent_streams", 100),
)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
# gRPC's clients accept trailers of 8 KiB. The message is in them twice: by itself, with three bytes for each that isn't
# plain, and in the status, together with the detail, with four bytes for three.
_MAXIMUM_MESSAGE: Final = 2400
_MAXIMUM_DETAIL: Final = 1200
# The seconds that requests under way have when the server stops.
_GRACE: Final = 2.0


class GrpcServer:
    """The gRPC server. It serves as soon as it's created.

    Raises:
        OSError: The address can't be listened on.
    """

    def __init__(self, dispatcher: Dispatcher, host: str, port: int, tls: tuple[bytes, bytes] | None = None) -> None:
        self._executor = Worker("vertex-emulator-grpc")
        self._server = grpc.server(self._executor, options=_OPTIONS)  # type: ignore[arg-type] # it only submits
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
            # The address was checked before. It was taken since, or gRPC can't read how it's written.
            raise OSError(f"gRPC can't listen on the address {address}. Choose another address.") from error
        self._server.start()
        self.address = f"{shown}:{bound}"

    def close(self) -> None:
        """Answer the requests that are under way, and stop."""
        self._server.stop(grace=_GRACE).wait()
        self._executor.shutdown()


def _handlers(dispatcher: Dispatcher, worker: Worker) -> list[grpc.GenericRpcHandler]:
    services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
    for rpc in RPCS:
        for api in APIS:
            service = rpc.service.format(api=api)
            # Operations have no version of their own, so the first of the two handlers serves both.
            services.setdefault(service, {}).setdefault(
                rpc.name, grpc.unary_unary_rpc_method_handler(_behaviour(dispatcher, worker, rpc, api))
            )
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


def _behaviour(
    dispatcher: Dispatcher, worker: Worker, rpc: Rpc, api: str
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def behave(data: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = join_repeated(
            (name, value if isinstance(value, str) else value.hex()) for name, value in context.invocation_metadata()
        )
        try:
            try:
                message = _parse(rpc, api, data)
            except DecodeError:
                _refuse(context, bad_request("The request can't be read as a message of this method."))
            wanted = metadata.get(FIELD_MASK)
            selection = parse_selection(wanted, response_class(rpc, api).DESCRIPTOR) if wanted else None
            response = dispatcher.call(
                rpc, message, api=api, transport="grpc", metadata=metadata, step_aside=worker.take_over
            )
        except Failure as failure:
            _refuse(context, failure)
        except Dropped:
            # The connection of one RPC can't be cut. The RPC ends as its client would see that.
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        serialised: bytes = response if isinstance(response, bytes) else response.SerializeToString()
        if selection is not None:
            selected = response_class(rpc, api).FromString(serialised)
            apply_selection(selected, selection)
            serialised = selected.SerializeToString()
        return serialised

    return behave


def _parse(rpc: Rpc, api: str, data: bytes) -> Any:
    """Return the request's message, as one of v1, without unknown fields: nobody could read them again."""
    of_api = message_class(rpc, api)
    check_message(data, of_api.DESCRIPTOR)
    message = of_api.FromString(data)
    message.DiscardUnknownFields()
    return message if of_api is rpc.request else rpc.request.FromString(message.SerializeToString())


def _refuse(context: Any, failure: Failure) -> NoReturn:
    """End an RPC with an error."""
    status = _within_trailers(failure)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(_CODES[failure.code.number], status.message)
    raise AssertionError  # pragma: no cover - abort raises


def _within_trailers(failure: Failure) -> Any:
    """Return the failure's status, truncated to what trailers can carry. A client would see nothing of a longer one."""
    message = failure.message[:_MAXIMUM_MESSAGE]
    while len(urllib.parse.quote(message, errors="replace")) > _MAXIMUM_MESSAGE:
        message = message[: len(message) * 9 // 10]
    if message != failure.message:
        message += "..."
    details = [
        _truncated(detail) if isinstance(detail, error_details_pb2.BadRequest) else detail for detail in failure.details
    ]
    return Failure(failure.code, message, *details).status


def _truncated(detail: error_details_pb2.BadRequest) -> error_details_pb2.BadRequest:
    """Return as many of its violations, from the first one on, as fit."""
    cut = error_details_pb2.BadRequest()
    for violation in detail.field_violations:
        cut.field_violations.append(violation)
        if cut.ByteSize() > _MAXIMUM_DETAIL:
            cut.field_violations.pop()
            break
    return cut
