"""Check the arguments of the client's methods before anything is sent."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from vertex_registry import _labels, _names
from vertex_registry._quoting import is_blank, quote
from vertex_registry._records import ModelVersion, is_integer
from vertex_registry._stages import Stage
from vertex_registry._version import __version__
from vertex_registry.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping


#: The years of the times that `_changes` can pack.
_CLOCK_YEARS: Final = range(1970, 6000)


def check_picklable(settings: Mapping[str, Any]) -> None:
    """Check that each setting of a client can be pickled.

    Raises:
        InvalidArgumentError: One can't. The message says which, and what to use instead.
    """
    for name, value in settings.items():
        if not _is_picklable(value):
            raise InvalidArgumentError(
                f"This RegistryClient can't be pickled or copied, because its {name.removeprefix('_')} can't. "
                + (
                    "Pass credentials as the path or the content of a file, or create a client in the worker."
                    if name == "credentials"
                    else "Use a function of a module instead of a lambda or a method."
                )
            )


def _is_picklable(value: Any) -> bool:
    import pickle  # noqa: PLC0415  # a client that isn't pickled doesn't need it

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # a class may raise anything
        return False
    return True


def user_agent(prefix: str | None) -> str:
    """Return the user agent that requests carry.

    Raises:
        InvalidArgumentError: The prefix isn't a line of ASCII characters.
    """
    if prefix is not None and not (isinstance(prefix, str) and prefix.isascii() and prefix.isprintable()):
        raise InvalidArgumentError(f"user_agent={quote(prefix)} can't be sent. Use one line of ASCII characters.")
    return " ".join(filter(None, [prefix, f"vertex-registry/{__version__}"]))


def check_reference(name: str, version: str | int | ModelVersion) -> str:
    """Check the number or alias of a version and return it as text.

    Args:
        name: The model's name.
        version: The version.

    Raises:
        InvalidArgumentError: It can't be either, or it's a version of another model.
    """
    given = number_or_alias(name, version)
    if (reference := _names.version_reference(given)) is None:
        if _means_a_query(given):
            raise InvalidArgumentError(f"{quote(given)} can't be a version. {what_finds(name, str(given))}")
        raise InvalidArgumentError(
            f"{quote(given)} can't be a version. {_meant(given)}Pass its number (3 or '3') or an alias (letters, "
            "digits and dashes), or find a version by its name with get_version(version_name=...)."
        )
    return reference


def no_version_error(name: str, version: object) -> NotFoundError:
    """Return the error of a version that can't exist, because it's neither a number nor an alias."""
    if _means_a_query(version):
        return NotFoundError(f"The model {name!r} has no version {quote(version)}. {what_finds(name, str(version))}")
    return NotFoundError(
        f"{name!r} has no version {quote(version)}. {_meant(version)}Pass its number (3 or '3') or an alias (letters, "
        "digits and dashes), or its name as version_name=."
    )


def what_finds(name: str, reference: str) -> str:
    """Return a sentence with the call that finds what somebody meant by a version that doesn't exist."""
    word = reference.strip().lower()
    if word in _STAGES_MEANT:
        stage = _STAGES_MEANT[word]
        return f"Call get_version({name!r}, stage={stage.label!r}) for the one in {stage}."
    if word in _LATEST:
        return f"Call latest_version({name!r}) for the newest one."
    return f"{_meant(reference)}list_versions({name!r}) shows those that exist."


def _means_a_query(version: object) -> bool:
    """Return whether somebody passed a stage, or a word for the newest version, in place of a version."""
    return isinstance(version, str) and version.strip().lower() in _STAGES_MEANT.keys() | _LATEST


def _meant(version: object) -> str:
    meant = _names.meant_reference(version)
    return "" if meant is None else f"Did you mean {meant!r}? "


_LATEST: Final = frozenset({"latest", "newest"})
_STAGES_MEANT: Final = {stage.label: stage for stage in Stage if stage is not Stage.NONE} | {"prod": Stage.PRODUCTION}


def number_or_alias(name: str, version: str | int | ModelVersion) -> str | int:
    """Return the number or alias that a version was given by; of a record, its number.

    Raises:
        InvalidArgumentError: The record is a version of another model.
    """
    if not isinstance(version, ModelVersion):
        return version
    given = _names.parse_model_name(name)
    same = name == version.name if given is None else version.model_resource_name.endswith(f"/models/{given.model_id}")
    if not same:
        raise InvalidArgumentError(f"Version {version.version} is a version of {version.name!r}, not of {name!r}.")
    return version.version


def check_not_empty(**settings: object) -> None:
    """Check that no setting is an empty text or dict, which is more likely an unset variable than the default.

    Raises:
        InvalidArgumentError: One is.
    """
    for name, value in settings.items():
        if value == {} or (isinstance(value, str) and is_blank(value)):
            raise InvalidArgumentError(f"{name} is empty. Leave it out to use the environment or the default.")


def source_text(source: str | os.PathLike[str]) -> str:
    """Return a source as text. What is neither text nor a path is returned as it is, for `check_source` to reject."""
    return os.fspath(source) if isinstance(source, os.PathLike) else source


def check_aware(what: str, moment: dt.datetime | None) -> dt.datetime | None:
    """Check that a time has a time zone, and return it.

    Raises:
        InvalidArgumentError: It has none, or isn't a datetime.
    """
    if moment is not None and (not isinstance(moment, dt.datetime) or moment.utcoffset() is None):
        raise InvalidArgumentError(
            f"{what}={quote(moment)} isn't a datetime with a time zone. Give one such as "
            "datetime(2026, 1, 31, tzinfo=UTC)."
        )
    return moment


def check_clock(moment: Any) -> dt.datetime:
    """Check what a client's clock returned, and return it in UTC.

    Raises:
        InvalidArgumentError: It isn't an aware datetime of a year that a history can hold.
    """
    try:
        if isinstance(moment, dt.datetime) and moment.utcoffset() is not None:
            in_utc: dt.datetime = moment.astimezone(dt.UTC)
            if in_utc.year in _CLOCK_YEARS:
                return in_utc
    except OverflowError:  # it's outside of every year in UTC
        pass
    raise InvalidArgumentError(
        f"The function now returned {moment!r}, and stage changes need the time, such as datetime.now(UTC): an aware "
        f"datetime from {_CLOCK_YEARS[0]} on."
    )


def check_limit(limit: int | None) -> int | None:
    """Check a limit, and return it.

    Raises:
        InvalidArgumentError: It isn't a number from 0 up.
    """
    if limit is not None and (not is_integer(limit) or not 0 <= limit <= sys.maxsize):
        raise InvalidArgumentError(f"limit={quote(limit)} isn't a number of versions or models.")
    return limit


def check_order(order_by: str) -> str:
    """Check an order of models, and return it.

    Raises:
        InvalidArgumentError: There's no such order.
    """
    if order_by not in _ORDERS:
        raise InvalidArgumentError(f"order_by={quote(order_by)} isn't one of {', '.join(map(quote, _ORDERS))}.")
    return order_by


_ORDERS: Final = ("created", "updated", "name")


def check_strings(what: str, values: Iterable[str]) -> list[str]:
    """Check that values are strings, and return them as a list.

    Raises:
        InvalidArgumentError: One isn't, or the values are a single string.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{what} has to be a list of strings, not {type(values).__name__}.")
    listed = list(values)
    for value in listed:
        if not isinstance(value, str):
            raise InvalidArgumentError(f"{what} has to be a list of strings, but has a {type(value).__name__}.")
    return listed


def file_metadata(
    metadata: Mapping[str, Any] | None, in_labels: Mapping[str, Any] | None, *, uploads: bool
) -> bytes | None:
    """Return the content of a metadata file, or None if there's no metadata for one.

    Args:
        metadata: The metadata for the file.
        in_labels: The metadata for the labels.
        uploads: Whether a folder is uploaded that the file can be in.

    Raises:
        InvalidArgumentError: It isn't JSON, is too large or shares a key with the labels, or nothing is uploaded.
    """
    if not metadata:
        return None
    checked = _labels.check_metadata(metadata)
    if both := sorted(checked.keys() & (in_labels or {}).keys()):
        raise InvalidArgumentError(
            f"metadata and file_metadata both have {quote(both[0])}. Name each key in one of them."
        )
    if not uploads:
        raise InvalidArgumentError(
            "file_metadata is a file in the folder that's uploaded. Pass an artifact on this machine and a "
            "staging_bucket, or leave file_metadata out."
        )
    return _labels.to_file(checked)


def check_label_filter(labels: Any) -> None:
    """Check that the labels to filter by are strings.

    Raises:
        InvalidArgumentError: A key or a value isn't.
    """
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"The label {quote(key)} has to be a string, and its value too.")


def check_choice(name: str, value: object, *choices: str | bool) -> None:
    """Check that an argument is one of a few values. A number isn't a truth value, though 1 equals True.

    Raises:
        InvalidArgumentError: It isn't.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *others, last = map(repr, choices)
        raise InvalidArgumentError(f"{name}={quote(value)} isn't {', '.join(others)} or {last}.")
