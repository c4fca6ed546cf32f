"""Serving images: which container serves a model, and which files it loads.

The tables are Google's; code, docs and tests read them. Google doesn't say which image host is nearest to a location,
so that's decided by the continent in the location's name. scikit-learn 1.7 and XGBoost 3 have no image.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Final

from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: When `PREBUILT` was copied from https://docs.cloud.google.com/vertex-ai/docs/predictions/pre-built-containers.
READ_ON: Final = date(2026, 11, 24)

_NOV_2024: Final = date(2024, 11, 15)
_JAN_2027: Final = date(2027, 1, 14)

#: The frameworks, their versions that have an image (newest first), and Google's "End of availability" of each image.
#: Images leave the public list on that day, although Google's SDK still offers them.
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

#: The files that each framework's image looks for in the artifact's directory. Vertex refuses a directory that doesn't
#: contain exactly one of them.
# Vertex's own error texts have both names of scikit-learn and both of TensorFlow. Those of XGBoost are in "Import
# models to Vertex AI"; older copies of that page name model.pkl too, newer ones model.bst and model.joblib only.
MODEL_FILES: Final[Mapping[str, tuple[str, ...]]] = {
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

# Other names of the frameworks: their packages, and Google's names in image URIs.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "scikit-learn": "sklearn",
    "scikit_learn": "sklearn",
    "tf": "tensorflow",
    "tf2": "tensorflow",
    "torch": "pytorch",
}

# The images used to be under cloud-aiplatform, and people still use those URIs: Google's own tests at docker.pkg.dev,
# and Airflow's at gcr.io. That they load the same files is a guess.
_IMAGE: Final = re.compile(
    r"(?:(?:us|europe|asia)-docker\.pkg\.dev/(?:vertex-ai|cloud-aiplatform)|gcr\.io/cloud-aiplatform)/prediction/"
    r"(?P<framework>sklearn|xgboost|pytorch|tf2?)-(?:cpu|gpu|tpu)\.(?P<version>\d+-\d+)(?:[:@].*)?"
)


def default_image(location: str) -> str:
    """Return the newest scikit-learn image that Google serves, from the host nearest to the location.

    >>> default_image("europe-west4")
    'europe-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest'
    """
    return serving_image("sklearn", location)


def serving_image(spec: str, location: str, *, gpu: bool = False) -> str:
    """Return the URI of the image that ``spec`` means.

    >>> serving_image("xgboost:2.0", "australia-southeast1")
    'asia-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-0:latest'

    Args:
        spec: ``"sklearn"``, ``"xgboost"``, ``"tensorflow"`` or ``"pytorch"`` for the framework's newest prebuilt image,
            or with ``":version"`` for the image of that version (its first two numbers count). A full image URI is
            returned as it is. ``"scikit-learn"``, ``"tf"`` and ``"torch"`` work too, in any case.
        location: The location that the model is registered in. The nearest of the three image hosts is used.
        gpu: Whether to return the image for machines with a GPU. Defaults to the one for CPUs.

    Raises:
        InvalidArgumentError: No such prebuilt image exists. The message lists those that do.
    """
    if "/" in spec:
        if gpu:
            raise InvalidArgumentError(
                f"gpu=True only works with the name of a framework, and {quote(spec)} is an image. Leave gpu out."
            )
        return spec
    framework, _, version = spec.strip().partition(":")
    framework = _OTHER_NAMES.get(framework.lower(), framework.lower())
    if framework not in PREBUILT:
        raise InvalidArgumentError(
            f"There's no prebuilt serving image {quote(spec)}. Use {', '.join(sorted(PREBUILT))}, optionally with a "
            "version after a colon (sklearn:1.5), or the full URI of an image (HOST/PROJECT/REPOSITORY/IMAGE:TAG)."
        )
    minor = _minor(version) if version not in {"", "latest"} else next(iter(PREBUILT[framework]))
    if minor not in PREBUILT[framework]:
        raise InvalidArgumentError(
            f"There's no prebuilt serving image for {framework} {version}, only for {', '.join(PREBUILT[framework])}. "
            "For another version, pass the full URI of your own image."
        )
    if gpu and framework not in _WITH_GPU:
        raise InvalidArgumentError(
            f"There's no prebuilt GPU image for {framework}, only for {' and '.join(sorted(_WITH_GPU))}. Leave gpu out."
        )
    return _uri(framework, minor, location, gpu=gpu)


def image_of(framework: str, version: str, location: str, *, today: date | None = None) -> str | None:
    """Return the image that runs a version of a framework, or None if Google has none.

    A pickled estimator is only certain to load in the minor version that wrote it.

    Args:
        framework: The framework, by its key in `PREBUILT`.
        version: The version, as in ``sklearn.__version__``: for example ``"1.5.2"``.
        location: The location that the model is registered in.
        today: A date on which the image has to be supported. Defaults to accepting unsupported images.
    """
    minor = _minor(version)
    if minor not in PREBUILT[framework]:
        return None
    image = _uri(framework, minor, location)
    return None if today is not None and unsupported_since(image, today) else image


def unsupported_since(image: str, today: date) -> date | None:
    """Return since when a prebuilt image isn't supported, or None if it is, or if that isn't known."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return None
    end = PREBUILT[_framework(match)].get(match["version"].replace("-", "."))
    return end if end is not None and end <= today else None


def model_files(image: str) -> tuple[str, ...]:
    """Return the names of files that a prebuilt image can load; empty for any other image.

    >>> model_files("us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest")
    ('model.joblib', 'model.pkl')
    """
    match = _IMAGE.fullmatch(image)
    return MODEL_FILES[_framework(match)] if match else ()


def check_directory(names: Iterable[str], image: str, *, where: str) -> None:
    """Check that the image can load a directory, as Vertex does.

    Vertex's own error is: "Model directory … is expected to contain exactly one of: [model.pkl, model.joblib]."

    Args:
        names: The paths of the directory's files, relative to it. Only files at its top level count.
        image: The URI of the serving image. One that isn't prebuilt may load anything.
        where: The directory, for the message.

    Raises:
        InvalidArgumentError: It doesn't contain exactly one of the files that the image loads.
    """
    expected = model_files(image)
    present = sorted(set(names))
    found = [name for name in present if name in expected]
    if not expected or len(found) == 1:
        return
    wanted = expected[0] if len(expected) == 1 else f"exactly one of {', '.join(expected)}"
    name = "that name" if len(expected) == 1 else "one of these names"
    if found:
        problem = f"The directory has {' and '.join(found)}. Remove all but one"
    elif not present:
        problem = f"The directory is empty. Save the model under {name}"
    else:
        listed = ", ".join(present[:_MOST_LISTED])
        more = f" and {len(present) - _MOST_LISTED} more" if len(present) > _MOST_LISTED else ""
        problem = f"The directory has {listed}{more}. Save the model under {name}, at its top level"
    raise InvalidArgumentError(
        f"{where} can't be served by {image}, which loads {wanted}. {problem}, or set container= to another image.",
        resource=where,
    )


_MOST_LISTED: Final = 5


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
