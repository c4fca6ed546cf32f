"""The one error type of a request, for both transports. Its codes and their HTTP statuses are ``google.rpc.Code``'s."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Code(enum.Enum):
    """A canonical code: its number, which is also gRPC's, and its HTTP status in ``google/rpc/code.proto``."""

    CANCELLED = (code_pb2.CANCELLED, 499)
    UNKNOWN = (code_pb2.UNKNOWN, 500)
    INVALID_ARGUMENT = (code_pb2.INVALID_ARGUMENT, 400)
    DEADLINE_EXCEEDED = (code_pb2.DEADLINE_EXCEEDED, 504)
    NOT_FOUND = (code_pb2.NOT_FOUND, 404)
    ALREADY_EXISTS = (code_pb2.ALREADY_EXISTS, 409)
    PERMISSION_DENIED = (code_pb2.PERMISSION_DENIED, 403)
    UNAUTHENTICATED = (code_pb2.UNAUTHENTICATED, 401)
    RESOURCE_EXHAUSTED = (code_pb2.RESOURCE_EXHAUSTED, 429)
    FAILED_PRECONDITION = (code_pb2.FAILED_PRECONDITION, 400)
    ABORTED = (code_pb2.ABORTED, 409)
    OUT_OF_RANGE = (code_pb2.OUT_OF_RANGE, 400)
    UNIMPLEMENTED = (code_pb2.UNIMPLEMENTED, 501)
    INTERNAL = (code_pb2.INTERNAL, 500)
    UNAVAILABLE = (code_pb2.UNAVAILABLE, 503)
    DATA_LOSS = (code_pb2.DATA_LOSS, 500)

    def __init__(self, number: int, http: int) -> None:
        # Members may share an HTTP status but not a number, so no member is another's alias.
        self.number = number
        self.http = http


class Failure(Exception):  # noqa: N818 - it's the state of a request, which becomes an error in the client
    """A request, or an operation, that failed.

    Attributes:
        code: The canonical code.
        message: The sentence for the caller.
        details: ``google.rpc`` messages that say more, such as BadRequest or RetryInfo.
        http: The HTTP status. Defaults to that of the code.
    """

    def __init__(self, code: Code, message: str, *details: Message, http: int | None = None) -> None:
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self.details: Final = details
        self.http: Final = http or code.http

    @property
    def status(self) -> status_pb2.Status:
        """The failure as ``google.rpc.Status``, for the trailers of gRPC and the error of an operation."""
        status = status_pb2.Status(code=self.code.number, message=self.message)
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    @property
    def retry_after(self) -> float | None:
        """The seconds that the caller is asked to wait, or None."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                delay: float = detail.retry_delay.ToNanoseconds() / 1e9
                return delay
        return None


def writable(text: str) -> str:
    """Return the text with a ``?`` for everything that UTF-8 can't write, such as half of a surrogate pair."""
    return text.encode(errors="replace").decode()


def invalid_argument(*violations: tuple[str, str]) -> Failure:
    """Return Vertex's error for invalid fields, each of which is a path and a message without its full stop.

    The wording is Vertex's, tabs included, from public traces of its model and dataset services.
    """
    listed = "".join(
        f"{position}.Field: {field}; Message: {message}.\t"
        for position, (field, message) in enumerate(violations, start=1)
    )
    described = [(field, f"{message}.") for field, message in violations]
    return bad_request(f"List of found errors:\t{listed}", *described)


def bad_request(message: str, *violations: tuple[str, str]) -> Failure:
    """Return INVALID_ARGUMENT in other words than Vertex's list, such as those of Google's front end."""
    if not violations:
        return Failure(Code.INVALID_ARGUMENT, message)
    detail = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in violations
        ]
    )
    return Failure(Code.INVALID_ARGUMENT, message, detail)


def not_found(message: str) -> Failure:
    """Return the error for a resource that doesn't exist."""
    return Failure(Code.NOT_FOUND, message)


def already_exists(message: str) -> Failure:
    """Return the error for an id that is taken."""
    return Failure(Code.ALREADY_EXISTS, message)


def failed_precondition(message: str) -> Failure:
    """Return the error for a request that doesn't fit the current state."""
    return Failure(Code.FAILED_PRECONDITION, message)


def aborted(message: str) -> Failure:
    """Return the error for a change that conflicts with another one."""
    return Failure(Code.ABORTED, message)


def cancelled(message: str) -> Failure:
    """Return the error of an operation that was cancelled."""
    return Failure(Code.CANCELLED, message)


def permission_denied(message: str) -> Failure:
    """Return the error for a caller that isn't allowed to do this."""
    return Failure(Code.PERMISSION_DENIED, message)


def unavailable(message: str) -> Failure:
    """Return the error for something that may work if it's tried again."""
    return Failure(Code.UNAVAILABLE, message)


def internal(message: str) -> Failure:
    """Return the error for the emulator's own mistake."""
    return Failure(Code.INTERNAL, message)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    """Return the detail that asks the caller to wait before it tries again."""
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)
