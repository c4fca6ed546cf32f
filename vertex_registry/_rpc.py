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
import functools
import logging
import math
import os
import re
import time
import urllib.parse
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs
import google.auth.credentials
import google.auth.exceptions
import google.auth.transport.grpc
import grpc
import requests
import tenacity
from google.api_core import exceptions as google_exceptions
from google.api_core.client_options import ClientOptions
from google.api_core.gapic_v1.client_info import ClientInfo
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport
from google.protobuf import json_format
from google.protobuf import message as protobuf_message
from google.rpc import error_details_pb2

from vertex_registry import _credentials, _process, _waiting
from vertex_registry.errors import (
    AlreadyExistsError,
    AuthenticationError,
    ClientClosedError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionDeniedError,
    UnavailableError,
    reason,
    untrusted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.longrunning import operations_pb2

    from vertex_registry._endpoint import Endpoint
    from vertex_registry._records import Retry
    from vertex_registry.errors import RegistryError

_LOG: Final = logging.getLogger("vertex_registry")

# An answer of one of these says nothing of whether the call has happened.
LOST_RESPONSE: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS"})
QUOTA_USED_UP: Final = frozenset({"RESOURCE_EXHAUSTED"})
NO_RETRY: Final[frozenset[str]] = frozenset()

#: The seconds that an answer from far away is given, however little is left of what a call or a wait may take.
_MIN_TIMEOUT: Final = 1.0

#: The seconds after its timeout in which Google's transport has said what went wrong with a request.
_TIMEOUT_MARGIN: Final = 0.1

#: The seconds that cleaning up may take after a verb has failed, so that nothing is left half done for want of time.
_CLEANUP_TIME: Final = 10.0

#: The connection and the budget of the verb that runs in this thread, or that this thread works for.
_CURRENT_VERB: Final[ContextVar[tuple[Connection, _waiting.Budget] | None]] = ContextVar("verb", default=None)


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
    "UploadModel": Method("upload_model", NO_RETRY, 60.0, "aiplatform.models.upload"),
    "GetModel": Method("get_model", LOST_RESPONSE | QUOTA_USED_UP, 20.0, "aiplatform.models.get"),
    "ListModels": Method("list_models", LOST_RESPONSE | QUOTA_USED_UP, 30.0, "aiplatform.models.list"),
    "ListModelVersions": Method("list_model_versions", LOST_RESPONSE | QUOTA_USED_UP, 30.0, "aiplatform.models.list"),
    "UpdateModel": Method("update_model", LOST_RESPONSE | QUOTA_USED_UP, 30.0, "aiplatform.models.update"),
    "MergeVersionAliases": Method("merge_version_aliases", QUOTA_USED_UP, 30.0, "aiplatform.models.update"),
    "DeleteModel": Method("delete_model", NO_RETRY, 60.0, "aiplatform.models.delete"),
    "DeleteModelVersion": Method("delete_model_version", NO_RETRY, 60.0, "aiplatform.models.delete"),
    "GetOperation": Method("get_operation", LOST_RESPONSE | QUOTA_USED_UP, 20.0, "aiplatform.models.get"),
    "ListOperations": Method("list_operations", LOST_RESPONSE | QUOTA_USED_UP, 20.0, "aiplatform.operations.list"),
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
_CODE_OF_HTTP: Final[Mapping[int, str]] = {
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

_CODE_OF_NUMBER: Final[Mapping[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}

_LOG_IN: Final = _credentials.LOG_IN

_REST_TRUST: Final = "REQUESTS_CA_BUNDLE"
_GRPC_TRUST: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"


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
        self._waiters: set[SimpleQueue[Callable[[], Any]]] = set()
        self._credentials = credentials
        self._user_agent = user_agent
        self._google = _process.Owned(self._connect)

    def _connect(self) -> ModelServiceClient:
        """Create Google's client. Each process has its own.

        Raises:
            InvalidArgumentError: Google's libraries refuse a setting of the environment.
        """
        endpoint = self._endpoint
        info = ClientInfo(user_agent=self._user_agent)  # type: ignore[no-untyped-call]  # untyped upstream
        try:
            with _process.outside_fork():
                transport = _rest(endpoint, self._credentials, info) if endpoint.rest else self._grpc(info)
                # The address is known already, and with it the domain: the environment isn't asked for it once more.
                return ModelServiceClient(
                    transport=transport, client_options=ClientOptions(universe_domain="googleapis.com")
                )
        except (google.auth.exceptions.GoogleAuthError, google_exceptions.GoogleAPIError, ValueError, OSError) as error:
            raise InvalidArgumentError(
                f"Google's client can't be created: {sentence(str(error))} Check the environment variables "
                "GOOGLE_API_USE_MTLS_ENDPOINT and GOOGLE_API_USE_CLIENT_CERTIFICATE."
            ) from error

    def _grpc(self, info: ClientInfo) -> ModelServiceGrpcTransport:
        endpoint = self._endpoint
        options: list[tuple[str, Any]] = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        if endpoint.emulated or endpoint.loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if endpoint.plain:
            channel = grpc.insecure_channel(endpoint.host, options)
        else:
            secure = grpc.ssl_channel_credentials()
            if self._credentials is not None and not endpoint.anonymous:
                plugin = google.auth.transport.grpc.AuthMetadataPlugin(  # type: ignore[no-untyped-call]  # upstream
                    self._credentials, _credentials.TokenRequest()
                )
                secure = grpc.composite_channel_credentials(secure, grpc.metadata_call_credentials(plugin))
            host = endpoint.host if re.search(r":[0-9]+$", endpoint.host) else f"{endpoint.host}:443"
            channel = grpc.secure_channel(host, secure, options)
        return ModelServiceGrpcTransport(channel=channel, client_info=info)

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        for one in tuple(self._waiters):
            one.put(_raise_closed)
        if (client := self._google.take()) is not None:
            with contextlib.suppress(google_exceptions.GoogleAPIError, google.auth.exceptions.GoogleAuthError):
                client.transport.close()  # type: ignore[no-untyped-call]  # untyped upstream

    @property
    def closed(self) -> bool:
        """Whether nothing more can be asked for."""
        try:
            self._check_open()
        except ClientClosedError:
            return True
        return False

    def principal(self) -> str | None:
        """Return the account that it acts as, if the credentials know it. A machine's do after the first call."""
        return _credentials.principal(self._credentials)

    @contextlib.contextmanager
    def verb(self) -> Iterator[None]:
        """Let all calls inside share one budget; inside another verb of this connection, that verb's budget."""
        if self._verb_budget() is not None:
            yield
            return
        with self._share(_waiting.Budget(self._retry, self._retry.call_timeout)):
            yield

    @contextlib.contextmanager
    def cleanup(self) -> Iterator[None]:
        """Let the calls inside share a small budget of their own, even after that of the verb is used up."""
        with self._share(_waiting.Budget(self._retry, min(self._retry.call_timeout, _CLEANUP_TIME))):
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
    def _share(self, budget: _waiting.Budget) -> Iterator[None]:
        token = _CURRENT_VERB.set((self, budget))
        try:
            yield
        finally:
            _CURRENT_VERB.reset(token)

    def _verb_budget(self) -> _waiting.Budget | None:
        current = _CURRENT_VERB.get()
        return None if current is None or current[0] is not self else current[1]

    def budget(self, seconds: float | None = None) -> _waiting.Budget:
        """Return a fresh budget of that many seconds; without a number that of the verb, or else that of a call."""
        if seconds is None and (shared := self._verb_budget()) is not None:
            return shared
        return _waiting.Budget(self._retry, self._retry.call_timeout if seconds is None else seconds)

    def operation_budget(self) -> _waiting.Budget:
        """A fresh budget for a long-running operation."""
        return _waiting.Budget(self._retry, self._retry.operation_timeout)

    def pause(self, budget: _waiting.Budget, tries: int, at_least: float = 0.0) -> bool:
        """Wait before the next of several tries, longer after each; return False, at once, if the budget has no room.

        What waits out of another budget than the verb's, for an operation, doesn't count for the verb.
        """
        seconds = max(at_least, _waiting.max_backoff(self._retry, tries + 1) * self._retry.random())
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
                "What was done before stays. Call it again to finish it; Retry(call_timeout=...) sets the limit.",
                resource=resource,
            )

        def again(failure: BaseException) -> bool:
            if self._closed or not isinstance(failure, CallError):
                return False
            return (failure.unsent or (failure.code in method.again and not once)) and not failure.final

        def wait(state: tenacity.RetryCallState) -> float:
            upper = _waiting.max_backoff(self._retry, state.attempt_number)
            return max(_retry_after(state), upper * self._retry.random())

        def stop(state: tenacity.RetryCallState) -> bool:
            return state.upcoming_sleep >= budget.left()

        def log(state: tenacity.RetryCallState) -> None:
            failure = state.outcome.exception() if state.outcome else None
            code = failure.code if isinstance(failure, CallError) else "?"
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
        except CallError as failure:
            if self._closed:
                self._raise_if_closed(rpc, resource, failure)
            raise self._error(failure, rpc, method, resource, budget) from failure.__cause__

    def sdk_model(self, request: Any, resource: str, project: str | None) -> Any:
        """What GetModel answers, as a ``Model`` of Google's SDK with the credentials of this connection.

        That SDK makes a client from its global state for each object. Where this connection goes to an address of its
        own, which that state knows nothing of, the object is given the client of this connection in its place.
        """
        from google.cloud import aiplatform  # noqa: PLC0415  # the SDK takes a second more, and few ask for it

        answer = self.call("GetModel", request, resource)
        location = ModelServiceClient.parse_model_path(resource.partition("@")[0])["location"]
        # The SDK would look for credentials of its own where it is given none.
        credentials = self._credentials or google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
        construct = aiplatform.Model._construct_sdk_resource_from_gapic  # noqa: SLF001  # as its own list() does
        try:
            model: Any = construct(answer, project=project, location=location, credentials=credentials)
            model.project = project  # and not its number, which the answer has
            if self._endpoint.host == f"{location}-aiplatform.googleapis.com":
                create = functools.partial(model._instantiate_client, location=location, credentials=credentials)  # noqa: SLF001  # likewise
                client: Any = _PerProcessClient(_process.Owned(create))
            else:
                client = _PerProcessClient(self._google)
            model.api_client = model._registry.client = client  # noqa: SLF001  # there is no other way
        except (google.auth.exceptions.GoogleAuthError, google_exceptions.GoogleAPIError, ValueError) as error:
            raise InvalidArgumentError(
                f"Google's SDK can't create its Model: {sentence(str(error))} Check what aiplatform.init() and the "
                "environment variables GOOGLE_API_USE_MTLS_ENDPOINT and GOOGLE_CLOUD_UNIVERSE_DOMAIN say."
            ) from error
        return model

    def wait(self, operation: operations_pb2.Operation, request: Callable[[str], Any], budget: _waiting.Budget) -> Any:
        """The operation when it is done.

        It's polled at once, and then after each further fifth of the time that it has taken. The time that this takes
        doesn't count for the verb that waits.

        Args:
            operation: The operation as it was last seen.
            request: What makes a request for an operation from its name.
            budget: What the waiting comes out of.

        Raises:
            OperationFailedError: It ended with an error, or was cancelled.
            OperationTimeoutError: It is still running at the end of the budget.
        """
        name = operation.name
        while not operation.done:
            within = self.budget(min(self._retry.call_timeout, max(_MIN_TIMEOUT, budget.left())))
            start = self._retry.clock()
            operation = self.call("GetOperation", request(name), name, within)
            self.leave_out(self._retry.clock() - start)  # not of one that fails: who looks again does so in a loop
            if operation.done:
                break
            seconds = min(max(0.05, budget.spent() / 5), self._retry.max_backoff, budget.left())
            if seconds <= 0:
                raise OperationTimeoutError(
                    f"The operation {name} is still running after {budget.seconds:g} s. It goes on at Vertex; what it "
                    "makes will be there when it is done. Retry(operation_timeout=...) sets how long to wait.",
                    resource=name,
                )
            with self.uncounted():
                self._sleep(seconds)
        if operation.HasField("error"):
            code = _CODE_OF_NUMBER.get(operation.error.code, "UNKNOWN")
            ended = "was cancelled" if code == "CANCELLED" else f"failed with {code}"
            raise OperationFailedError(
                f"The operation {name} {ended}: {sentence(operation.error.message)}",
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
            timeout = max(0.05, min(method.deadline, max(budget.left(), min(_MIN_TIMEOUT, budget.seconds))))
            send = getattr(self._google.get(), method.call)
            metadata = self._metadata(rpc, timeout)
            with translated(self._endpoint):
                answer = self._await_response(
                    lambda: send(request=request, retry=None, timeout=timeout, metadata=metadata), timeout
                )
        except CallError as failure:
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

    def _await_response(self, send: Callable[[], Any], timeout: float) -> Any:
        """Return the answer. Closing a channel ends its calls; of requests over HTTP it's the waiting that ends.

        Over HTTP the timeout is for each part of the answer. The wait for the whole of it ends then as well.
        """
        if not self._endpoint.rest:
            with _process.outside_fork():
                return send()
        try:
            return self._run_in_thread(send, timeout + _TIMEOUT_MARGIN)
        except Empty:
            raise CallError("DEADLINE_EXCEEDED", "The answer was not complete in time") from None

    def _run_in_thread(self, work: Callable[[], Any], seconds: float = math.inf) -> Any:
        """Return the result of some work. Closing the connection ends the wait for it, and so does the time limit."""

        def work_outside_fork() -> Any:
            # Looking up an address takes locks of the C library, which would stay locked in a forked child.
            with _process.outside_fork():
                return work()

        outcomes: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        with self._wake_on_close(outcomes):
            _waiting.start_thread(work_outside_fork, outcomes, "vertex-registry-rest")
            outcome = _waiting.receive(outcomes, seconds)
        return outcome()

    def _sleep(self, seconds: float) -> None:
        """Wait. What waits unless the caller says otherwise is woken when the connection is closed."""
        if self._retry.sleep is time.sleep:
            woken: SimpleQueue[Callable[[], Any]] = SimpleQueue()
            with self._wake_on_close(woken), contextlib.suppress(Empty):
                _waiting.receive(woken, seconds)
        else:
            self._retry.sleep(seconds)
        self._check_open()

    @contextlib.contextmanager
    def _wake_on_close(self, waiting: SimpleQueue[Callable[[], Any]]) -> Iterator[None]:
        """Let whoever closes the connection wake who waits there."""
        self._waiters.add(waiting)
        try:
            self._check_open()
            yield
        finally:
            self._waiters.discard(waiting)

    def _raise_if_closed(self, rpc: str, resource: str, failure: CallError) -> None:
        """Raise the error of a connection that was closed, and say of a change that it may have been made."""
        try:
            self._check_open()
        except ClientClosedError as closed:
            if not rpc.startswith(("Get", "List")):
                closed.args = (f"{closed} {rpc} on {resource} was under way, and may have been carried out.",)
            raise closed from failure.__cause__

    def _metadata(self, rpc: str, timeout: float) -> tuple[tuple[str, str], ...]:
        """Return the token to send in plain text, which Google's transports don't; `_endpoint` keeps it on loopback.

        Over TLS Google's transports send the token. It is fetched here all the same, so that a fault of the token
        endpoint is told apart from a refusal, over both transports alike.
        """
        credentials = self._credentials
        if credentials is None or self._endpoint.anonymous:
            return ()
        url = f"{'http' if self._endpoint.plain else 'https'}://{self._endpoint.host}/{rpc}"
        fetch = functools.partial(_credentials.authorize, credentials, url, timeout)
        try:
            # A token that is good needs no network; to fetch one may take as long as its server likes.
            headers = fetch() if getattr(credentials, "valid", False) is True else self._run_in_thread(fetch, timeout)
        except _credentials.TokenError as error:
            code = "UNAVAILABLE" if error.transient else "UNAUTHENTICATED"
            raise CallError(code, str(error), final=error.final, unsent=True) from error.__cause__
        except Empty:
            message = f"No token could be fetched in {timeout:.1f} s."
            raise CallError("UNAVAILABLE", message, unsent=True) from None
        return tuple((name.lower(), value) for name, value in headers.items()) if self._endpoint.plain else ()

    def _error(
        self, failure: CallError, rpc: str, method: Method, resource: str, budget: _waiting.Budget
    ) -> RegistryError:
        kind = ERRORS.get(failure.code, UnavailableError)
        said = sentence(failure.message)
        if failure.unsent:
            where = f" Tried for {budget.spent():.1f} s." if kind is UnavailableError and not failure.final else ""
            text = f"{rpc} on {resource} wasn't sent: {said}{where}"
            text += f" {_LOG_IN}" if kind is AuthenticationError else ""
        elif kind is AuthenticationError:
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
            text = f"{rpc} on {resource}: the quota is used up: {said} {_when_to_retry(failure)}, or ask for a higher quota."
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
            error.retry_after = failure.retry_after
        return error


def _when_to_retry(failure: CallError) -> str:
    return f"Try again in {failure.retry_after:g} s, as it asks" if failure.retry_after else "Try again later"


def _remedy(endpoint: Endpoint, failure: CallError) -> str:
    if failure.remedy:
        return failure.remedy
    if failure.retry_after:
        return f"{_when_to_retry(failure)}. Retry(call_timeout=...) sets how long to go on trying."
    if endpoint.plain and re.search(r"without an answer|reset by peer|socket closed", failure.message.lower()):
        return "Is it the right port? If the server speaks TLS there, use https://."
    if endpoint.plain and failure.code == "UNAVAILABLE":
        return "Is the emulator running? Start one: python -m vertex_registry.emulator"
    return "Retry(call_timeout=...) sets how long to go on trying."


#: How much of a server's message an error repeats.
_MAX_MESSAGE: Final = 2000


def sentence(message: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in message[:_MAX_MESSAGE])
    text = " ".join(text.split()) or "no reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _retry_after(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    return failure.retry_after if isinstance(failure, CallError) else 0.0


def _raise_closed() -> NoReturn:
    raise CallError("CANCELLED", "The connection was closed")


class CallError(Exception):
    """A try that failed: Google's status, its message, the seconds it asks to wait, and what is known of it.

    It's final if another try can't help, and unsent if Vertex can't have seen it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: float = 0.0,
        final: bool = False,
        unsent: bool = False,
        remedy: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.final = final
        self.unsent = unsent
        self.remedy = remedy


#: What Google's client can raise for an answer that isn't Vertex's, and doesn't translate itself.
_UNEXPECTED: Final = (
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
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn whatever Google's libraries raise into a `CallError`."""
    try:
        yield
    except google_exceptions.GoogleAPICallError as error:
        raise _from_google(error) from error
    except google.auth.exceptions.GoogleAuthError as error:
        # The token was good when it was fetched; it ended meanwhile, and Google's transport fetched another.
        if _credentials.is_outage(error):
            raise CallError("UNAVAILABLE", f"No token could be fetched: {reason(error)}", unsent=True) from error
        raise CallError("UNAUTHENTICATED", "The credentials could not be refreshed", final=True) from error
    except requests.RequestException as error:
        raise _from_requests(error, endpoint) from error
    except OSError as error:
        # requests raises it for a CA bundle that isn't there.
        raise CallError("UNAVAILABLE", sentence(str(error)), final=True, remedy=f"Check {_REST_TRUST}.") from error
    except (google_exceptions.GoogleAPIError, grpc.RpcError) as error:
        raise CallError("UNKNOWN", str(error)) from error
    except _UNEXPECTED as error:
        # What Google's client trips over when something on the way answers in Google's place.
        raise CallError("UNKNOWN", f"The answer is not one that Vertex gives: {type(error).__name__}") from error


_NO_TLS: Final = (
    "If it's an emulator that serves plain text, use http:// for REST, or name a loopback address without a scheme."
)
_NO_REST: Final = (
    "Is it the port for gRPC? The emulator has one port for each: pass endpoint='host:port' for gRPC and "
    "endpoint='http://host:port' for REST."
)


def _untrusted_error(variable: str, error: BaseException | None = None) -> CallError:
    why = ""
    for inner in (error, *(error.args if error else ())):
        if found := re.search(r"certificate verify failed: ([\w' .,-]{1,120})", str(inner)):
            why = f" ({found[1].strip()})"
    return CallError(
        "UNAVAILABLE",
        f"The server's certificate isn't trusted{why}",
        final=True,
        remedy=f"Set {variable} to the file of the certificate authority that signed it.",
    )


def _from_proxy(error: requests.exceptions.ProxyError, endpoint: Endpoint) -> CallError:
    """Say which proxy failed, without the user and password that its URL may hold."""
    url = f"{'http' if endpoint.plain else 'https'}://{endpoint.host}"
    shown = "The proxy"
    with contextlib.suppress(ValueError):
        proxies = requests.utils.get_environ_proxies(url)
        parts = urllib.parse.urlsplit(requests.utils.select_proxy(url, proxies) or "")
        if parts.hostname:
            shown = f"The proxy {parts.hostname}" + (f":{parts.port}" if parts.port else "")
    said = reason(error)
    return CallError(
        "UNAVAILABLE",
        f"{shown} failed: {said}",
        final=re.search(r"failed: 4[0-9][0-9]", said) is not None,
        remedy=_PROXY,
    )


_PROXY: Final = "Check HTTPS_PROXY, or add the host to NO_PROXY."


def _from_requests(  # noqa: PLR0911  # the faults stand side by side
    error: requests.RequestException, endpoint: Endpoint
) -> CallError:
    """Say what went wrong on the way, and whether something else than HTTP answered."""
    if isinstance(error, requests.exceptions.ProxyError):
        return _from_proxy(error, endpoint)
    if untrusted(error):
        return _untrusted_error(_REST_TRUST, error)
    if isinstance(error, requests.exceptions.SSLError):
        return CallError("UNAVAILABLE", f"TLS failed: {reason(error)}", final=True, remedy=_NO_TLS)
    if isinstance(error, requests.Timeout):
        return CallError("DEADLINE_EXCEEDED", "The answer did not come in time")
    chain = repr(error)
    if "RemoteDisconnected" in chain:
        return CallError("UNAVAILABLE", "The server closed the connection without an answer")
    if "BadStatusLine" in chain:
        return CallError("UNAVAILABLE", "What answers there doesn't speak HTTP", final=True, remedy=_NO_REST)
    return CallError("UNAVAILABLE", reason(error))


def _from_channel(message: str) -> CallError | None:  # noqa: PLR0911  # likewise
    """Return what gRPC's own words mean, if they aren't Vertex's: the connection never came about."""
    low = message.lower()
    if "certificate_verify_failed" in low:
        return _untrusted_error(_GRPC_TRUST)
    if "http proxy returned response code" in low:
        code = re.search(r"response code ([0-9]{3})", low)
        status = code[1] if code else "an error"
        return CallError("UNAVAILABLE", f"The proxy answered {status}", final=status.startswith("4"), remedy=_PROXY)
    if "http1.x server" in low or "http/1" in low:
        return CallError("UNAVAILABLE", "What answers there speaks HTTP/1, not gRPC", final=True, remedy=_NO_GRPC)
    if "failed parsing http/2" in low:
        return CallError("UNAVAILABLE", "What answers there isn't gRPC", final=True, remedy=_NO_GRPC)
    if re.search(r"received http2 header with status|content-type", low):
        said = re.search(r"status:? ([0-9]{3})", low)
        shown = f" (HTTP {said[1]})" if said else ""
        return CallError("UNAVAILABLE", f"What answers there isn't gRPC{shown}", remedy=_NO_GRPC)
    if "wrong_version_number" in low:
        return CallError("UNAVAILABLE", "The server doesn't speak TLS on that port", final=True, remedy=_NO_TLS)
    return None


_NO_GRPC: Final = (
    "Is it the port for REST? The emulator has one port for each: pass endpoint='http://host:port' for REST and "
    "endpoint='host:port' for gRPC."
)


def _from_google(error: google_exceptions.GoogleAPICallError) -> CallError:
    message = error.message or ""
    if not isinstance(error.response, requests.Response):
        if error.grpc_status_code is None:
            return CallError("UNKNOWN", message)
        code = error.grpc_status_code.name
        details = error.details
        # gRPC's own words for a token that couldn't be fetched; one was good a moment ago.
        if "metadata from plugin failed" in message:
            return CallError("UNAVAILABLE", "The token has expired and could not be fetched again", unsent=True)
        if (channel := _from_channel(message)) is not None:
            return channel
    else:
        code = _CODE_OF_HTTP.get(error.code or 500, "UNKNOWN")
        details = []
        vertex = False
        with contextlib.suppress(Exception):  # an answer of a proxy on the way need not be Google's JSON
            body = error.response.json()["error"]
            code = body["status"] if body.get("status") in ERRORS else code
            message = str(body.get("message") or message)
            vertex = True
            details = list(body.get("details") or ())
        if not vertex and code == "NOT_FOUND":
            # That a model is missing only Vertex can say.
            kind = str(error.response.headers.get("Content-Type", "")).partition(";")[0][:60]
            what = f"HTTP 404 with {kind or 'no content type'}, which isn't how Vertex answers"
            return CallError("UNAVAILABLE", f"The server answers {what}", final=True, remedy=_NOT_VERTEX)
    retry_after = max((_retry_delay(detail) for detail in details), default=0.0)
    with contextlib.suppress(Exception):  # a call over gRPC has no headers, and a header may hold a date
        retry_after = max(retry_after, _seconds(error.response.headers.get("Retry-After", 0)))
    return CallError(code, message, retry_after=retry_after)


_NOT_VERTEX: Final = "Is that the address of Vertex, or of an emulator of it?"


def _rest(endpoint: Endpoint, credentials: Any, info: ClientInfo) -> ModelServiceRestTransport:
    nobody = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    # In plain text the token is sent by `_metadata`: Google's transport sends none.
    transport = ModelServiceRestTransport(
        host=endpoint.host,
        credentials=nobody if endpoint.plain or endpoint.anonymous else credentials,
        url_scheme="http" if endpoint.plain else "https",
        client_info=info,
    )
    session: Any = transport._session  # noqa: SLF001  # Google's transport has no setting for any of this
    _credentials.without_netrc(session)
    if session._auth_request_session is not None:  # noqa: SLF001  # likewise
        _credentials.without_netrc(session._auth_request_session)  # noqa: SLF001  # likewise
    if endpoint.emulated or endpoint.loopback:
        # What goes to this machine or to an emulator goes there, and to no proxy on the way.
        session.trust_env = False
        session.verify = os.environ.get(_REST_TRUST) or os.environ.get("CURL_CA_BUNDLE") or True
    return transport


class _PerProcessClient:
    """A client for an object of Google's SDK, which may be carried over a fork: each process gets its own."""

    def __init__(self, owned: _process.Owned[Any]) -> None:
        self._owned = owned

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # it's asked for by whoever copies or pickles, and not by a caller of Vertex
            raise AttributeError(name)
        return getattr(self._owned.get(), name)


def _retry_delay(detail: Any) -> float:
    if isinstance(detail, error_details_pb2.RetryInfo):
        return _seconds(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
        return _seconds(str(detail.get("retryDelay", "0s")).removesuffix("s"))
    return 0.0


def _seconds(value: Any) -> float:
    """Return a number of seconds that a server told, or 0 if it isn't one: a header may hold a date."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = float(value)
        return 0.0 if math.isnan(seconds) else max(0.0, seconds)
    return 0.0
