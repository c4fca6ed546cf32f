"""Create a transport of Google's client for an address, over gRPC or REST, and send requests with it.

Requests go to the transport's own stubs. The wrappers that Google's client has around them repeat for every request
what `_rpc` does anyway: deadlines, retries and errors. So the client itself is created only for Google's SDK. Only the
transport that's used is imported, which matters in processes of our own: see `_deferred`.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from typing import TYPE_CHECKING, Any, Final

import google.auth.credentials
import google.auth.exceptions
import grpc
from google.api_core import exceptions as google_exceptions
from google.api_core.client_options import ClientOptions
from google.api_core.gapic_v1 import routing_header
from google.api_core.gapic_v1.client_info import ClientInfo

from vertex_registry import _faults, _process
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
    from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
    from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport

    from vertex_registry._endpoint import Endpoint

#: What Google's libraries raise for settings that they don't accept.
_SETTING_ERRORS: Final = (google.auth.exceptions.GoogleAuthError, google_exceptions.GoogleAPIError, ValueError)

_MTLS: Final = "GOOGLE_API_USE_MTLS_ENDPOINT"

#: The field of each request that Google's client repeats in a header, because Vertex routes by it.
_ROUTED_BY: Final[Mapping[str, str]] = {
    "upload_model": "parent",
    "get_model": "name",
    "list_models": "parent",
    "list_model_versions": "name",
    "update_model": "model.name",
    "merge_version_aliases": "name",
    "delete_model": "name",
    "delete_model_version": "name",
    "get_operation": "name",
    "list_operations": "name",
}
_READ_ROUTE: Final = {method: operator.attrgetter(field) for method, field in _ROUTED_BY.items()}


class Stubs:
    """The stubs of Google's transport, with the headers that Google's client sends."""

    def __init__(self, transport: Any, info: ClientInfo) -> None:
        self._transport = transport
        self._sender = info.to_grpc_metadata()  # type: ignore[no-untyped-call]  # untyped upstream

    def send(self, method: str, request: Any, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Any:
        """Send a request, and return the response.

        Args:
            method: The method of the transport.
            request: The request.
            timeout: How many seconds it may take.
            metadata: Headers to send besides Google's own.
        """
        message = getattr(request, "_pb", request)  # beneath proto-plus
        route = ((_ROUTED_BY[method], _READ_ROUTE[method](message)),)
        headers = (routing_header.to_grpc_metadata(route), self._sender, *metadata)  # type: ignore[no-untyped-call]
        return getattr(self._transport, method)(request, timeout=timeout, metadata=headers)

    @functools.cached_property
    def client(self) -> ModelServiceClient:
        """Google's client over the same connection."""
        from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient  # noqa: PLC0415  # see above

        # The address is known, and with it the domain. This keeps Google's client from reading the environment.
        return ModelServiceClient(
            transport=self._transport, client_options=ClientOptions(universe_domain="googleapis.com")
        )

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def connect(endpoint: Endpoint, credentials: Any, user_agent: str) -> Stubs:
    """Create Google's transport, and return its stubs.

    Raises:
        InvalidArgumentError: Google's libraries refuse a setting of the environment.
    """
    info = ClientInfo(user_agent=user_agent)  # type: ignore[no-untyped-call]  # untyped upstream
    create = _create_rest if endpoint.rest else _create_grpc
    _check_settings()
    try:
        with _process.outside_fork():
            return Stubs(create(endpoint, credentials, info), info)
    except (*_SETTING_ERRORS, OSError) as error:
        raise InvalidArgumentError(
            f"Google's transport can't be created: {_faults.sentence(str(error))} Check the environment variables "
            "GOOGLE_API_USE_MTLS_ENDPOINT and GOOGLE_API_USE_CLIENT_CERTIFICATE."
        ) from error


def _check_settings() -> None:
    """Refuse what Google's client refuses too, so that no method depends on whether it's created."""
    if os.environ.get(_MTLS, "auto").lower() not in {"never", "auto", "always"}:
        raise InvalidArgumentError(f"The environment variable {_MTLS} must be never, auto or always.")


def _create_grpc(endpoint: Endpoint, credentials: Any, info: ClientInfo) -> ModelServiceGrpcTransport:
    from google.cloud.aiplatform_v1.services.model_service.transports.grpc import (  # noqa: PLC0415  # see above
        ModelServiceGrpcTransport,
    )

    options: list[tuple[str, Any]] = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    if endpoint.emulated or endpoint.loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if endpoint.plain:
        channel = grpc.insecure_channel(endpoint.host, options)
    else:
        secure = grpc.ssl_channel_credentials()
        if credentials is not None and not endpoint.anonymous:
            import google.auth.transport.grpc  # noqa: PLC0415  # likewise

            from vertex_registry import _tokens  # noqa: PLC0415  # likewise

            plugin = google.auth.transport.grpc.AuthMetadataPlugin(  # type: ignore[no-untyped-call]  # upstream
                credentials, _tokens.TokenRequest()
            )
            secure = grpc.composite_channel_credentials(secure, grpc.metadata_call_credentials(plugin))
        host = endpoint.host if re.search(r":[0-9]+$", endpoint.host) else f"{endpoint.host}:443"
        channel = grpc.secure_channel(host, secure, options)
    return ModelServiceGrpcTransport(channel=channel, client_info=info)


def _create_rest(endpoint: Endpoint, credentials: Any, info: ClientInfo) -> ModelServiceRestTransport:
    from google.cloud.aiplatform_v1.services.model_service.transports.rest import (  # noqa: PLC0415  # likewise
        ModelServiceRestTransport,
    )

    from vertex_registry import _tokens  # noqa: PLC0415  # likewise

    anonymous = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    # Google's transport sends no token in plain text. `Connection` sends it instead.
    transport = ModelServiceRestTransport(
        host=endpoint.host,
        credentials=anonymous if endpoint.plain or endpoint.anonymous else credentials,
        url_scheme="http" if endpoint.plain else "https",
        client_info=info,
    )
    session: Any = transport._session  # noqa: SLF001  # Google's transport has no setting for any of this
    _tokens.without_netrc(session)
    if session._auth_request_session is not None:  # noqa: SLF001  # likewise
        _tokens.without_netrc(session._auth_request_session)  # noqa: SLF001  # likewise
    if endpoint.emulated or endpoint.loopback:
        # Requests to this machine or to an emulator don't go through a proxy.
        session.trust_env = False
        session.verify = os.environ.get(_faults.REST_TRUST) or os.environ.get("CURL_CA_BUNDLE") or True
    return transport


def create_sdk_model(
    message: Any,
    resource: str,
    *,
    project: str | None,
    credentials: Any,
    endpoint: Endpoint,
    stubs: _process.Owned[Stubs],
) -> Any:
    """Create a ``Model`` of Google's SDK.

    The SDK creates a client from its global state for each object. That state doesn't know the address of an emulator,
    so for any address but Vertex's own, the model gets the client given here.

    Args:
        message: The model, as Vertex answers it.
        resource: Its resource name.
        project: The project, by ID or number.
        credentials: The credentials of the connection, or None.
        endpoint: The address of the connection.
        stubs: The stubs of the connection.

    Raises:
        InvalidArgumentError: The SDK refuses its own settings.
    """
    from google.cloud import aiplatform  # noqa: PLC0415  # the SDK takes another second, and few callers need it

    # Without credentials, the SDK would search for its own.
    credentials = credentials or google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
    construct = aiplatform.Model._construct_sdk_resource_from_gapic  # noqa: SLF001  # as its own list() does
    try:
        location = stubs.get().client.parse_model_path(resource.partition("@")[0])["location"]
        model: Any = construct(message, project=project, location=location, credentials=credentials)
        model.project = project  # the message has its number instead
        if endpoint.host == f"{location}-aiplatform.googleapis.com":
            create = functools.partial(model._instantiate_client, location=location, credentials=credentials)  # noqa: SLF001  # likewise
            own: Any = _PerProcessClient(_process.Owned(create).get)
        else:
            own = _PerProcessClient(lambda: stubs.get().client)
        model.api_client = model._registry.client = own  # noqa: SLF001  # there is no other way
    except _SETTING_ERRORS as error:
        raise InvalidArgumentError(
            f"Google's SDK can't create its Model: {_faults.sentence(str(error))} Check aiplatform.init() and the "
            "environment variables GOOGLE_API_USE_MTLS_ENDPOINT and GOOGLE_CLOUD_UNIVERSE_DOMAIN."
        ) from error
    return model


class _PerProcessClient:
    """A client for an object of Google's SDK. The object survives a fork, because each process gets its own client."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self._get = get

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # only code that copies or pickles the client reads these
            raise AttributeError(name)
        return getattr(self._get(), name)
