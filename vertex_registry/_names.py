"""What things are called.

A model is found by its display name, which Vertex lets any number of models bear. Here a name means one model. Nothing
but Vertex itself can decide a race of several creators, so that all of them must ask for the same id: the id of a new
model is a pure function of its name. It begins with what can be read of the name and ends in a digest of all of it, so
that no two names share an id. An id is not given up when its model is renamed; the name's next id then follows in the
same series.

A version is found by its number or by an alias. An alias belongs to one version at a time and is read by a point
read, which a list, that may lag, cannot promise: what has to be found again for sure is carried as an alias, hashed,
under a prefix of our own, and shown to nobody.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import urllib.parse
from typing import Final

import attrs

from vertex_registry.errors import InvalidArgumentError

#: "The name can be up to 128 characters long and can consist of any UTF-8 characters." (Model.display_name)
MAX_NAME: Final = 128

DEFAULT_ALIAS: Final = "default"

_HIDDEN_ALIAS: Final = "vr-"

#: The alias of the version that was uploaded last, which a list that lags does not show yet.
NEWEST_ALIAS: Final = "vr-newest"

_RESOURCE: Final = re.compile(r"projects/([^/@\s]+)/locations/([^/@\s]+)/models/([A-Za-z0-9_-]+)", re.ASCII)
_VERSION_ID: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

# Vertex documents the grammar three times, each time another. What all three allow is what we write;
# what any of them allows may be there to be read.
_ALIAS: Final = re.compile(r"[a-z][a-z0-9-]{0,126}[a-z0-9]", re.ASCII)
_ANY_ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9-]", re.ASCII)

# "The bucket name ... can only contain lowercase letters, numeric characters, dashes, underscores, and dots",
# 3 to 63 characters, up to 222 with dots, each part at most 63. https://cloud.google.com/storage/docs/buckets#naming
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*[a-z0-9]", re.ASCII)

#: Files that Vertex would be given in place of the directory they lie in.
_MODEL_FILES: Final = (
    ".joblib", ".pkl", ".pickle", ".bst", ".mar", ".pb", ".pbtxt", ".onnx", ".pt", ".h5", ".keras",
)  # fmt: skip


@attrs.frozen
class ModelName:
    """The parts of a model's resource name."""

    project: str
    location: str
    model_id: str


def check_name(name: str) -> str:
    """The name of a model, as it came.

    Raises:
        InvalidArgumentError: It is empty, longer than 128 characters, or not text.
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(f"A model's name is a string, not {type(name).__name__}.")
    if not name:
        raise InvalidArgumentError("A model's name is empty. Give it between 1 and 128 characters.")
    if len(name) > MAX_NAME:
        raise InvalidArgumentError(f"A model's name has {len(name)} characters; Vertex allows {MAX_NAME}: {name!r}.")
    if not _is_text(name):
        raise InvalidArgumentError(f"A model's name holds half of a surrogate pair, which is not text: {name!r}.")
    return name


def parse_model_name(name: str) -> ModelName | None:
    """The parts of a full resource name, or None where the name is a display name.

    >>> parse_model_name("projects/acme/locations/us-central1/models/churn-1").model_id
    'churn-1'
    >>> parse_model_name("churn") is None
    True

    Raises:
        InvalidArgumentError: It is a resource name with a version in it.
    """
    resource, at, version = name.partition("@")
    if (match := _RESOURCE.fullmatch(resource)) is None:
        return None
    if at:
        raise InvalidArgumentError(
            f"{name!r} names a version. Give the model and the version separately: {resource!r}, {version!r}."
        )
    return ModelName(*match.groups())


def split_version(resource_name: str) -> tuple[str, str]:
    """The model and the version in a name that a server gave; the version is empty where it gave none."""
    resource, _, version = resource_name.partition("@")
    return resource, version


def model_id(name: str, number: int = 0) -> str:
    """The id of a new model of that name: the first of its series, or the one with that number.

    "This value may be up to 63 characters, and valid characters are `[a-z0-9_-]`. The first character cannot be a
    number or hyphen." (UploadModelRequest.model_id)
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not slug or slug[0].isdigit():
        slug = f"m-{slug}".rstrip("-")
    return f"{slug[:30]}-{_digest('model', str(number), name)}"


def hidden_alias(kind: str, text: str) -> str:
    """The alias that carries a request id or a version name out of sight."""
    return f"{_HIDDEN_ALIAS}{kind}-{_digest(kind, text)}"


def visible_aliases(aliases: tuple[str, ...]) -> tuple[str, ...]:
    """The aliases without those that carry something of ours."""
    return tuple(alias for alias in aliases if not alias.startswith(_HIDDEN_ALIAS))


def fingerprint(text: str) -> str:
    """What a label says of a text that is to be recognised, not read."""
    return _digest("fingerprint", text)


def version_id(version: str | int) -> str | None:
    """The version's number as Vertex writes it, or None where it is no number of a version."""
    if isinstance(version, bool) or not isinstance(version, (str, int)):
        return None
    text = str(version)
    return text if _VERSION_ID.fullmatch(text) else None


def version_reference(version: str | int) -> str | None:
    """What stands after the ``@``: an id or an alias; None where the version could never be one."""
    if isinstance(version, str) and _ANY_ALIAS.fullmatch(version):
        return version
    return version_id(version)


def check_reference(version: str | int) -> str:
    """The id or alias of a version that is to be changed.

    Raises:
        InvalidArgumentError: It could never be one.
    """
    if (reference := version_reference(version)) is None:
        raise InvalidArgumentError(
            f"{version!r} can be no version: a version is its number (3 or '3') or an alias "
            "(lower-case letters, digits and dashes). A version name goes through get_version(version_name=...)."
        )
    return reference


def check_alias(alias: str) -> str:
    """An alias that may be written.

    "The format is [a-z][a-zA-Z0-9-]{0,126}[a-z0-9] to distinguish from version_id." (Model.version_aliases)

    Raises:
        InvalidArgumentError: It is none, or one of those that this package keeps for itself.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidArgumentError(
            f"{alias!r} can be no alias: an alias has 2 to 128 lower-case letters, digits and dashes, "
            "begins with a letter and does not end in a dash. A name such as 'v1.0' goes into version_name."
        )
    if alias.startswith(_HIDDEN_ALIAS):
        raise InvalidArgumentError(f"The alias {alias!r} is not free: aliases that begin with 'vr-' are kept for us.")
    return alias


def check_text(what: str, text: str, most: int | None = None) -> str:
    """A text that Vertex can store.

    Raises:
        InvalidArgumentError: It is no text, is empty where ``most`` is given, or is longer than that.
    """
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what} is a string, not {type(text).__name__}.")
    if not _is_text(text):
        raise InvalidArgumentError(f"{what} holds half of a surrogate pair, which is not text.")
    if most is not None and not 0 < len(text) <= most:
        raise InvalidArgumentError(f"{what} has {len(text)} characters; it may have 1 to {most}.")
    return text


def check_source(source: str) -> str:
    """The Cloud Storage directory of an artifact, as it came.

    "The path to the directory containing the Model artifact" (Model.artifact_uri)

    Raises:
        InvalidArgumentError: It is not a ``gs://bucket/directory``; the message says what to do.
    """
    if not isinstance(source, str):
        raise InvalidArgumentError(
            f"A source is a string ('gs://bucket/directory') or a path, not {type(source).__name__}."
        )
    if not source:
        raise InvalidArgumentError("The source is empty. Give the artifact's directory: 'gs://bucket/directory'.")
    scheme, separator, rest = source.partition("://")
    if scheme.lower() == "file" and separator:
        raise InvalidArgumentError(
            f"{source!r} is a folder on this machine, and Vertex reads artifacts from Cloud Storage only. Give "
            "staging_bucket='gs://bucket' to upload it, or copy it there and give 'gs://bucket/directory'."
        )
    if not separator:
        raise InvalidArgumentError(
            f"{source!r} is a local path, and Vertex reads artifacts from Cloud Storage only. Give staging_bucket="
            "'gs://bucket' to upload it, or copy it there and give 'gs://bucket/directory'."
        )
    if scheme != "gs":
        raise InvalidArgumentError(
            f"{source!r} is not in Cloud Storage, the only place that Vertex reads artifacts from. "
            "Copy the artifact there and give 'gs://bucket/directory'."
        )
    bucket, _, path = rest.partition("/")
    check_bucket(bucket, source)
    path = path.rstrip("/")
    if not path or not _is_text(path):
        raise InvalidArgumentError(f"{source!r} names a bucket and no directory in it: 'gs://bucket/directory'.")
    if any(ord(letter) < 32 for letter in path):  # noqa: PLR2004  # below a space are the control characters
        raise InvalidArgumentError(f"{source!r} holds a control character, which no directory should.")
    if path.startswith("/") or "//" in path:
        raise InvalidArgumentError(f"{source!r} has an empty part between two slashes, which Vertex does not take.")
    last = path.rpartition("/")[2]
    if last.lower().endswith(_MODEL_FILES) and not source.endswith("/"):
        raise InvalidArgumentError(
            f"{source!r} is a file, and Vertex wants the directory that it lies in: "
            f"{source[: len(source) - len(last)].rstrip('/')!r}."
        )
    return source


def file_path(source: str) -> str:
    """Return the path that a ``file://`` URL names, or the source as it is if it isn't one.

    >>> file_path("file:///models/churn%201")
    '/models/churn 1'
    """
    scheme, separator, rest = source.partition("://")
    if not separator or scheme.lower() != "file":
        return source
    host, slash, path = rest.partition("/")
    if host not in {"", "localhost"} or not slash:
        raise InvalidArgumentError(f"{source!r} isn't a folder on this machine. Write file:///path with three slashes.")
    drive = os.name == "nt" and path[1:2] == ":"
    return urllib.parse.unquote(path if drive else f"/{path}")


def check_staging_bucket(staging: str) -> str:
    """A bucket, or a directory in one, that artifacts are uploaded to; without a slash at its end.

    Raises:
        InvalidArgumentError: It is none.
    """
    scheme, _, rest = staging.partition("://") if isinstance(staging, str) else ("", "", "")
    bucket, _, path = rest.partition("/")
    if scheme != "gs" or not _is_text(path) or any(ord(letter) < 32 for letter in path):  # noqa: PLR2004  # likewise
        raise InvalidArgumentError(f"staging_bucket={staging!r} is no bucket in Cloud Storage: 'gs://bucket' is one.")
    check_bucket(bucket, staging)
    path = path.rstrip("/")
    if path.startswith("/") or "//" in path:
        raise InvalidArgumentError(f"staging_bucket={staging!r} has an empty part between two slashes. Leave it out.")
    return f"gs://{bucket}/{path}".rstrip("/")


def check_bucket(bucket: str, source: str) -> str:
    """The name of a bucket that Cloud Storage allows.

    Raises:
        InvalidArgumentError: Cloud Storage allows no such bucket.
    """
    parts = bucket.split(".")
    most = 63 if len(parts) == 1 else 222
    if (
        not 3 <= len(bucket) <= most  # noqa: PLR2004  # the rule quoted above the pattern
        or not _BUCKET.fullmatch(bucket)
        or not all(0 < len(part) <= 63 for part in parts)  # noqa: PLR2004
        or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", bucket)
        or bucket.startswith("goog")
    ):
        raise InvalidArgumentError(
            f"{bucket!r} in {source!r} can be no bucket: a bucket's name has 3 to 63 lower-case letters, digits, "
            "dashes, underscores and dots, and begins and ends with a letter or a digit."
        )
    return bucket


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _digest(*parts: str) -> str:
    """160 bits of SHA-256 in the letters that ids, aliases and labels share: 32 characters."""
    packed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return base64.b32encode(hashlib.sha256(packed).digest()[:20]).decode().lower()
