"""The exceptions you can catch.

::

    RegistryError
    ├── NotFoundError          (KeyError)         the model or version doesn't exist
    ├── AlreadyExistsError                        it exists already
    ├── AmbiguousNameError                        several models have the name
    ├── InvalidArgumentError   (ValueError)       an argument can't be right; nothing was changed
    ├── ConflictError                             the resource's state, or somebody else's change, forbids it
    ├── PermissionDeniedError  (PermissionError)  the credentials don't allow it
    ├── AuthenticationError                       there are no valid credentials
    ├── UnavailableError       (ConnectionError)  no usable response within the time budget
    ├── OperationTimeoutError  (TimeoutError)     an operation is still running at the end of its budget
    ├── OperationFailedError                      an operation failed or was canceled
    ├── StateUnknownError                         an upload may or may not have happened
    ├── HistoryUnknownError                       the history doesn't prove what was in a stage
    └── ClientClosedError      (RuntimeError)     the client is closed

Each message says what happened, to which resource, and what to do next. No Google exception reaches a caller; if there
was one, it's the error's ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AlreadyExistsError",
    "AmbiguousNameError",
    "AuthenticationError",
    "ClientClosedError",
    "ConflictError",
    "HistoryUnknownError",
    "InvalidArgumentError",
    "NotFoundError",
    "OperationFailedError",
    "OperationTimeoutError",
    "PermissionDeniedError",
    "RegistryError",
    "StateUnknownError",
    "UnavailableError",
]


class RegistryError(Exception):
    """The base class of all exceptions in this package.

    Attributes:
        resource: The name of the model, version or operation that the error is about, or None.
        code: The status that Vertex returned, such as ``"NOT_FOUND"``, or None.
    """

    def __init__(self, message: str, *, resource: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.resource = resource
        self.code = code

    def __str__(self) -> str:
        # KeyError would quote its message as if it were a key.
        return str(self.args[0])


class NotFoundError(RegistryError, KeyError):
    """The model or version doesn't exist."""


class AlreadyExistsError(RegistryError):
    """The resource to create exists already."""


class AmbiguousNameError(RegistryError):
    """Several models have the name, so it's ambiguous.

    Attributes:
        candidates: The full resource names of these models. Pass one of them in place of the name.
    """

    def __init__(self, message: str, *, resource: str | None = None, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message, resource=resource)
        self.candidates = candidates


class InvalidArgumentError(RegistryError, ValueError):
    """An argument can't be right. Nothing was changed."""


class ConflictError(RegistryError):
    """The state of the resource, or somebody else's change to it, forbids the request."""

    #: Whether an earlier attempt of the same request had no response, so it may have caused the conflict itself.
    _after_loss = False


class PermissionDeniedError(RegistryError, PermissionError):
    """The credentials are valid, but don't allow this."""


class AuthenticationError(RegistryError):
    """There are no credentials, or they're no longer valid."""


class UnavailableError(RegistryError, ConnectionError):
    """There was no usable response within the time budget.

    Attributes:
        retry_after: How many seconds the server wants you to wait before the next attempt, or 0.
    """

    retry_after: float = 0.0


class OperationTimeoutError(RegistryError, TimeoutError):
    """A long-running operation was still running at the end of its time budget. ``resource`` is its name.

    Attributes:
        request_id: For an upload, the ID to pass to ``register_version`` again. It returns the version that the
            operation creates, and finishes it.
    """

    request_id: str = ""


class OperationFailedError(RegistryError):
    """A long-running operation failed or was canceled. ``resource`` is its name."""


class StateUnknownError(RegistryError):
    """An upload may or may not have happened.

    Attributes:
        request_id: The ID to pass to ``register_version`` again. It finds the version that the first call created,
            and creates it only if it doesn't exist.
    """

    def __init__(self, message: str, *, resource: str | None = None, request_id: str = "") -> None:
        super().__init__(message, resource=resource)
        self.request_id = request_id


class ClientClosedError(RegistryError, RuntimeError):
    """The client is closed. Create a new one."""


class HistoryUnknownError(RegistryError):
    """What was in a stage at that time isn't remembered. The message says which version is in doubt, and why."""


def reason(error: BaseException) -> str:
    """Return the message of an exception's innermost cause, such as "Connection refused"."""
    for inner in _behind(error):
        error = inner
    message = getattr(error, "strerror", None)
    if not message and type(error) is OSError:  # such as a proxy's refusal, whose message is one short line
        message = " ".join(str(error).split())[:200].rstrip(".")
    return message or type(error).__name__


def untrusted(error: BaseException) -> bool:
    """Return whether a server's certificate wasn't accepted."""
    import ssl  # noqa: PLC0415  # it's slow to import

    return any(isinstance(inner, ssl.SSLCertVerificationError) for inner in _behind(error))


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, the innermost last."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        yield error
        # requests and google-auth also wrap what they caught.
        inner = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
        error = next((one for one in inner if isinstance(one, BaseException)), error)
