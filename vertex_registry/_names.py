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
import difflib
import hashlib
import os
import re
import unicodedata
import urllib.parse
from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: "The name can be up to 128 characters long and can consist of any UTF-8 characters." (Model.display_name)
MAX_NAME: Final = 128

DEFAULT_ALIAS: Final = "default"

_HIDDEN_ALIAS: Final = "vr-"

#: The alias of the version that was uploaded last, which a list that lags does not show yet.
NEWEST_ALIAS: Final = "vr-newest"

#: Every upload carries this alias; who deletes a model's last version takes it onto that version.
LIVE_ALIAS: Final = "vr-live"

#: The mark on a model's last version while its model is being deleted with it.
DELETING_ALIAS: Final = "vr-deleting"

# The mark on a version of a request whose second upload, named by its number, is being removed.
_REMOVING: Final = "vr-remove-"

# The highest number that a version of the model is known to have had, on another version once that one is deleted.
_HIGHEST: Final = "vr-highest-"

#: How many ids a name's series has.
SERIES: Final = 1000

_RESOURCE: Final = re.compile(r"projects/([^/@\s]+)/locations/([^/@\s]+)/models/([A-Za-z0-9_-]+)", re.ASCII)
_VERSION_ID: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

# Vertex documents the grammar three times, each time another. What the field itself says is what we write;
# what any of them allows may exist already, and can be read and removed.
_ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", re.ASCII)
_ANY_ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-zA-Z0-9-]", re.ASCII)

# An id that Vertex gave out, or one of ours (see `model_id`).
_MODEL_ID: Final = re.compile(r"[0-9]{1,63}|[a-z][a-z0-9-]{0,30}-[a-z2-7]{32}", re.ASCII)

# What isn't seen, although Unicode counts it as a letter, a mark or a symbol: fillers, joiners, variation selectors.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_SPACES: Final = frozenset(" \u3000")  # which nobody takes for each other, or for nothing

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


def check_new_name(name: str) -> str:
    """Return the name that a model is created under.

    Two names that look the same would be two models. Models that other tools created can have such names, and can be
    read by them.

    Raises:
        InvalidArgumentError: It holds characters that can't be seen.
    """
    if parse_model_name(name) is not None:
        return name
    if name != name.strip():
        raise InvalidArgumentError(
            f"The model's name {_escaped(name)} begins or ends with a space. {_TAKE_OUT.format('it')}"
        )
    if unseen := [letter for letter in name if not _is_seen(letter)]:
        shown = ", ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(unseen))
        raise InvalidArgumentError(
            f"The model's name {_escaped(name)} has characters that can't be seen ({shown}). {_TAKE_OUT.format('them')}"
        )
    return name


_TAKE_OUT: Final = "Take {} out, or give the full resource name of a model that already has this name."


def _is_seen(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind not in {"Cc", "Cf", "Zl", "Zp"} and (kind != "Zs" or letter in _SPACES) and not _UNSEEN.match(letter)


def _escaped(name: str) -> str:
    """Return a name in quotes, with an escape in place of whatever can't be seen."""
    seen = (
        letter if letter.isprintable() and _is_seen(letter) else letter.encode("unicode_escape").decode()
        for letter in name.replace("\\", "\\\\")
    )
    return f"'{''.join(seen)}'"


def looks_like_id(name: str) -> bool:
    """Whether a name may be meant as the id of a model: a number, or an id that this package made."""
    return _MODEL_ID.fullmatch(name) is not None


def close_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that are close to a name that doesn't exist, the closest first."""
    folded: dict[str, str] = {}
    for other in names:
        if len(other) <= MAX_NAME:
            folded.setdefault(other.casefold(), other)
    return [folded[close] for close in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.7)]


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


def is_model_resource(name: str) -> bool:
    """Whether a name that a server gave is the full resource name of a model."""
    return _RESOURCE.fullmatch(name) is not None


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


def upload_alias(request_alias: str, base: int, nonce: str) -> str:
    """Return the alias of one upload of a request, which never moves.

    Args:
        request_alias: The alias of the request, which moves to its latest upload.
        base: A version number: when that was the newest version, or a later one, the request had no version yet.
        nonce: What no other upload has.
    """
    return f"{request_alias}-{base}-{_digest('upload', nonce)}"


def find_upload_alias(aliases: Iterable[str], request_alias: str) -> tuple[str, int] | None:
    """Return the alias of the upload that made a version, and its base; None if another request made the version."""
    for alias in aliases:
        base, _, nonce = alias.removeprefix(f"{request_alias}-").partition("-")
        if alias.startswith(f"{request_alias}-") and nonce and base.isdecimal():
            return alias, int(base)
    return None


def pending_alias(upload: str) -> str:
    """Return the alias that an upload carries until the aliases that its caller gave are on the version."""
    return hidden_alias("pending", upload)


def removing_alias(number: str) -> str:
    """Return the alias of a version while a second upload of its request, the version of that number, is removed."""
    return f"{_REMOVING}{number}"


def removing(aliases: Iterable[str]) -> list[str]:
    """Return the numbers of the versions that are being removed in favor of the version with these aliases."""
    return [alias.removeprefix(_REMOVING) for alias in aliases if alias.startswith(_REMOVING)]


def highest_alias(number: int) -> str:
    """Return the alias that says that a version of that number existed."""
    return f"{_HIGHEST}{number}"


def highest_number(aliases: Iterable[str]) -> int:
    """Return the highest number that such aliases name, or 0."""
    numbers = (alias.removeprefix(_HIGHEST) for alias in aliases if alias.startswith(_HIGHEST))
    return max((int(number) for number in numbers if _VERSION_ID.fullmatch(number)), default=0)


def inherited_aliases(aliases: Iterable[str], request_alias: str) -> list[str]:
    """Return the aliases that a second upload of a request leaves to the first one."""
    kept = {request_alias, NEWEST_ALIAS}
    return [
        alias
        for alias in aliases
        if alias in kept or alias.startswith(f"{_HIDDEN_ALIAS}name-") or not alias.startswith(_HIDDEN_ALIAS)
    ]


def visible_aliases(aliases: tuple[str, ...]) -> tuple[str, ...]:
    """The aliases without those that carry something of ours."""
    return tuple(filter(is_visible, aliases))


def is_visible(alias: str) -> bool:
    """Whether an alias is one that callers gave, and carries nothing of ours."""
    return not alias.startswith(_HIDDEN_ALIAS)


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
            "(letters, digits and dashes). A version name goes through get_version(version_name=...)."
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
            f"{alias!r} isn't an alias: an alias has 2 to 128 letters, digits and dashes, begins with a lower-case "
            "letter, and ends with a lower-case letter or a digit. A name such as 'v1.0' goes into version_name."
        )
    if alias.startswith(_HIDDEN_ALIAS):
        raise InvalidArgumentError(f"The alias {alias!r} is not free: aliases that begin with 'vr-' are kept for us.")
    return alias


def check_alias_to_remove(alias: str) -> str:
    """Return an alias that may exist, whichever of Vertex's grammars it follows.

    Raises:
        InvalidArgumentError: No version can have it, or it is one of those that this package keeps for itself.
    """
    if isinstance(alias, str) and _ANY_ALIAS.fullmatch(alias) and not alias.startswith(_HIDDEN_ALIAS):
        return alias
    return check_alias(alias)


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


def is_version_name(text: str) -> bool:
    """Return whether a version can be registered under a name."""
    return isinstance(text, str) and _is_text(text) and 0 < len(text) <= 128  # noqa: PLR2004  # as `check_text` has it


def check_source(source: str) -> str:  # noqa: C901  # the mistakes stand side by side
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
    if (meant := meant_uri(source)) is not None:
        raise InvalidArgumentError(f"The source isn't in the form that Vertex reads. Give {meant!r}.")
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
    if isinstance(staging, str) and (meant := meant_uri(staging)) is not None:
        raise InvalidArgumentError(f"staging_bucket isn't in the form that uploads take. Give {meant!r}.")
    scheme, _, rest = staging.partition("://") if isinstance(staging, str) else ("", "", "")
    bucket, _, path = rest.partition("/")
    if scheme != "gs" or not _is_text(path) or any(ord(letter) < 32 for letter in path):  # noqa: PLR2004  # likewise
        raise InvalidArgumentError(f"staging_bucket={staging!r} is no bucket in Cloud Storage: 'gs://bucket' is one.")
    check_bucket(bucket, staging)
    path = path.rstrip("/")
    if path.startswith("/") or "//" in path:
        raise InvalidArgumentError(f"staging_bucket={staging!r} has an empty part between two slashes. Leave it out.")
    return f"gs://{bucket}/{path}".rstrip("/")


def meant_uri(source: str) -> str | None:
    """Return the ``gs://`` form of a path in Cloud Storage that is written in another way, or None if it isn't one.

    The address itself is shown nowhere: one that is signed holds a secret.
    """
    text = source.strip()
    match = _ELSEWHERE.match(text)
    if match is None:
        return None
    bucket = match["host"] or match["bucket"] or match["mounted"]
    path = match["path"] or ""
    if text.lower().startswith("http"):
        path = urllib.parse.unquote(re.split(r"[?#;]", path)[0])
        path = path.removeprefix("/o") if match["api"] and (path == "/o" or path.startswith("/o/")) else path
    path = path.strip("/")
    return f"gs://{bucket}/{path}" if path else f"gs://{bucket}"


#: The other ways to write ``gs://bucket/path``: the addresses of the console, of downloads and of the API, and the
#: folder that Vertex mounts buckets at.
_ELSEWHERE: Final = re.compile(
    r"""
    (?: https?://
        (?: storage\.(?:googleapis|cloud\.google)\.com/(?P<api>(?:(?:download|upload)/)?storage/v1/b/)?
          | console\.(?:cloud\.google|developers\.google)\.com/storage/browser/(?:_details/)?
        )
        (?P<bucket>[a-z0-9][a-z0-9_.-]+[a-z0-9])
      | https?://(?P<host>[a-z0-9][a-z0-9_.-]+[a-z0-9])\.storage\.(?:googleapis|cloud\.google)\.com
      | (?:/gcs/|gcs://|gs:/(?!/))(?P<mounted>[a-z0-9][a-z0-9_.-]+[a-z0-9])
    )
    (?P<path>[/?\#;].*)?$
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL | re.ASCII,
)


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
