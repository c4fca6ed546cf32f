"""The only network code: connect, call, wait.

Google's client sets neither a deadline nor a retry on any of these methods. Both are set here, from one table: every
try has a deadline, and what is sent again on which answer stands beside it. A read is sent again whatever went wrong on
the way, an update too, because it carries an etag. Aliases have no etag: whether a lost move happened is for the caller
of this module to find out, as with an upload and a delete.

All calls of a verb share one budget with the waits between them (`Connection.verb`). A call isn't started once the
budget is used up, so that a verb ends at most a second later. What waits for an operation has a budget of its own.

Whatever Google's libraries raise is translated here, and nowhere else. What the messages hold is not looked at here,
but for operations, which are waited for.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs
import google.auth
import google.auth.credentials
import google.auth.exceptions
import google.auth.transport.requests
import google.oauth2.credentials
import google.oauth2.service_account
import grpc
import requests
import tenacity
from google.api_core import exceptions as google_exceptions
from google.api_core.gapic_v1.client_info import ClientInfo
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport
from google.protobuf import json_format
from google.protobuf import message as protobuf_message
from google.rpc import error_details_pb2

from vertex_registry import _waiting
from vertex_registry.errors import (
    AlreadyExistsError,
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionDeniedError,
    UnavailableError,
    reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.longrunning import operations_pb2

    from vertex_registry._endpoint import Endpoint
    from vertex_registry._records import Retry
    from vertex_registry.errors import RegistryError

_LOG: Final = logging.getLogger("vertex_registry")

_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

# An answer of one of these says nothing of whether the call has happened.
_LOST: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS"})
_REFUSED: Final = frozenset({"RESOURCE_EXHAUSTED"})
_NEVER: Final[frozenset[str]] = frozenset()

#: The seconds that an answer from far away is given, however little is left of what a call or a wait may take.
_MOMENT: Final = 1.0

#: The seconds after its timeout in which Google's transport has said what went wrong with a request.
_LEEWAY: Final = 0.1

#: The seconds that tidying up may take after a verb has failed, so that nothing is left half done for want of time.
_TIDYING: Final = 10.0

#: The connection and the budget of the verb that runs in this thread, or that this thread works for.
_VERB: Final[ContextVar[tuple[Connection, _waiting.Budget] | None]] = ContextVar("verb", default=None)


@attrs.frozen
class Method:
    """How one RPC is called.

    Attributes:
        call: The method of Google's client.
        again: The codes on which it is sent again.
        deadline: The seconds that one try may take.
        permission: What the caller needs in order to call it.
    """

    call: str
    again: frozenset[str]
    deadline: float
    permission: str


# Permissions: https://cloud.google.com/vertex-ai/docs/general/iam-permissions; those of the version methods are guesses
# from the methods of the model, for the page does not list them.
METHODS: Final[Mapping[str, Method]] = {
    "UploadModel": Method("upload_model", _NEVER, 60.0, "aiplatform.models.upload"),
    "GetModel": Method("get_model", _LOST | _REFUSED, 20.0, "aiplatform.models.get"),
    "ListModels": Method("list_models", _LOST | _REFUSED, 30.0, "aiplatform.models.list"),
    "ListModelVersions": Method("list_model_versions", _LOST | _REFUSED, 30.0, "aiplatform.models.list"),
    "UpdateModel": Method("update_model", _LOST | _REFUSED, 30.0, "aiplatform.models.update"),
    "MergeVersionAliases": Method("merge_version_aliases", _REFUSED, 30.0, "aiplatform.models.update"),
    "DeleteModel": Method("delete_model", _NEVER, 60.0, "aiplatform.models.delete"),
    "DeleteModelVersion": Method("delete_model_version", _NEVER, 60.0, "aiplatform.models.delete"),
    "GetOperation": Method("get_operation", _LOST | _REFUSED, 20.0, "aiplatform.models.get"),
    "ListOperations": Method("list_operations", _LOST | _REFUSED, 20.0, "aiplatform.operations.list"),
}

#: The predefined role that holds all of these permissions.
ROLE: Final = "Vertex AI User (roles/aiplatform.user)"

#: Which error of ours a status of Vertex's is.
ERRORS: Final[Mapping[str, type[RegistryError]]] = {
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "INVALID_ARGUMENT": InvalidArgumentError,
    "OUT_OF_RANGE": InvalidArgumentError,
    "FAILED_PRECONDITION": ConflictError,
    "ABORTED": ConflictError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "UNAUTHENTICATED": AuthenticationError,
    "RESOURCE_EXHAUSTED": UnavailableError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": UnavailableError,
    "CANCELLED": UnavailableError,
    "INTERNAL": UnavailableError,
    "UNKNOWN": UnavailableError,
    "DATA_LOSS": UnavailableError,
    "UNIMPLEMENTED": UnavailableError,
}

# google.rpc.Code says which HTTP status each code is mapped to; the way back is needed where an answer has no body.
_OF_HTTP: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_OF_NUMBER: Final[Mapping[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}

_LOG_IN: Final = (
    "Type `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service "
    "account's key. Without a cloud, local_registry() needs none, nor does an emulator: set VERTEX_AI_EMULATOR_HOST."
)


def load_credentials(given: Any) -> tuple[Any, str | None]:
    """The credentials, and the project that they name, if they name one; application default ones where none are given.

    Raises:
        AuthenticationError: There are none, or what was given holds none.
    """
    try:
        if given is None:
            found = google.auth.default(scopes=_SCOPES)
            return found[0], found[1]
        if isinstance(given, google.auth.credentials.Credentials):
            scoped = google.auth.credentials.with_scopes_if_required(given, _SCOPES)  # type: ignore[no-untyped-call]  # likewise
            return scoped, getattr(given, "project_id", None)
        if isinstance(given, str) and given.lstrip().startswith("{"):
            given = json.loads(given)
        if isinstance(given, (str, os.PathLike)):
            with open(given, encoding="utf-8") as file:  # noqa: PTH123  # a path of either kind
                given = json.load(file)
        if not isinstance(given, dict):
            raise AuthenticationError(f"The credentials are a {type(given).__name__}, which holds none. {_LOG_IN}")
        return _credentials_of(given)
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise AuthenticationError(f"There are no usable credentials for Google Cloud. {_LOG_IN}") from error
    except (google.auth.exceptions.GoogleAuthError, ValueError) as error:
        raise AuthenticationError(f"The credentials that were given cannot be used. {_LOG_IN}") from error
    except OSError as error:
        raise AuthenticationError(f"The file of the credentials cannot be read: {error.strerror}. {_LOG_IN}") from None


def _credentials_of(info: dict[str, Any]) -> tuple[Any, str | None]:
    kind = info.get("type")
    if kind == "service_account":
        from_key = google.oauth2.service_account.Credentials.from_service_account_info
        return from_key(info, scopes=_SCOPES), info.get("project_id")  # type: ignore[no-untyped-call]  # untyped upstream
    if kind == "authorized_user":
        from_login = google.oauth2.credentials.Credentials.from_authorized_user_info
        return from_login(info, scopes=_SCOPES), info.get("quota_project_id")  # type: ignore[no-untyped-call]  # likewise
    raise AuthenticationError(
        f"The credentials are of the type {kind!r}. What can be given as JSON is a service account's key or an "
        "authorized user; set GOOGLE_APPLICATION_CREDENTIALS for the others, or give a google-auth object."
    )


def principal(credentials: Any) -> str | None:
    """The account that the credentials act as, where they know it."""
    for attribute in ("service_account_email", "signer_email", "account"):
        # Credentials of a machine know their account only once they have asked for it, and say "default" till then.
        with contextlib.suppress(Exception):
            account = getattr(credentials, attribute, None)
            if isinstance(account, str) and "@" in account:
                return account
    return None


class Connection:
    """One connection to Vertex, or to an emulator of it, kept open.

    What is under way when it is closed, a call or a wait, ends at once, with the error of ``check_open``.
    """

    def __init__(
        self, endpoint: Endpoint, credentials: Any, user_agent: str, retry: Retry, check_open: Callable[[], None]
    ) -> None:
        self._endpoint = endpoint
        self._retry = retry
        self._check_open = check_open
        self._closed = False
        self._waiting: set[SimpleQueue[Callable[[], Any]]] = set()
        # The SDK would look for credentials of its own where it is given none.
        self._credentials = credentials or google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
        self._token_of = credentials if endpoint.plain and not endpoint.anonymous else None
        info = ClientInfo(user_agent=user_agent)  # type: ignore[no-untyped-call]  # untyped upstream
        transport: ModelServiceGrpcTransport | ModelServiceRestTransport
        if endpoint.plain or endpoint.anonymous:
            # The token, if there is one, is sent by `_send`: Google's transports send none in plain text.
            nobody = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
            if endpoint.rest:
                transport = ModelServiceRestTransport(
                    host=endpoint.host,
                    credentials=nobody,
                    url_scheme="http" if endpoint.plain else "https",
                    client_info=info,
                )
                # What goes in plain text goes to the address that was given, and to no proxy on the way.
                transport._session.trust_env = not endpoint.plain  # noqa: SLF001  # Google's transport has no setting for it
            else:
                options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
                channel = (
                    grpc.insecure_channel(endpoint.host, options)
                    if endpoint.plain
                    else grpc.secure_channel(endpoint.host, grpc.ssl_channel_credentials(), options)
                )
                transport = ModelServiceGrpcTransport(channel=channel, client_info=info)
        elif endpoint.rest:
            transport = ModelServiceRestTransport(host=endpoint.host, credentials=credentials, client_info=info)
        else:
            transport = ModelServiceGrpcTransport(host=endpoint.host, credentials=credentials, client_info=info)
        self._client = ModelServiceClient(transport=transport)

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        for one in tuple(self._waiting):
            one.put(_cut_off)
        self._client.transport.close()  # type: ignore[no-untyped-call]  # untyped upstream

    @property
    def closed(self) -> bool:
        """Whether nothing more can be asked for."""
        try:
            self._check_open()
        except InvalidArgumentError:
            return True
        return False

    def principal(self) -> str | None:
        """The account that it acts as, where the credentials know it; those of a machine do after the first call."""
        return principal(self._credentials)

    @contextlib.contextmanager
    def verb(self) -> Iterator[None]:
        """Let all calls inside share one budget; inside another verb of this connection, that verb's budget."""
        if self._verb_budget() is not None:
            yield
            return
        with self._sharing(_waiting.Budget(self._retry, self._retry.calls)):
            yield

    @contextlib.contextmanager
    def tidying(self) -> Iterator[None]:
        """Let the calls inside share a small budget of their own, even after that of the verb is used up."""
        with self._sharing(_waiting.Budget(self._retry, min(self._retry.calls, _TIDYING))):
            yield

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Don't count the time that passes inside: what happens there has a budget of its own."""
        start = self._retry.clock()
        try:
            yield
        finally:
            self.leave_out(self._retry.clock() - start)

    def leave_out(self, seconds: float) -> None:
        """Don't count these seconds, which have just passed, for the verb that runs."""
        if (shared := self._verb_budget()) is not None:
            shared.leave_out(seconds)

    def now(self) -> float:
        """Return the time on the clock that budgets are measured with."""
        return self._retry.clock()

    @contextlib.contextmanager
    def _sharing(self, budget: _waiting.Budget) -> Iterator[None]:
        token = _VERB.set((self, budget))
        try:
            yield
        finally:
            _VERB.reset(token)

    def _verb_budget(self) -> _waiting.Budget | None:
        current = _VERB.get()
        return None if current is None or current[0] is not self else current[1]

    def budget(self, seconds: float | None = None) -> _waiting.Budget:
        """Return a fresh budget of that many seconds; without a number that of the verb, or else that of a call."""
        if seconds is None and (shared := self._verb_budget()) is not None:
            return shared
        return _waiting.Budget(self._retry, self._retry.calls if seconds is None else seconds)

    def operation_budget(self) -> _waiting.Budget:
        """A fresh budget for a long-running operation."""
        return _waiting.Budget(self._retry, self._retry.operations)

    def pause(self, budget: _waiting.Budget, tries: int, at_least: float = 0.0) -> bool:
        """Wait before the next of several tries, longer after each; return False, at once, if the budget has no room.

        What waits out of another budget than the verb's, for an operation, doesn't count for the verb.
        """
        seconds = max(at_least, _waiting.longest(self._retry, tries + 1) * self._retry.random())
        if seconds >= budget.left():
            return False
        _LOG.info("another try in %.2f s", seconds)
        with contextlib.nullcontext() if budget is self._verb_budget() else self.uncounted():
            self._sleep(seconds)
        return True

    def call(
        self, rpc: str, request: Any, resource: str, budget: _waiting.Budget | None = None, *, once: bool = False
    ) -> Any:
        """The answer to a request; a long-running one is answered with its operation.

        Args:
            rpc: A key of ``METHODS``.
            request: The request.
            resource: What it is about, for the log and for errors.
            budget: What its tries and waits come out of. Defaults to that of the verb that runs, or else a fresh one.
            once: Send it once, whatever the answer.

        Raises:
            RegistryError: What Vertex answered at last, by the table ``ERRORS``.
        """
        method = METHODS[rpc]
        budget = budget or self.budget()
        if budget.left() <= 0:
            raise UnavailableError(
                f"{rpc} on {resource} was not sent: the {budget.seconds:g} s for all calls of this verb are used up. "
                "What was done before stays. Call it again to finish it; Retry(calls=...) sets the limit.",
                resource=resource,
            )

        def again(failure: BaseException) -> bool:
            if once or self._closed or not isinstance(failure, _CallError):
                return False
            return failure.code in method.again and not failure.final

        def wait(state: tenacity.RetryCallState) -> float:
            longest = _waiting.longest(self._retry, state.attempt_number)
            return max(_hint(state), longest * self._retry.random())

        def stop(state: tenacity.RetryCallState) -> bool:
            return state.upcoming_sleep >= budget.left()

        def log(state: tenacity.RetryCallState) -> None:
            failure = state.outcome.exception() if state.outcome else None
            code = failure.code if isinstance(failure, _CallError) else "?"
            _LOG.info("%s %s: %s, sent again in %.2f s", rpc, resource, code, state.upcoming_sleep)

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(again),
            wait=wait,
            stop=stop,
            sleep=self._sleep,
            before_sleep=log,
            reraise=True,
        )
        try:
            return tries(self._send, rpc, method, request, resource, budget)
        except _CallError as failure:
            if self._closed:
                self._end(rpc, resource, failure)
            raise self._error(failure, rpc, method, resource, budget) from failure.__cause__

    def sdk_model(self, request: Any, resource: str, project: str | None) -> Any:
        """What GetModel answers, as a ``Model`` of Google's SDK with the credentials of this connection.

        That SDK makes a client from its global state for each object. Where this connection goes to an address of its
        own, which that state knows nothing of, the object is given the client of this connection in its place.
        """
        from google.cloud import aiplatform  # noqa: PLC0415  # the SDK takes a second more, and few ask for it

        answer = self.call("GetModel", request, resource)
        location = ModelServiceClient.parse_model_path(resource.partition("@")[0])["location"]
        model: Any = aiplatform.Model._construct_sdk_resource_from_gapic(  # noqa: SLF001  # as its own list() does
            answer, project=project, location=location, credentials=self._credentials
        )
        model.project = project  # and not its number, which the answer has
        if self._endpoint.host != f"{location}-aiplatform.googleapis.com":
            model.api_client = model._registry.client = self._client  # noqa: SLF001  # there is no other way
        return model

    def wait(self, operation: operations_pb2.Operation, look: Callable[[str], Any], budget: _waiting.Budget) -> Any:
        """The operation when it is done.

        It's polled at once, and then after each further fifth of the time that it has taken. The time that this takes
        doesn't count for the verb that waits.

        Args:
            operation: The operation as it was last seen.
            look: What makes a request for an operation from its name.
            budget: What the waiting comes out of.

        Raises:
            OperationFailedError: It ended with an error, or was cancelled.
            OperationTimeoutError: It is still running at the end of the budget.
        """
        name = operation.name
        while not operation.done:
            within = self.budget(min(self._retry.calls, max(_MOMENT, budget.left())))
            start = self._retry.clock()
            operation = self.call("GetOperation", look(name), name, within)
            self.leave_out(self._retry.clock() - start)  # not of one that fails: who looks again does so in a loop
            if operation.done:
                break
            seconds = min(max(0.05, budget.spent() / 5), self._retry.most, budget.left())
            if seconds <= 0:
                raise OperationTimeoutError(
                    f"The operation {name} is still running after {budget.seconds:g} s. It goes on at Vertex; what it "
                    "makes will be there when it is done. Retry(operations=...) sets how long to wait.",
                    resource=name,
                )
            with self.uncounted():
                self._sleep(seconds)
        if operation.HasField("error"):
            code = _OF_NUMBER.get(operation.error.code, "UNKNOWN")
            ended = "was cancelled" if code == "CANCELLED" else f"failed with {code}"
            raise OperationFailedError(
                f"The operation {name} {ended}: {_sentence(operation.error.message)}",
                resource=name,
                code=code,
            )
        return operation

    def _send(self, rpc: str, method: Method, request: Any, resource: str, budget: _waiting.Budget) -> Any:
        self._check_open()
        start = self._retry.clock()
        outcome = "OK"
        try:
            # A budget that is used up still lets a try go out: one that is not answered in time is lost for nothing.
            timeout = max(0.05, min(method.deadline, max(budget.left(), min(_MOMENT, budget.seconds))))
            send = getattr(self._client, method.call)
            with _translated():
                metadata = self._metadata(rpc)
                answer = self._ask(
                    lambda: send(request=request, retry=None, timeout=timeout, metadata=metadata), timeout
                )
        except _CallError as failure:
            outcome = failure.code
            raise
        except BaseException as failure:
            outcome = type(failure).__name__
            raise
        finally:
            _LOG.debug("%s %s: %s in %.3f s", rpc, resource, outcome, self._retry.clock() - start)
        if rpc.startswith("ListModel"):
            return next(answer.pages)  # Google's pager would ask for the further pages out of our sight
        return getattr(answer, "operation", answer)

    def _ask(self, send: Callable[[], Any], timeout: float) -> Any:
        """Return the answer. Closing a channel ends its calls; of requests over HTTP it's the waiting that ends.

        Over HTTP the timeout is for each part of the answer. The wait for the whole of it ends then as well.
        """
        if not self._endpoint.rest:
            return send()
        outcomes: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        with self._waking(outcomes):
            _waiting.begin(send, outcomes, "vertex-registry-rest")
            try:
                outcome = _waiting.get(outcomes, timeout + _LEEWAY)
            except Empty:
                raise _CallError("DEADLINE_EXCEEDED", "The answer was not complete in time") from None
        return outcome()

    def _sleep(self, seconds: float) -> None:
        """Wait. What waits unless the caller says otherwise is woken when the connection is closed."""
        if self._retry.sleep is time.sleep:
            woken: SimpleQueue[Callable[[], Any]] = SimpleQueue()
            with self._waking(woken), contextlib.suppress(Empty):
                _waiting.get(woken, seconds)
        else:
            self._retry.sleep(seconds)
        self._check_open()

    @contextlib.contextmanager
    def _waking(self, waiting: SimpleQueue[Callable[[], Any]]) -> Iterator[None]:
        """Let whoever closes the connection wake who waits there."""
        self._waiting.add(waiting)
        try:
            self._check_open()
            yield
        finally:
            self._waiting.discard(waiting)

    def _end(self, rpc: str, resource: str, failure: _CallError) -> None:
        """Raise the error of a connection that was closed, and say of a change that it may have been made."""
        try:
            self._check_open()
        except InvalidArgumentError as closed:
            if not rpc.startswith(("Get", "List")):
                closed.args = (f"{closed} {rpc} on {resource} was under way, and may have been carried out.",)
            raise closed from failure.__cause__

    def _metadata(self, rpc: str) -> tuple[tuple[str, str], ...]:
        """The token that was given for a plain-text connection; `_endpoint` has seen to it that it goes to loopback."""
        if self._token_of is None:
            return ()
        headers: dict[str, str] = {}
        ask = google.auth.transport.requests.Request()
        self._token_of.before_request(ask, "POST", f"http://{self._endpoint.host}/{rpc}", headers)
        return tuple((name.lower(), value) for name, value in headers.items())

    def _error(
        self, failure: _CallError, rpc: str, method: Method, resource: str, budget: _waiting.Budget
    ) -> RegistryError:
        kind = ERRORS.get(failure.code, UnavailableError)
        said = _sentence(failure.message)
        if kind is AuthenticationError:
            text = f"{self._endpoint} did not accept the credentials: {said} {_LOG_IN}"
        elif rpc == "UploadModel" and failure.code == "FAILED_PRECONDITION" and "storage.objects." in failure.message:
            # Vertex looks into the artifact's directory before it begins, as its own service agent. That it says which
            # permission it lacks has been seen in a log; that it goes on doing so is a guess.
            kind = PermissionDeniedError
            text = (
                f"Vertex cannot read the artifact of {resource}: {said} Grant its service agent, "
                "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com, the role Storage Object Viewer "
                "(roles/storage.objectViewer) on the bucket."
            )
        elif kind is PermissionDeniedError:
            text = (
                f"{rpc} is not allowed on {resource}: {said} It needs the permission {method.permission}, which the "
                f"role {ROLE} grants. A project or location that does not exist is refused in the same way."
            )
        elif failure.code == "RESOURCE_EXHAUSTED":
            text = f"{rpc} on {resource}: the quota is used up: {said} {_when(failure)}, or ask for a higher quota."
        elif failure.code == "UNIMPLEMENTED":
            text = f"{self._endpoint} has no {rpc}: {said} Is it the address of Vertex, or of an emulator of it?"
        elif kind is UnavailableError:
            text = (
                f"{rpc} on {resource}: no usable answer from {self._endpoint} in {budget.spent():.1f} s "
                f"({failure.code}): {said} {_remedy(self._endpoint, failure)}"
            )
        elif kind is NotFoundError:
            text = f"{resource} is not there: {said}"
        else:
            text = f"{rpc} on {resource} was refused: {said}"
        error = kind(text, resource=resource, code=failure.code)
        if isinstance(error, UnavailableError):
            error.retry_after = failure.hint
        return error


def _when(failure: _CallError) -> str:
    return f"Try again in {failure.hint:g} s, as it asks" if failure.hint else "Try again later"


def _remedy(endpoint: Endpoint, failure: _CallError) -> str:
    if failure.hint:
        return f"{_when(failure)}. Retry(calls=...) sets how long to go on trying."
    if endpoint.plain and failure.code == "UNAVAILABLE":
        return "Is the emulator running? Start one: python -m vertex_registry.emulator"
    return "Retry(calls=...) sets how long to go on trying."


#: How much of a server's message an error repeats.
_LONGEST: Final = 2000


def _sentence(message: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in message[:_LONGEST])
    text = " ".join(text.split()) or "no reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _hint(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    return failure.hint if isinstance(failure, _CallError) else 0.0


def _cut_off() -> NoReturn:
    raise _CallError("CANCELLED", "The connection was closed")


class _CallError(Exception):
    """A try that failed: Google's status, its message, the seconds it asks to wait, and whether that is final."""

    def __init__(self, code: str, message: str, *, hint: float = 0.0, final: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.hint = hint
        self.final = final


#: What Google's client can raise for an answer that isn't Vertex's, and doesn't translate itself.
_FOREIGN: Final = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    json_format.Error,
    protobuf_message.Error,
)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn whatever Google's libraries raise into a `_CallError`."""
    try:
        yield
    except google_exceptions.GoogleAPICallError as error:
        raise _of_google(error) from error
    except google.auth.exceptions.TransportError as error:
        raise _CallError("UNAVAILABLE", f"The token could not be fetched: {error}") from error
    except google.auth.exceptions.GoogleAuthError as error:
        raise _CallError("UNAUTHENTICATED", "The credentials could not be refreshed", final=True) from error
    except requests.Timeout as error:
        raise _CallError("DEADLINE_EXCEEDED", "The answer did not come in time") from error
    except requests.RequestException as error:
        raise _CallError("UNAVAILABLE", reason(error)) from error
    except (google_exceptions.GoogleAPIError, grpc.RpcError) as error:
        raise _CallError("UNKNOWN", str(error)) from error
    except _FOREIGN as error:
        # What Google's client trips over when something on the way answers in Google's place.
        raise _CallError("UNKNOWN", f"The answer is not one that Vertex gives: {type(error).__name__}") from error


def _of_google(error: google_exceptions.GoogleAPICallError) -> _CallError:
    message = error.message or ""
    if not isinstance(error.response, requests.Response):
        if error.grpc_status_code is None:
            return _CallError("UNKNOWN", message)
        code = error.grpc_status_code.name
        details = error.details
        # gRPC's own words for credentials that failed while the token was fetched, which another try would not mend.
        if "metadata from plugin failed" in message:
            return _CallError("UNAUTHENTICATED", "The credentials could not be refreshed", final=True)
    else:
        code = _OF_HTTP.get(error.code or 500, "UNKNOWN")
        details = []
        with contextlib.suppress(Exception):  # an answer of a proxy on the way need not be Google's JSON
            body = error.response.json()["error"]
            code = body["status"] if body.get("status") in ERRORS else code
            message = str(body.get("message") or message)
            details = list(body.get("details") or ())
    hint = max((_delay(detail) for detail in details), default=0.0)
    with contextlib.suppress(Exception):  # a call over gRPC has no headers, and a header may hold a date
        hint = max(hint, _seconds(error.response.headers.get("Retry-After", 0)))
    return _CallError(code, message, hint=hint)


def _delay(detail: Any) -> float:
    if isinstance(detail, error_details_pb2.RetryInfo):
        return _seconds(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
        return _seconds(str(detail.get("retryDelay", "0s")).removesuffix("s"))
    return 0.0


def _seconds(told: Any) -> float:
    """Return a number of seconds that a server told, or 0 if it isn't one: a header may hold a date."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = float(told)
        return 0.0 if math.isnan(seconds) else max(0.0, seconds)
    return 0.0
