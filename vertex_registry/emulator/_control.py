"""The emulator's own HTTP paths, for tests in other processes: faults, deployments, requests, a reset and tokens."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format

from vertex_registry.emulator._dispatch import Fault
from vertex_registry.emulator._json import is_mask, read_json, to_snake_case, without_duplicates
from vertex_registry.emulator._status import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vertex_registry.emulator._dispatch import Dispatcher


#: The most bytes of messages that are shown as JSON. A megabyte of tiny values takes seconds.
MOST_SHOWN_BYTES: Final = 2 * 1024 * 1024


def _health(_dispatcher: Dispatcher, _body: bytes) -> object:
    return {"status": "ok"}


def _requests(dispatcher: Dispatcher, _body: bytes) -> object:
    return {
        "requests": [
            {
                "rpc": request.rpc,
                "api": request.api,
                "transport": request.transport,
                "metadata": dict(request.metadata),
                "message": _to_json(request.message),
            }
            for request in dispatcher.iter_requests(MOST_SHOWN_BYTES)
        ]
    }


def _to_json(message: Any) -> object:
    """Return a message as JSON, or None if it's missing or JSON can't represent it."""
    if message is None:
        return None
    shown = type(message)()
    shown.CopyFrom(message)
    for field, value in shown.ListFields():
        if is_mask(field):
            # A mask comes in either case, and protobuf writes JSON of snake_case only.
            value.paths[:] = [to_snake_case(path) for path in value.paths]
    try:
        return json_format.MessageToDict(shown)
    except (json_format.Error, ValueError, TypeError):
        # A request over gRPC may hold values that JSON can't represent.
        return None


def _faults(dispatcher: Dispatcher, _body: bytes) -> object:
    return {"faults": [asdict(fault) for fault in dispatcher.faults()]}


# The most bytes of a fault. Its message is its only text of any length.
_MAXIMUM_FAULT: Final = 1024 * 1024


def _plan(dispatcher: Dispatcher, body: bytes) -> object:
    """Plan the fault that the body describes, and return all that are planned."""
    if len(body) > _MAXIMUM_FAULT:
        raise bad_request(f"This isn't a fault. A fault has at most {_MAXIMUM_FAULT} bytes.")
    given = read_json(body)
    if not isinstance(given, dict):
        raise bad_request("This isn't a fault. A fault is a JSON object.")
    named = without_duplicates([(to_snake_case(name), value) for name, value in given.items()])
    try:
        fault = Fault(**named)
    except (ValueError, TypeError) as error:
        raise bad_request(f"This isn't a fault. {error}") from error
    try:
        dispatcher.plan(fault)
    except ValueError as error:
        raise bad_request(str(error)) from error
    return _faults(dispatcher, b"")


def _forget(dispatcher: Dispatcher, body: bytes) -> object:
    dispatcher.forget_faults()
    return _faults(dispatcher, body)


def _deploy(dispatcher: Dispatcher, body: bytes) -> object:
    return {"endpoints": dispatcher.deploy(*_read_deployment(body))}


def _undeploy(dispatcher: Dispatcher, body: bytes) -> object:
    return {"endpoints": dispatcher.undeploy(*_read_deployment(body))}


def _read_deployment(body: bytes) -> tuple[str, str]:
    """Return the version and the endpoint that the body names."""
    given = read_json(body) if len(body) <= _MAXIMUM_FAULT else None
    named = {"endpoint": "", **given} if isinstance(given, dict) else {}
    if named.keys() != {"model", "endpoint"} or not all(isinstance(name, str) for name in named.values()):
        raise bad_request(
            'This isn\'t a deployment. Send {"model": "projects/.../models/...@1"}, and "endpoint" if you want to name '
            "the endpoint."
        )
    return named["model"], named["endpoint"]


def _reset(dispatcher: Dispatcher, _body: bytes) -> object:
    dispatcher.reset()
    return {}


def _token(_dispatcher: Dispatcher, body: bytes) -> object:
    """Return a token to any caller, so a service account's key with this ``token_uri`` works."""
    digest = hashlib.sha256(body).hexdigest()
    return {"access_token": f"emulator-{digest}", "expires_in": 3600, "token_type": "Bearer"}


#: What the emulator answers beside the RPCs, by method and path.
CONTROL_PATHS: Final[Mapping[tuple[str, str], Callable[[Dispatcher, bytes], object]]] = {
    ("GET", "/emulator/health"): _health,
    ("GET", "/emulator/requests"): _requests,
    ("GET", "/emulator/faults"): _faults,
    ("POST", "/emulator/faults"): _plan,
    ("DELETE", "/emulator/faults"): _forget,
    ("POST", "/emulator/deploy"): _deploy,
    ("POST", "/emulator/undeploy"): _undeploy,
    ("POST", "/emulator/reset"): _reset,
    ("POST", "/token"): _token,
}
