"""Register the same version once: if the newest version of a name has the same source, return that one.

The request ID of such a registration is a function of the version's name and its source, so a second run finds what the
first one registered, and finishes it if it was cut off.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry import _labels
from vertex_registry._stages import Stage
from vertex_registry.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry._records import ModelVersion
    from vertex_registry._registration import Registration

_LOG: Final = logging.getLogger("vertex_registry")


def check_arguments(*, reuse_existing: bool, version_name: str | None, request_id: str | None) -> None:
    """Refuse to reuse a version that can't be found again by its name.

    Raises:
        InvalidArgumentError: ``reuse_existing`` comes without a version name, or with a request ID.
    """
    if not reuse_existing:
        return
    if version_name is None:
        raise InvalidArgumentError("reuse_existing=True needs a version_name, by which the existing version is found.")
    if request_id is not None:
        raise InvalidArgumentError("reuse_existing=True chooses the request ID. Leave request_id out.")


def register(
    registration: Registration, newest: ModelVersion | None, register_once: Callable[[Registration], ModelVersion]
) -> ModelVersion:
    """Return the newest version of a name if it has the registration's source, or else register a new one.

    Args:
        registration: What to register.
        newest: The newest version with the registration's version name, if there is one.
        register_once: Registers something under its request ID, or returns what was registered under it.
    """
    made = register_once(_with_request_id(registration))
    while newest is not None and int(made.version) < int(newest.version):
        # This source was registered before, and another one since. Going back to it makes a new version.
        later = register_once(_with_request_id(registration, made.version))
        if int(later.version) <= int(made.version):
            raise ConflictError(
                f"Version {later.version} of {registration.name!r} came after version {made.version}, but Vertex gave "
                "it a lower number. Register it without reuse_existing.",
                resource=later.resource_name,
            )
        made = later
    if newest is not None and made.version == newest.version and (differences := _differences(made, registration)):
        _LOG.warning(
            "Version %r of %r exists with this source and was returned unchanged: its %s from what you passed. "
            "Update the version if you want to change that.",
            registration.version_name,
            registration.name,
            f"{' and '.join(differences)} differ{'s' if len(differences) == 1 else ''}",
        )
    return made


def _with_request_id(registration: Registration, *after: str) -> Registration:
    """Return the registration under the request ID of its version name and source.

    Args:
        registration: The registration.
        after: The version that had the same source before, if another source was registered since.
    """
    key = json.dumps([registration.version_name, registration.source.rstrip("/"), *after])
    return attrs.evolve(registration, request_id=f"reuse-{hashlib.sha256(key.encode()).hexdigest()}", shared=True)


def _differences(made: ModelVersion, registration: Registration) -> list[str]:
    """Return which fields of a version aren't what the registration has; what it leaves out doesn't count."""
    has, wanted = made.metadata, registration.metadata
    same = {
        "description": registration.description is None or made.description == registration.description,
        "metadata": all(key in has and _labels.json_equal(has[key], value) for key, value in wanted.items()),
        "stage": registration.stage in {Stage.NONE, made.stage},
    }
    return [field for field, equal in same.items() if not equal]
