"""Every error a user can catch.

::

    RegistryError
    ├── NotFoundError          (KeyError)         the model or version is not there
    ├── AlreadyExistsError                        somebody already has that id
    ├── AmbiguousNameError                        several models bear the name
    ├── InvalidArgumentError   (ValueError)       the request cannot be right; nothing was changed
    ├── ConflictError                             the state of the resource forbids it
    ├── PermissionDeniedError  (PermissionError)  the credentials may not do it
    ├── AuthenticationError                       there are no usable credentials
    ├── UnavailableError       (ConnectionError)  no answer within the time budget
    ├── OperationTimeoutError  (TimeoutError)     an operation is still running at the end of its budget
    ├── OperationFailedError                      an operation ended with an error, or was cancelled
    ├── StateUnknownError                         an upload may or may not have happened
    ├── HistoryUnknownError                       what was in a stage then isn't remembered
    └── ClientClosedError      (RuntimeError)     the client is closed

Each message says what happened, to which resource, and what to do next. The exception of Google's that caused an
error, where there is one, is its ``__cause__``; none of Google's own ever reaches a caller.
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
    """The base of every error of this package.

    Attributes:
        resource: The name of the model, version or operation the error is about, or None.
        code: Google's name of the status that Vertex answered with, such as ``"NOT_FOUND"``, or None.
    """

    def __init__(self, message: str, *, resource: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.resource = resource
        self.code = code

    def __str__(self) -> str:
        # KeyError would show its message in quotes, as if it were a key.
        return str(self.args[0])


class NotFoundError(RegistryError, KeyError):
    """The model or the version is not there."""


class AlreadyExistsError(RegistryError):
    """What was to be made is there already."""


class AmbiguousNameError(RegistryError):
    """Several models bear the name, so that it does not tell which one is meant.

    Attributes:
        candidates: The full resource names of the models that bear it; each can be used in place of the name.
    """

    def __init__(self, message: str, *, resource: str | None = None, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message, resource=resource)
        self.candidates = candidates


class InvalidArgumentError(RegistryError, ValueError):
    """An argument cannot be right. Nothing was changed."""


class ConflictError(RegistryError):
    """The state of the resource, or somebody else's change to it, forbids what was asked."""


class PermissionDeniedError(RegistryError, PermissionError):
    """The credentials are good, and are not allowed to do this."""


class AuthenticationError(RegistryError):
    """There are no credentials, or they are no longer good."""


class UnavailableError(RegistryError, ConnectionError):
    """There was no usable answer within the time budget.

    Attributes:
        retry_after: The seconds that the server asked to wait before another try; 0 where it did not say.
    """

    retry_after: float = 0.0


class OperationTimeoutError(RegistryError, TimeoutError):
    """A long-running operation was still running when its time budget ended. ``resource`` is its name.

    Attributes:
        request_id: Of an upload: what to pass to ``register_version`` again, to have what the operation makes.
    """

    request_id: str = ""


class OperationFailedError(RegistryError):
    """A long-running operation ended with an error, or was cancelled. ``resource`` is its name."""


class StateUnknownError(RegistryError):
    """An upload may or may not have happened.

    Attributes:
        request_id: What to pass to ``register_version`` again: with the same ``request_id`` a second try finds what
            the first one made, and makes it only if it is not there.
    """

    def __init__(self, message: str, *, resource: str | None = None, request_id: str = "") -> None:
        super().__init__(message, resource=resource)
        self.request_id = request_id


class ClientClosedError(RegistryError, RuntimeError):
    """The client is closed. Create a new one."""


class HistoryUnknownError(RegistryError):
    """What was in a stage at that time isn't remembered. The message says which version is in doubt, and why."""


def reason(error: BaseException) -> str:
    """Return what the innermost of the exceptions behind one says: the connection was refused, reset, not resolved."""
    for inner in _behind(error):
        error = inner
    said = getattr(error, "strerror", None)
    if not said and type(error) is OSError:  # a proxy's refusal, for one; what it says is one short line
        said = " ".join(str(error).split())[:200].rstrip(".")
    return said or type(error).__name__


def untrusted(error: BaseException) -> bool:
    """Whether a server's certificate wasn't accepted."""
    import ssl  # noqa: PLC0415  # importing this module is to cost nothing

    return any(isinstance(inner, ssl.SSLCertVerificationError) for inner in _behind(error))


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those it comes from, the innermost last."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        yield error
        # requests and google-auth also wrap what they caught.
        inner = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
        error = next((one for one in inner if isinstance(one, BaseException)), error)
