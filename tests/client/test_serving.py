"""Serving images: the tables agree with Google's package, and what can't be served is refused."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from google.cloud.aiplatform.constants import prediction
from hypothesis import given
from hypothesis import strategies as st

from vertex_registry import _serving
from vertex_registry.errors import InvalidArgumentError

US = "us-docker.pkg.dev/vertex-ai/prediction/"


def all_images(location: str) -> list[tuple[str, str, str]]:
    """Yield every framework, version and image of the table, with GPU variants."""
    return [
        (framework, version, _serving.serving_image(f"{framework}:{version}", location, gpu=gpu))
        for framework, versions in _serving.PREBUILT.items()
        for version in versions
        for gpu in ((False, True) if framework in {"tensorflow", "pytorch"} else (False,))
    ]


def test_the_table_agrees_with_googles_package() -> None:
    """You can name exactly the images that Google's SDK knows."""
    ours = {image for location in ("us-east1", "europe-west1", "asia-east1") for _, _, image in all_images(location)}

    assert ours == set(prediction.SERVING_CONTAINER_URIS)


def test_the_newest_version_comes_first() -> None:
    """A framework without a version means its newest image, which is supported longest."""
    for framework, versions in _serving.PREBUILT.items():
        numbers = [tuple(map(int, version.split("."))) for version in versions]

        assert numbers == sorted(numbers, reverse=True)
        assert next(iter(versions.values())) == max(versions.values())
        assert _serving.serving_image(framework, "us-central1") == _serving.serving_image(
            f"{framework}:{next(iter(versions))}", "us-central1"
        )


def test_the_default_image_was_served_when_the_table_was_read() -> None:
    """The default image is still supported."""
    assert _serving.unsupported_since(_serving.default_image("us-central1"), _serving.READ_ON) is None


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-central1", "us"),
        ("us", "us"),
        ("northamerica-northeast1", "us"),
        ("southamerica-east1", "us"),
        ("europe-west4", "europe"),
        ("me-west1", "europe"),
        ("africa-south1", "europe"),
        ("asia-northeast1", "asia"),
        ("australia-southeast1", "asia"),
        ("Europe-West4", "europe"),
        ("global", "us"),
        ("mars-north1", "us"),
    ],
)
def test_the_image_comes_from_the_nearest_host(location: str, host: str) -> None:
    """Every location has a host, even if Google's own function has none."""
    assert _serving.default_image(location) == f"{host}-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"


@pytest.mark.parametrize(
    ("spec", "gpu", "image"),
    [
        ("sklearn", False, f"{US}sklearn-cpu.1-6:latest"),
        ("sklearn:1.5", False, f"{US}sklearn-cpu.1-5:latest"),
        ("sklearn:1.5.2", False, f"{US}sklearn-cpu.1-5:latest"),
        ("xgboost", False, f"{US}xgboost-cpu.2-1:latest"),
        ("tensorflow", True, f"{US}tf2-gpu.2-15:latest"),
        ("tensorflow:1.15", False, f"{US}tf-cpu.1-15:latest"),
        ("pytorch", False, f"{US}pytorch-cpu.2-4:latest"),
        ("pytorch:2.2", True, f"{US}pytorch-gpu.2-2:latest"),
        ("pytorch:latest", False, f"{US}pytorch-cpu.2-4:latest"),
        ("scikit-learn", False, f"{US}sklearn-cpu.1-6:latest"),
        ("Scikit-Learn:1.5", False, f"{US}sklearn-cpu.1-5:latest"),
        ("scikit_learn", False, f"{US}sklearn-cpu.1-6:latest"),
        ("XGBoost", False, f"{US}xgboost-cpu.2-1:latest"),
        ("tf", False, f"{US}tf2-cpu.2-15:latest"),
        ("tf2:2.14", False, f"{US}tf2-cpu.2-14:latest"),
        ("tf:1.15", True, f"{US}tf-gpu.1-15:latest"),
        ("torch", True, f"{US}pytorch-gpu.2-4:latest"),
        ("eu.gcr.io/acme/server:3", False, "eu.gcr.io/acme/server:3"),
    ],
)
def test_a_framework_is_enough_to_name_an_image(spec: str, gpu: bool, image: str) -> None:
    """A framework, with or without a version, means a prebuilt image; a full URI means itself."""
    assert _serving.serving_image(spec, "us-central1", gpu=gpu) == image


@pytest.mark.parametrize(
    ("spec", "gpu", "says"),
    [
        ("sklearn:1.7", False, "no prebuilt serving image for sklearn 1.7, only for 1.6, 1.5"),
        ("sklearn:1.7.1", False, "sklearn 1.7.1"),
        ("sklearn:1", False, "sklearn 1,"),
        ("xgboost", True, "only for pytorch and tensorflow"),
        ("onnx", False, "pytorch, sklearn, tensorflow, xgboost"),
        ("server:latest", False, "full URI"),
        ("", False, "Use pytorch"),
        ("sklearn==1.5", False, "a version after a colon (sklearn:1.5)"),
        ("gcr.io/acme/server:3", True, "Leave gpu out"),
    ],
)
def test_an_unknown_image_is_refused(spec: str, gpu: bool, says: str) -> None:
    """The error for an unknown image lists the available ones."""
    with pytest.raises(InvalidArgumentError) as caught:
        _serving.serving_image(spec, "us-central1", gpu=gpu)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("version", "image"),
    [
        ("1.6.1", f"{US}sklearn-cpu.1-6:latest"),
        ("1.5.0rc1", f"{US}sklearn-cpu.1-5:latest"),
        ("1.3.2", f"{US}sklearn-cpu.1-3:latest"),
        ("1.7.0", None),
        ("1.10.0", None),
        ("1.1.3", None),
        ("", None),
        ("?", None),
    ],
)
def test_the_image_follows_scikit_learn(version: str, image: str | None) -> None:
    """The minor version chooses the image; 1.1 and 1.7 or later have none."""
    assert _serving.image_of("sklearn", version, "us-central1") == image


def test_an_unsupported_image_does_not_match() -> None:
    """With a date, only images that are supported on that day match."""
    assert _serving.image_of("sklearn", "1.3.2", "us-central1", today=date(2026, 1, 1)) is None
    assert _serving.image_of("sklearn", "1.3.2", "us-central1", today=date(2025, 1, 1)) == f"{US}sklearn-cpu.1-3:latest"


def test_an_image_is_retired_from_its_last_day_on() -> None:
    """Each image of the table is supported until the day before its end."""
    for framework, version, image in all_images("asia-east1"):
        end = _serving.PREBUILT[framework][version]

        assert _serving.unsupported_since(image, end - timedelta(days=1)) is None
        assert _serving.unsupported_since(image, end) == end


@pytest.mark.parametrize(
    "image",
    [
        "gcr.io/acme/server:3",
        f"{US}sklearn-cpu.9-9:latest",
        f"evil.example/{US}sklearn-cpu.1-0:latest",
        f"{US}sklearn-cpu.1-0:latest\n",
        "us-dockerXpkg.dev/vertex-ai/prediction/sklearn-cpu.1-0:latest",
    ],
)
def test_an_unknown_image_is_not_known_to_be_retired(image: str) -> None:
    """An image that isn't in the table never counts as retired."""
    assert _serving.unsupported_since(image, date(2099, 1, 1)) is None


def test_every_prebuilt_image_loads_its_frameworks_files() -> None:
    """The files depend on the framework alone, even for a later version."""
    for framework, _, image in [*all_images("us-east1"), ("pytorch", "9.9", f"{US}pytorch-tpu.9-9:latest")]:
        assert _serving.model_files(image) == _serving.MODEL_FILES[framework]
    assert _serving.model_files("gcr.io/acme/server:3") == ()


@pytest.mark.parametrize(
    ("image", "framework"),
    [
        (f"{US}tf2-cpu.2-15:latest", "tensorflow"),
        ("europe-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1@sha256:0", "xgboost"),
        ("asia-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4", "pytorch"),
        ("us-docker.pkg.dev/cloud-aiplatform/prediction/tf2-cpu.2-5:latest", "tensorflow"),
        ("gcr.io/cloud-aiplatform/prediction/sklearn-cpu.0-24:latest", "sklearn"),
        ("gcr.io/vertex-ai/prediction/sklearn-cpu.1-5:latest", None),
        ("gcr.io/cloud-aiplatform/training/tf2-cpu.2-5:latest", None),
        ("us-central1-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest", None),
        ("us-docker.pkg.dev/acme/prediction/sklearn-cpu.1-5:latest", None),
    ],
)
def test_a_prebuilt_image_is_known_by_its_place(image: str, framework: str | None) -> None:
    """Google's images are recognized by host, project and folder, including the older ones."""
    assert _serving.model_files(image) == (_serving.MODEL_FILES[framework] if framework else ())


@given(
    extra=st.lists(st.sampled_from(["scaler.joblib", "sub/model.joblib", "metadata.json", "model.onnx", "Model.pkl"])),
    held=st.sets(st.sampled_from(sorted({name for names in _serving.MODEL_FILES.values() for name in names}))),
    framework=st.sampled_from(sorted(_serving.PREBUILT)),
)
def test_exactly_one_file_passes(extra: list[str], held: set[str], framework: str) -> None:
    """A directory is valid if exactly one of the image's files is at its top."""
    image = _serving.serving_image(framework, "us-central1")
    names = [*extra, *held]
    if len(held & set(_serving.MODEL_FILES[framework])) == 1:
        _serving.check_directory(names, image, where="gs://bucket/dir")
    else:
        with pytest.raises(InvalidArgumentError) as caught:
            _serving.check_directory(names, image, where="gs://bucket/dir")
        assert all(name in str(caught.value) for name in _serving.MODEL_FILES[framework])
        assert "gs://bucket/dir" in str(caught.value)
    _serving.check_directory(names, "gcr.io/acme/server:3", where="gs://bucket/dir")


def test_the_error_lists_what_was_found() -> None:
    """The error says what the image loads, what was found, and what to do."""
    with pytest.raises(InvalidArgumentError) as caught:
        _serving.check_directory(["artifact.pkl"], f"{US}sklearn-cpu.1-6:latest", where="./model")

    assert str(caught.value) == (
        "./model can't be served by us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest, which loads "
        "exactly one of model.joblib, model.pkl. The directory has artifact.pkl. Save the model under one of these "
        "names, at its top level, or set container= to another image."
    )
    with pytest.raises(InvalidArgumentError, match=r"a5.txt and 3 more\. Save"):
        _serving.check_directory([f"a{n}.txt" for n in range(1, 9)], f"{US}pytorch-cpu.2-4:latest", where="./model")
    with pytest.raises(InvalidArgumentError, match=r"The directory is empty"):
        _serving.check_directory([], f"{US}pytorch-cpu.2-4:latest", where="./model")
    with pytest.raises(
        InvalidArgumentError, match=r"The directory has model.joblib and model.pkl\. Remove all but one"
    ):
        _serving.check_directory(["model.pkl", "model.joblib"], f"{US}sklearn-cpu.1-6:latest", where="./model")


def test_the_docs_show_the_tables() -> None:
    """The tables on the page about serving are the ones in the code."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    names = {"sklearn": "scikit-learn", "xgboost": "XGBoost", "tensorflow": "TensorFlow", "pytorch": "PyTorch"}
    shown = {
        (framework, version): end
        for framework, versions, end in re.findall(r"^\| (\S+) \| ([\d., ]+) \| ([\d-]+) \|$", page, re.MULTILINE)
        for version in versions.split(", ")
    }
    files = dict(re.findall(r"^\| (\S+) \| (`model.*|`saved.*) \|$", page, re.MULTILINE))

    assert shown == {
        (names[framework], version): str(end)
        for framework, versions in _serving.PREBUILT.items()
        for version, end in versions.items()
    }
    assert files == {
        names[framework]: ", ".join(f"`{file}`" for file in loaded)
        for framework, loaded in _serving.MODEL_FILES.items()
    }
