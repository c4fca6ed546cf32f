"""Load credentials and get tokens.

No error contains any of the credentials, nor does any exception in its chain. A malformed key is still a key.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Final

import google.auth
import google.auth.credentials
import google.auth.exceptions

from vertex_registry.errors import AuthenticationError, UnavailableError, reason, untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

LOG_IN: Final = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service "
    "account's key. An emulator needs no credentials: use local_registry(), or set VERTEX_AI_EMULATOR_HOST."
)

_FILE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_AWS: Final = "urn:ietf:params:aws:token-type:aws4_request"

# The statuses with which a token endpoint reports a fault of its own: those of RFC 6749, and google-auth's.
_TRY_LATER: Final = frozenset({408, 429})
_SERVER_ERROR: Final = 500
_REFUSED: Final = 400

_SECRET: Final = re.compile(r"[\w.+/=~-]{40,}")


class TokenError(Exception):
    """There's no token, and nothing was sent.

    Attributes:
        transient: Whether the network or the token endpoint is at fault, and not the credentials.
        final: Whether another attempt can't help.
    """

    def __init__(self, message: str, *, transient: bool, final: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.final = final or not transient


# --- loading ----------------------------------------------------------------------------------------------------------


def load(given: Any) -> tuple[Any, str | None]:
    """Return credentials, and their project if they name one. Defaults to the application default credentials.

    Raises:
        AuthenticationError: There are no usable credentials.
        UnavailableError: A server that has them doesn't respond.
    """
    if given is None:
        return _load_default()
    if isinstance(given, google.auth.credentials.Credentials):
        scoped = google.auth.credentials.with_scopes_if_required(given, SCOPES)  # type: ignore[no-untyped-call]  # upstream
        return scoped, getattr(given, "project_id", None)
    if hasattr(given, "before_request"):
        return given, getattr(given, "project_id", None)
    found, problem = _load_or_explain(given)
    if found is None:
        # This is outside of every `except`, because an exception caught there may contain the credentials.
        raise AuthenticationError(f"{problem} {LOG_IN}")
    return found


def _load_default() -> tuple[Any, str | None]:
    file = os.environ.get(_FILE)
    problem, transient = "There are no usable credentials for Google Cloud.", False
    try:
        credentials, project = google.auth.default(scopes=SCOPES)
    except google.auth.exceptions.DefaultCredentialsError:
        if file:
            problem = f"{_FILE}: {_load_or_explain(file, named=True)[1] or problem}"
    except google.auth.exceptions.GoogleAuthError as error:
        transient = is_outage(error)
        problem = f"Searching for Google Cloud credentials failed: {reason(error)}."
    except Exception as error:  # noqa: BLE001  # any library may raise while it searches
        problem = f"Searching for Google Cloud credentials failed: {type(error).__name__}."
    else:
        return credentials, project
    if transient:
        raise UnavailableError(f"{problem} Try again.")
    raise AuthenticationError(f"{problem} {LOG_IN}")


def _load_or_explain(given: Any, *, named: bool = False) -> tuple[tuple[Any, str | None] | None, str]:
    """Return the credentials and their project, or None and a sentence about what's wrong with them."""
    if isinstance(given, dict):
        return _from_info(given, "The credentials")
    where, text = "The credentials", given
    if isinstance(given, os.PathLike) or (isinstance(given, str) and not given.lstrip().startswith("{")):
        where = f"The credentials file {os.fspath(given)!r}" if named or _is_path(given) else "The credentials file"
        text, problem = _read(given)
        if problem:
            return None, f"{where} can't be read: {problem}."
    if not isinstance(text, str):
        return None, f"The credentials can't be a {type(given).__name__}."
    info = None
    with contextlib.suppress(ValueError, RecursionError):
        info = json.loads(text)
    if not isinstance(info, dict):
        return None, f"{where} can't be used: the content isn't a JSON object."
    return _from_info(info, where)


def _is_path(given: Any) -> bool:
    """Return whether a text is certainly a path, and not a misplaced key or token."""
    return isinstance(given, os.PathLike) or (given.endswith(".json") and "{" not in given and "\n" not in given)


def _read(path: Any) -> tuple[str, str]:
    """Return the text of a file, or an empty text and what's wrong."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  # a path of either kind
            return file.read(), ""
    except OSError as error:
        return "", error.strerror or type(error).__name__
    except ValueError:
        return "", "it isn't text"


def _from_info(info: dict[str, Any], where: str) -> tuple[tuple[Any, str | None] | None, str]:
    kind = info.get("type")
    load_kind = _KINDS.get(kind) if isinstance(kind, str) else None
    if load_kind is None:
        shown = f"type {kind!r} is" if isinstance(kind, str) and re.fullmatch(r"\w{1,60}", kind) else "their type is"
        return None, f"{where} can't be used: {shown} none of {', '.join(_KINDS)}."
    problem = "the content is malformed"
    try:
        return load_kind(info), ""
    except google.auth.exceptions.GoogleAuthError as error:
        if found := re.search(r"missing fields? ([a-z_, ]{1,200})", str(error)):
            problem = f"these fields are missing: {found[1].strip(' ,')}"
    except Exception:  # noqa: BLE001, S110  # any library that reads a key may raise, with the key in its message
        pass
    return None, f"{where} of the type {kind} can't be used: {problem}."


def _service_account(info: dict[str, Any]) -> tuple[Any, str | None]:
    from google.oauth2 import service_account  # noqa: PLC0415  # each kind brings modules of its own

    loaded = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]  # upstream
    return loaded, info.get("project_id")


def _authorized_user(info: dict[str, Any]) -> tuple[Any, str | None]:
    from google.oauth2 import credentials  # noqa: PLC0415  # likewise

    loaded = credentials.Credentials.from_authorized_user_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]  # upstream
    return loaded, info.get("quota_project_id")


def _external_account(info: dict[str, Any]) -> tuple[Any, str | None]:
    from google.auth import aws, identity_pool, pluggable  # noqa: PLC0415  # likewise

    kind: Any = identity_pool.Credentials
    if info.get("subject_token_type") == _AWS:
        kind = aws.Credentials
    elif (info.get("credential_source") or {}).get("executable") is not None:
        kind = pluggable.Credentials
    return kind.from_info(info, scopes=SCOPES), info.get("quota_project_id")


def _external_account_user(info: dict[str, Any]) -> tuple[Any, str | None]:
    from google.auth import external_account_authorized_user  # noqa: PLC0415  # likewise

    loaded = external_account_authorized_user.Credentials.from_info(info)  # type: ignore[no-untyped-call]  # upstream
    return loaded, info.get("quota_project_id")


def _impersonated(info: dict[str, Any]) -> tuple[Any, str | None]:
    from google.auth import impersonated_credentials  # noqa: PLC0415  # likewise

    from_info = impersonated_credentials.Credentials.from_impersonated_service_account_info
    return from_info(info, scopes=SCOPES), info.get("quota_project_id")  # type: ignore[no-untyped-call]  # upstream


def _gdch_service_account(info: dict[str, Any]) -> tuple[Any, str | None]:
    from google.oauth2 import gdch_credentials  # noqa: PLC0415  # likewise

    from_info = gdch_credentials.ServiceAccountCredentials.from_service_account_info
    return from_info(info), info.get("project")  # type: ignore[no-untyped-call]  # upstream


_KINDS: Final[Mapping[str, Callable[[dict[str, Any]], tuple[Any, str | None]]]] = {
    "service_account": _service_account,
    "authorized_user": _authorized_user,
    "external_account": _external_account,
    "external_account_authorized_user": _external_account_user,
    "impersonated_service_account": _impersonated,
    "gdch_service_account": _gdch_service_account,
}


def principal(credentials: Any) -> str | None:
    """Return the account that the credentials act as, if they know it."""
    for attribute in ("service_account_email", "signer_email", "account"):
        # The credentials of a machine know their account only after a request, and say "default" until then.
        with contextlib.suppress(Exception):
            account = getattr(credentials, attribute, None)
            if isinstance(account, str) and "@" in account:
                return account
    return None


# --- tokens -----------------------------------------------------------------------------------------------------------


def authorize(credentials: Any, url: str, timeout: float) -> dict[str, str]:
    """Return the headers that authorize a request. An expired token is renewed first.

    Raises:
        TokenError: No token could be fetched.
    """
    from vertex_registry import _tokens  # noqa: PLC0415  # an emulator needs none

    request = _tokens.TokenRequest(timeout)
    headers: dict[str, str] = {}
    try:
        credentials.before_request(request, "POST", url, headers)
    except Exception as error:
        raise _token_error(error, request.status) from error
    return headers


def is_outage(error: BaseException, status: int = 0) -> bool:
    """Return whether the network or the token endpoint is at fault, and not the credentials.

    Args:
        error: What google-auth raised.
        status: The status of the last response from the token endpoint or the metadata server, or 0 if there was none.
    """
    if status in _TRY_LATER or status >= _SERVER_ERROR:
        return True
    if getattr(error, "retryable", False):
        return True
    if status >= _REFUSED:
        return False
    import requests  # noqa: PLC0415  # it takes a while, and few processes get here

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (google.auth.exceptions.TransportError, requests.RequestException)):
            return True
        seen = seen.__cause__
    return False


def _token_error(error: Exception, status: int) -> TokenError:
    if untrusted(error):
        return TokenError(
            "No token could be fetched: the certificate of the token endpoint isn't trusted. Set REQUESTS_CA_BUNDLE "
            "to the file of the certificate authority that signed it.",
            transient=True,
            final=True,
        )
    if is_outage(error, status):
        why = f"the token endpoint answered {status}" if status >= _REFUSED else reason(error)
        return TokenError(f"No token could be fetched: {why}.", transient=True)
    said = ""
    if isinstance(error, google.auth.exceptions.GoogleAuthError) and error.args and isinstance(error.args[0], str):
        said = _SECRET.sub("...", " ".join(error.args[0].split()))[:200].rstrip(".")
    return TokenError(f"The credentials got no token: {said or type(error).__name__}.", transient=False)
