"""Serving images: which container serves a model, and which files it loads.

Vertex serves a model from a container image. For four frameworks Google publishes prebuilt ones; the same image lies in
three Artifact Registry hosts, one a multi-region. The tables below are Google's, and code, docs and tests read them:

- ``PREBUILT``: every framework and version there is an image for, and the day the image stops being served. Source:
  https://docs.cloud.google.com/vertex-ai/docs/predictions/pre-built-containers, as of ``READ_ON``. Images
  leave the public list when their day has come, although Google's own SDK goes on offering them.
- ``FILES``: what each framework's image looks for in the artifact directory. Vertex refuses an upload whose directory
  does not hold *exactly one* of them, so it is refused here first.

Which host is nearest is decided by the continent that the location's name begins with. Google publishes no such table;
sending Africa and the Middle East to Europe, and a location of no known continent to the United States, is our choice.

There is no image for scikit-learn 1.7 or later, nor for XGBoost 3: a model written by one of these needs the caller's
own image, or has to be written by an earlier version.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Final

from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

READ_ON: Final = date(2026, 11, 24)

_NOV_2024: Final = date(2024, 11, 15)
_JAN_2027: Final = date(2027, 1, 14)

# Newest first. The value is the "End of availability" of Google's table.
PREBUILT: Final[Mapping[str, Mapping[str, date]]] = {
    "sklearn": {
        "1.6": date(2027, 10, 14),
        "1.5": _JAN_2027,
        "1.4": _JAN_2027,
        "1.3": date(2025, 11, 28),
        "1.2": date(2025, 6, 30),
        "1.0": _NOV_2024,
        "0.24": _NOV_2024,
        "0.23": _NOV_2024,
        "0.22": _NOV_2024,
        "0.20": _NOV_2024,
    },
    "xgboost": {
        "2.1": _JAN_2027,
        "2.0": _JAN_2027,
        "1.7": date(2025, 12, 30),
        "1.6": _NOV_2024,
        "1.5": _NOV_2024,
        "1.4": _NOV_2024,
        "1.3": _NOV_2024,
        "1.2": _NOV_2024,
        "1.1": _NOV_2024,
        "0.90": _NOV_2024,
        "0.82": _NOV_2024,
    },
    "tensorflow": {
        "2.15": _JAN_2027,
        "2.14": _JAN_2027,
        "2.13": date(2025, 11, 28),
        "2.12": date(2025, 6, 30),
        "2.11": _NOV_2024,
        "2.10": _NOV_2024,
        "2.9": _NOV_2024,
        "2.8": _NOV_2024,
        "2.7": _NOV_2024,
        "2.6": _NOV_2024,
        "2.5": _NOV_2024,
        "2.4": _NOV_2024,
        "2.3": _NOV_2024,
        "2.2": _NOV_2024,
        "2.1": _NOV_2024,
        "1.15": _NOV_2024,
    },
    "pytorch": {
        "2.4": _JAN_2027,
        "2.3": _JAN_2027,
        "2.2": _JAN_2027,
        "2.1": date(2025, 12, 1),
        "2.0": date(2025, 7, 27),
        "1.13": date(2025, 5, 15),
        "1.12": date(2025, 5, 15),
        "1.11": date(2025, 5, 15),
    },
}

# Both of scikit-learn's names and both of TensorFlow's are in Vertex's own error texts. XGBoost's are those of "Import
# models to Vertex AI"; older copies of that page name model.pkl too, newer ones model.bst and model.joblib only.
FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "sklearn": ("model.joblib", "model.pkl"),
    "xgboost": ("model.bst", "model.joblib", "model.pkl"),
    "tensorflow": ("saved_model.pb", "saved_model.pbtxt"),
    "pytorch": ("model.mar",),
}

_WITH_GPU: Final = frozenset({"tensorflow", "pytorch"})

_HOSTS: Final[Mapping[str, str]] = {
    "us": "us",
    "northamerica": "us",
    "southamerica": "us",
    "europe": "europe",
    "africa": "europe",
    "me": "europe",
    "asia": "asia",
    "australia": "asia",
}

# What else a framework is called: by its package, and by Google in the names of its images.
_ALSO: Final[Mapping[str, str]] = {
    "scikit-learn": "sklearn",
    "scikit_learn": "sklearn",
    "tf": "tensorflow",
    "tf2": "tensorflow",
    "torch": "pytorch",
}

# The same images lay under cloud-aiplatform before, where they are still asked for: Google's own tests of its SDK name
# them at docker.pkg.dev, and Airflow's at gcr.io. That they load the same files is a guess.
_IMAGE: Final = re.compile(
    r"(?:(?:us|europe|asia)-docker\.pkg\.dev/(?:vertex-ai|cloud-aiplatform)|gcr\.io/cloud-aiplatform)/prediction/"
    r"(?P<framework>sklearn|xgboost|pytorch|tf2?)-(?:cpu|gpu|tpu)\.(?P<version>\d+-\d+)(?:[:@].*)?"
)


def default_image(location: str) -> str:
    """The newest scikit-learn image that Google serves, from the host nearest to the location.

    >>> default_image("europe-west4")
    'europe-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest'
    """
    return serving_image("sklearn", location)


def serving_image(spec: str, location: str, *, gpu: bool = False) -> str:
    """The URI of the image that ``spec`` means.

    >>> serving_image("xgboost:2.0", "australia-southeast1")
    'asia-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-0:latest'

    Args:
        spec: ``"sklearn"``, ``"xgboost"``, ``"tensorflow"`` or ``"pytorch"``, for its newest prebuilt image; with
            ``":version"`` behind it for that version's, of which the first two numbers count; or a full image URI,
            which is returned as it is. ``"scikit-learn"``, ``"tf"`` and ``"torch"`` will do, in capitals as well.
        location: The location the model is registered in. The prebuilt image comes from the nearest of three hosts.
        gpu: The image for machines with a GPU.

    Raises:
        InvalidArgumentError: There is no such prebuilt image; the message lists those there are.
    """
    if "/" in spec:
        if gpu:
            raise InvalidArgumentError(
                f"gpu=True chooses among prebuilt images, and {spec!r} is an image already. Leave gpu out."
            )
        return spec
    framework, _, version = spec.strip().partition(":")
    framework = _ALSO.get(framework.lower(), framework.lower())
    if framework not in PREBUILT:
        raise InvalidArgumentError(
            f"There is no prebuilt serving image {spec!r}. Name one of {', '.join(sorted(PREBUILT))}, optionally with "
            "a version behind a colon (sklearn:1.5), or give an image's full URI (HOST/PROJECT/REPOSITORY/IMAGE:TAG)."
        )
    minor = _minor(version) if version not in {"", "latest"} else next(iter(PREBUILT[framework]))
    if minor not in PREBUILT[framework]:
        raise InvalidArgumentError(
            f"There is no prebuilt serving image for {framework} {version}. There are images for "
            f"{', '.join(PREBUILT[framework])}. For another version give the full URI of an image of your own."
        )
    if gpu and framework not in _WITH_GPU:
        raise InvalidArgumentError(
            f"The prebuilt images for {framework} have no GPU variant; those for {' and '.join(sorted(_WITH_GPU))} do."
        )
    return _uri(framework, minor, location, gpu=gpu)


def image_for_sklearn(version: str, location: str, *, today: date | None = None) -> str | None:
    """The image that runs this very version of scikit-learn, or None when Google has none.

    A pickled estimator is only sure to load in the minor version that wrote it.

    Args:
        version: As in ``sklearn.__version__``, for example ``"1.5.2"``.
        location: The location the model is registered in.
        today: With a date, an image that is no longer served on that day does not count.
    """
    minor = _minor(version)
    if minor not in PREBUILT["sklearn"]:
        return None
    image = _uri("sklearn", minor, location)
    return None if today is not None and retired(image, today) else image


def retired(image: str, today: date) -> date | None:
    """The day from which the prebuilt image is no longer served, if that day has come; None if not, or not known."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return None
    end = PREBUILT[_framework(match)].get(match["version"].replace("-", "."))
    return end if end is not None and end <= today else None


def files_of(image: str) -> tuple[str, ...]:
    """The file names of which the prebuilt image loads one; empty for any other image.

    >>> files_of("us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest")
    ('model.joblib', 'model.pkl')
    """
    match = _IMAGE.fullmatch(image)
    return FILES[_framework(match)] if match else ()


def check_directory(names: Iterable[str], image: str, *, where: str) -> None:
    """Refuse a directory that the image could not load, as Vertex would.

    Vertex says of such an upload: "Model directory … is expected to contain exactly one of: [model.pkl, model.joblib]."

    Args:
        names: The paths of the directory's files, relative to it. Only files at its top count.
        image: The URI of the serving image. One that is not prebuilt loads what it likes.
        where: The directory, for the message.

    Raises:
        InvalidArgumentError: It does not hold exactly one of the image's files.
    """
    expected = files_of(image)
    there = sorted(set(names))
    found = [name for name in there if name in expected]
    if not expected or len(found) == 1:
        return
    wanted = expected[0] if len(expected) == 1 else f"exactly one of {', '.join(expected)}"
    name = "that name" if len(expected) == 1 else "one of these names"
    if found:
        problem = f"It holds {' and '.join(found)}. Remove all but one"
    elif not there:
        problem = f"There are no files in it. Save the model under {name}"
    else:
        shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
        problem = f"It holds {shown}. Save the model under {name}, at the top of the directory"
    raise InvalidArgumentError(
        f"{where} cannot be served by {image}, which loads {wanted}. {problem}, or name another image with container=.",
        resource=where,
    )


_SHOWN: Final = 5


def _minor(version: str) -> str:
    return ".".join(version.strip().split(".")[:2])


def _framework(match: re.Match[str]) -> str:
    return "tensorflow" if match["framework"].startswith("tf") else match["framework"]


def _uri(framework: str, minor: str, location: str, *, gpu: bool = False) -> str:
    host = _HOSTS.get(location.lower().partition("-")[0], "us")
    name = framework if framework != "tensorflow" else "tf" if minor.startswith("1.") else "tf2"
    return (
        f"{host}-docker.pkg.dev/vertex-ai/prediction/{name}-{'gpu' if gpu else 'cpu'}.{minor.replace('.', '-')}:latest"
    )
