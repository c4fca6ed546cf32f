"""Names: of models, versions, aliases, buckets and sources.

The ID of a new model is a pure function of its name, so all clients that create the name ask for the same ID, and
Vertex decides the race. An alias is read by a point read, which never lags, so what has to be found again is carried as
a hashed alias with our own prefix.
"""

from __future__ import annotations

import base64
import difflib
import functools
import hashlib
import itertools
import operator
import os
import re
import unicodedata
import urllib.parse
from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: "The name can be up to 128 characters long and can consist of any UTF-8 characters." (Model.display_name)
MAX_NAME: Final = 128

DEFAULT_ALIAS: Final = "default"

_HIDDEN_ALIAS: Final = "vr-"

#: The alias of the version that was uploaded last, which a lagging list doesn't show yet.
NEWEST_ALIAS: Final = "vr-newest"

#: Every upload carries this alias. Before a client deletes a model's last version, it moves the alias there.
LIVE_ALIAS: Final = "vr-live"

#: The alias of a model's last version while the model is being deleted with it.
DELETING_ALIAS: Final = "vr-deleting"

# The prefix of a version's alias while a second upload of its request, named by its number, is being removed.
_REMOVING: Final = "vr-remove-"

# The prefix of an alias with the highest version number of a model, on another version once that one is deleted.
_HIGHEST: Final = "vr-highest-"

#: How many IDs can follow each other for one name.
IDS_PER_NAME: Final = 1000

_RESOURCE: Final = re.compile(r"projects/([^/@\s]+)/locations/([^/@\s]+)/models/([A-Za-z0-9_-]+)", re.ASCII)
_VERSION_ID: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

# Vertex documents three different grammars. We write what the field's own comment allows, and read and remove what any
# of them allows.
_ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", re.ASCII)
_ANY_ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-zA-Z0-9-]", re.ASCII)

# An ID that Vertex or `model_id` made.
_MODEL_ID: Final = re.compile(r"[0-9]{1,63}|[a-z][a-z0-9-]{0,30}-[a-z2-7]{32}", re.ASCII)

# Invisible characters that Unicode counts as letters, marks or symbols: fillers, joiners, variation selectors.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_VISIBLE_SPACES: Final = frozenset(" \u3000")  # these are visible as gaps

# "The bucket name ... can only contain lowercase letters, numeric characters, dashes, underscores, and dots",
# 3 to 63 characters, up to 222 with dots, each part at most 63. https://cloud.google.com/storage/docs/buckets#naming
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*[a-z0-9]", re.ASCII)

#: The bucket of a local registry, whose objects are files in a folder. Nobody can own it in Cloud Storage: a bucket's
#: name with a dot is a domain that its owner must verify, and ``localhost`` is reserved (RFC 6761).
#: https://cloud.google.com/storage/docs/domain-name-verification
LOCAL_BUCKET: Final = "artifacts.localhost"

#: The endings of model files, which people pass instead of the directory that contains them.
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
    """Check the name of a model and return it.

    Raises:
        InvalidArgumentError: It's empty, longer than 128 characters, or not text.
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(f"The model's name has to be a string, not {type(name).__name__}.{_named(name)}")
    if not name:
        raise InvalidArgumentError("The model's name is empty. Use 1 to 128 characters.")
    if len(name) > MAX_NAME:
        raise InvalidArgumentError(
            f"The model's name has {len(name)} characters, and Vertex allows {MAX_NAME}: {name[:_SHOWN]!r}..."
        )
    if not _is_text(name):
        raise InvalidArgumentError(f"The model's name has half of a surrogate pair, which isn't text: {name!r}.")
    return name


def _named(record: object) -> str:
    """Return what to do with a record in place of its name."""
    return " Pass its name." if isinstance(getattr(record, "name", None), str) else ""


_SHOWN: Final = 40  # characters of a name that's too long


def check_new_name(name: str) -> str:
    """Check the name for a new model and return it.

    Two names that look the same would be two models. Other tools may create such models, and you can still read them.

    Raises:
        InvalidArgumentError: It has characters that can't be seen.
    """
    if parse_model_name(name) is not None:
        return name
    if name != name.strip():
        raise InvalidArgumentError(
            f"The model's name {_escaped(name)} begins or ends with a space. {_HOW_TO_FIX.format('it')}"
        )
    if invisible := [letter for letter in name if not _is_visible_letter(letter)]:
        codes = ", ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(invisible))
        raise InvalidArgumentError(
            f"The model's name {_escaped(name)} has characters that can't be seen ({codes}). "
            + _HOW_TO_FIX.format("them")
        )
    return name


def is_new_name(name: str) -> bool:
    """Return whether a new model can have the name."""
    try:
        check_new_name(name)
    except InvalidArgumentError:
        return False
    return True


_HOW_TO_FIX: Final = "Remove {}, or pass the full resource name of a model that already has this name."


def _is_visible_letter(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return (
        kind not in {"Cc", "Cf", "Zl", "Zp"}
        and (kind != "Zs" or letter in _VISIBLE_SPACES)
        and not _INVISIBLE.match(letter)
    )


def _escaped(name: str) -> str:
    """Return a name in quotes, with escapes for what can't be seen."""
    visible = (
        letter if letter.isprintable() and _is_visible_letter(letter) else letter.encode("unicode_escape").decode()
        for letter in name.replace("\\", "\\\\")
    )
    return f"'{''.join(visible)}'"


def looks_like_id(name: str) -> bool:
    """Return whether a name could be the ID of a model: a number, or an ID that this package made."""
    return _MODEL_ID.fullmatch(name) is not None


def close_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that are close to a name that doesn't exist, the closest first."""
    folded: dict[str, str] = {}
    for other in names:
        if len(other) <= MAX_NAME:
            folded.setdefault(other.casefold(), other)
    return [folded[close] for close in difflib.get_close_matches(name.strip().casefold(), folded, n=3, cutoff=0.7)]


def parse_model_name(name: str) -> ModelName | None:
    """Return the parts of a full resource name, or None if the name is a display name.

    >>> parse_model_name("projects/acme/locations/us-central1/models/churn-1").model_id
    'churn-1'
    >>> parse_model_name("churn") is None
    True

    Raises:
        InvalidArgumentError: It's the resource name of a version.
    """
    resource, at, version = name.partition("@")
    if (match := _RESOURCE.fullmatch(resource)) is None:
        return None
    if at:
        raise InvalidArgumentError(
            f"{quote(name)} is the name of a version. Pass the model and the version separately: {quote(resource)}, "
            f"{quote(version)}."
        )
    return ModelName(*match.groups())


@functools.lru_cache
def is_model_resource(name: str) -> bool:
    """Return whether a name in a response is the full resource name of a model."""
    return _RESOURCE.fullmatch(name) is not None


def split_version(resource_name: str) -> tuple[str, str]:
    """Return the model and the version in a name from a response. The version is empty if the name has none."""
    resource, _, version = resource_name.partition("@")
    return resource, version


def model_id(name: str, number: int = 0) -> str:
    """Return the ID for a new model of that name: the first of its series, or the one with that number.

    "This value may be up to 63 characters, and valid characters are `[a-z0-9_-]`. The first character cannot be a
    number or hyphen." (UploadModelRequest.model_id)
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not slug or slug[0].isdigit():
        slug = f"m-{slug}".rstrip("-")
    return f"{slug[:30]}-{_digest('model', str(number), name)}"


def hidden_alias(kind: str, text: str) -> str:
    """Return the hidden alias for a request ID or a version name."""
    return f"{_HIDDEN_ALIAS}{kind}-{_digest(kind, text)}"


def upload_alias(request_alias: str, base: int, nonce: str) -> str:
    """Return the alias of one upload of a request, which never moves.

    Args:
        request_alias: The alias of the request, which moves to its latest upload.
        base: A version number. When that version existed, the request had none yet.
        nonce: A text that no other upload has.
    """
    return f"{request_alias}-{base}-{_digest('upload', nonce)}"


def find_upload_alias(aliases: Iterable[str], request_alias: str) -> tuple[str, int] | None:
    """Return the alias of the upload that created a version, and its base; None if another request created it."""
    for alias in aliases:
        base, _, nonce = alias.removeprefix(f"{request_alias}-").partition("-")
        if alias.startswith(f"{request_alias}-") and nonce and base.isdecimal():
            return alias, int(base)
    return None


def pending_alias(upload: str) -> str:
    """Return the alias that an upload carries until the version has its caller's aliases."""
    return hidden_alias("pending", upload)


def removing_alias(number: str) -> str:
    """Return the alias of a version while a second upload of its request, the version of that number, is removed."""
    return f"{_REMOVING}{number}"


def versions_being_removed(aliases: Iterable[str]) -> list[str]:
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
    """Return the aliases without hidden ones."""
    return tuple(filter(is_visible, aliases)) if aliases else ()


def hidden_aliases(aliases: tuple[str, ...]) -> tuple[str, ...]:
    """Return the hidden ones of some aliases."""
    return tuple(itertools.filterfalse(is_visible, aliases)) if aliases else ()


def is_visible(alias: str) -> bool:
    """Return whether an alias is a caller's, and not a hidden one."""
    return not alias.startswith(_HIDDEN_ALIAS)


def fingerprint(text: str) -> str:
    """Return a digest of a text, for a label that only has to recognize the text."""
    return _digest("fingerprint", text)


def version_id(version: object) -> str | None:
    """Return a version's number as Vertex writes it, or None if it can't be one."""
    text = version if isinstance(version, str) else _digits(version)
    return text if _VERSION_ID.fullmatch(text) else None


def _digits(number: object) -> str:
    """Return the digits of an integer, such as a NumPy integer, or an empty text if it isn't one or has too many."""
    try:
        value = operator.index(number)  # type: ignore[arg-type]  # it raises a TypeError
    except TypeError:
        return ""
    return "" if isinstance(number, bool) or not 0 < value < _MOST_VERSIONS else str(value)


def version_reference(version: object) -> str | None:
    """Return a version's number or alias, as it follows the ``@``, or None if it can't be either."""
    if isinstance(version, str) and _ANY_ALIAS.fullmatch(version):
        return version
    return version_id(version)


def meant_reference(version: object) -> str | None:
    """Return the number or alias that somebody wrote in another way, or None if that isn't clear.

    >>> [meant_reference(text) for text in ("v3", " 3 ", "3.0", "churn@3", "Candidate")]
    ['3', '3', '3', '3', 'candidate']
    """
    if isinstance(version, float):
        version = str(version)
    if not isinstance(version, str) or len(version) > _LONGEST_WRITTEN:
        return None
    text = unicodedata.normalize("NFKC", version).strip()
    if (number := _NUMBER_WRITTEN.fullmatch(text)) is not None:
        meant = str(int(number[1]))
        return None if meant == version else meant
    alias = text.rpartition("@")[2]
    return next((each for each in (alias, alias.lower()) if each != version and _ANY_ALIAS.fullmatch(each)), None)


#: A version's number with what people write around it: v3, 3.0, #3, version 3, churn@3.
_NUMBER_WRITTEN: Final = re.compile(
    r"(?:.*@|v(?:ersion)?[ ._-]?|#)?0*([1-9]\d{0,17})(?:\.0*)?", re.IGNORECASE | re.DOTALL
)
_LONGEST_WRITTEN: Final = 512
_MOST_VERSIONS: Final = 10**18


def check_alias(alias: str) -> str:
    """Check a new alias and return it.

    "The format is [a-z][a-zA-Z0-9-]{0,126}[a-z0-9] to distinguish from version_id." (Model.version_aliases)

    Raises:
        InvalidArgumentError: Vertex doesn't allow it, or it's reserved for this package.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidArgumentError(
            f"{quote(alias)} isn't an alias: an alias has 2 to 128 letters, digits and dashes, begins with a "
            "lower-case letter, and ends with a lower-case letter or a digit. Use version_name= for a name such as "
            "'v1.0'."
        )
    if alias.startswith(_HIDDEN_ALIAS):
        raise InvalidArgumentError(
            f"The alias {quote(alias)} is reserved, because it begins with 'vr-'. Use another one."
        )
    return alias


def check_alias_to_remove(alias: str) -> str:
    """Check an alias to remove and return it. It may follow any of Vertex's grammars.

    Raises:
        InvalidArgumentError: No version can have it, or it's reserved for this package.
    """
    if isinstance(alias, str) and _ANY_ALIAS.fullmatch(alias) and not alias.startswith(_HIDDEN_ALIAS):
        return alias
    return check_alias(alias)


def check_text(what: str, text: str, most: int | None = None) -> str:
    """Check a text that Vertex stores and return it.

    Args:
        what: The name of the argument, for the message.
        text: The text.
        most: The largest number of characters; the text can't be empty then. Defaults to any number.

    Raises:
        InvalidArgumentError: It isn't text, is empty, or is too long.
    """
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what} has to be a string, not {type(text).__name__}.")
    if not _is_text(text):
        raise InvalidArgumentError(f"{what} has half of a surrogate pair, which isn't text.")
    if most is not None and not 0 < len(text) <= most:
        raise InvalidArgumentError(f"{what} has {len(text)} characters. Use 1 to {most}.")
    return text


def is_version_name(text: str) -> bool:
    """Return whether a version can be registered under a name."""
    return isinstance(text, str) and _is_text(text) and 0 < len(text) <= 128  # noqa: PLR2004  # as `check_text` has it


def check_source(source: str, *, emulated: bool = False) -> str:  # noqa: C901  # one branch for each mistake
    """Check the Cloud Storage directory of an artifact and return it.

    "The path to the directory containing the Model artifact" (Model.artifact_uri)

    Args:
        source: The directory.
        emulated: Whether it's for an emulator, so its user may have no cloud.

    Raises:
        InvalidArgumentError: It isn't a ``gs://bucket/directory``. The message says what to do.
    """
    if not isinstance(source, str):
        raise InvalidArgumentError(
            f"The source has to be a string ('gs://bucket/directory') or a path, not {type(source).__name__}."
        )
    if not source:
        raise InvalidArgumentError("The source is empty. Pass the artifact's directory: 'gs://bucket/directory'.")
    scheme, separator, rest = source.partition("://")
    if scheme.lower() == "file" and separator:
        raise InvalidArgumentError(f"{quote(source)} is a folder on this machine, and {_to_upload(emulated=emulated)}")
    if (meant := to_gs_uri(source)) is not None:
        what = "The source isn't in the form that Vertex reads."
        raise InvalidArgumentError(f"{what} {_to_pass(meant)}")
    if not separator:
        raise InvalidArgumentError(f"{quote(source)} is a local path, and {_to_upload(emulated=emulated)}")
    if scheme != "gs":
        raise InvalidArgumentError(
            f"{quote(source)} isn't in Cloud Storage, the only place that Vertex reads artifacts from. "
            "Copy the artifact there and pass 'gs://bucket/directory'."
        )
    bucket, _, path = rest.partition("/")
    check_bucket(bucket, source)
    path = path.rstrip("/")
    if not path or not _is_text(path):
        raise InvalidArgumentError(f"{quote(source)} is a bucket without a directory. Pass 'gs://bucket/directory'.")
    if any(ord(letter) < 32 for letter in path):  # noqa: PLR2004  # control characters
        raise InvalidArgumentError(f"{quote(source)} has a control character. Rename the directory.")
    if path.startswith("/") or "//" in path:
        raise InvalidArgumentError(f"{quote(source)} has an empty part between two slashes. Remove it.")
    if _is_file(path) and not source.endswith("/"):
        raise InvalidArgumentError(f"{quote(source)} is a file, and Vertex reads directories. {_to_pass(source)}")
    return source


def _is_file(path: str) -> bool:
    return path.rpartition("/")[2].lower().endswith(_MODEL_FILES)


def _to_pass(uri: str) -> str:
    """Return which directory to pass in place of a ``gs://`` URI, which may be a file."""
    if not _is_file(uri):
        return f"Pass {quote(uri)}."
    directory = uri.rpartition("/")[0]
    if "/" in directory.removeprefix("gs://"):
        return f"Pass {quote(directory)}."
    return f"Put it in a directory, such as {quote(f'{directory}/model')}."


def _to_upload(*, emulated: bool) -> str:
    """Return why a local artifact can't be registered as it is, and what to do."""
    if emulated:
        return (
            "an emulator of Vertex AI keeps no artifacts. Use local_registry(), which does, or set "
            "staging_bucket='gs://bucket' to upload it to Cloud Storage or to a storage emulator."
        )
    return (
        "Vertex only reads artifacts from Cloud Storage. Set staging_bucket='gs://bucket' to upload it, or copy it "
        "there and pass 'gs://bucket/directory'."
    )


def path_of_file_url(source: str) -> str:
    """Return the path in a ``file://`` URL, or the source as it is if it isn't one.

    >>> path_of_file_url("file:///models/churn%201")
    '/models/churn 1'
    """
    scheme, separator, rest = source.partition("://")
    if not separator or scheme.lower() != "file":
        return source
    host, slash, path = rest.partition("/")
    if host not in {"", "localhost"} or not slash:
        raise InvalidArgumentError(
            f"{quote(source)} isn't a folder on this machine. Write file:///path with three slashes."
        )
    drive = os.name == "nt" and path[1:2] == ":"
    return urllib.parse.unquote(path if drive else f"/{path}")


def check_staging_bucket(staging: str) -> str:
    """Check a staging bucket, or a directory in one, and return it without a slash at its end.

    Raises:
        InvalidArgumentError: It isn't one.
    """
    if isinstance(staging, str) and (meant := to_gs_uri(staging)) is not None:
        raise InvalidArgumentError(f"staging_bucket isn't in the right form. Pass {quote(meant)}.")
    scheme, _, rest = staging.partition("://") if isinstance(staging, str) else ("", "", "")
    bucket, _, path = rest.partition("/")
    if scheme != "gs" or not _is_text(path) or any(ord(letter) < 32 for letter in path):  # noqa: PLR2004  # likewise
        raise InvalidArgumentError(
            f"staging_bucket={quote(staging)} isn't a bucket in Cloud Storage. Pass 'gs://bucket'."
        )
    check_bucket(bucket, staging)
    path = path.rstrip("/")
    if path.startswith("/") or "//" in path:
        raise InvalidArgumentError(f"staging_bucket={quote(staging)} has an empty part between two slashes. Remove it.")
    return f"gs://{bucket}/{path}".rstrip("/")


def to_gs_uri(source: str) -> str | None:
    """Return the ``gs://`` form of a Cloud Storage path that's written in another way, or None if it isn't one.

    Messages don't show the original address, because a signed one contains a secret.
    """
    text = source.strip()
    match = _OTHER_FORMS.match(text)
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
_OTHER_FORMS: Final = re.compile(
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
    """Check the name of a bucket and return it.

    Raises:
        InvalidArgumentError: Cloud Storage doesn't allow it.
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
            f"{quote(bucket)} in {quote(source)} can't be a bucket. A bucket's name has 3 to 63 lower-case letters, "
            "digits, dashes, underscores and dots, and begins and ends with a letter or a digit."
        )
    return bucket


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _digest(*parts: str) -> str:
    """Return 160 bits of SHA-256 as 32 characters that IDs, aliases and labels allow."""
    packed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return base64.b32encode(hashlib.sha256(packed).digest()[:20]).decode().lower()
