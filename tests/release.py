"""Check the packages as users get them: ``make release-check``.

It builds the sdist, and the wheel from the sdist alone. It installs them on every Python that this machine has, each
into an environment of its own, and runs the behaviour suite of the sdist against the installed wheel.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
OLDEST: Final = (3, 11)

#: For each extra: what fails without it, and the sentence that the user reads.
WITHOUT: Final = {
    "cli": (
        "import sys; from vertex_registry.cli import main; sys.argv = ['vertex-registry', 'models', 'list']; main()",
        "pip install 'vertex-registry[cli]'",
    ),
    "pandas": (
        "from vertex_registry import local_registry\nwith local_registry() as r: r.list_models().to_pandas()",
        "pip install 'vertex-registry[pandas]'",
    ),
    "storage": (
        "from vertex_registry import RegistryClient\nRegistryClient(project='acme').download('gs://models/churn')",
        'pip install "vertex-registry[storage]"',
    ),
    "mlflow": ("import vertex_registry.mlflow", "No module named 'mlflow'"),  # only MLflow itself imports it
    "emulator": (
        "from vertex_registry.emulator import Emulator\nwith Emulator(rest_port=0): pass",
        "pip install 'vertex-registry[emulator]'",
    ),
    "ui": (
        "from vertex_registry.ui._rendering import environment\nenvironment()",
        "pip install 'vertex-registry[ui]'",
    ),
    "zenml": ("import vertex_registry.zenml", 'pip install zenml "vertex-registry[zenml]"'),
}
#: For each extra: what works with it.
WITH: Final = {
    "cli": "import sys; from vertex_registry.cli import main; sys.argv = ['vertex-registry', '--help']; main()",
    "pandas": (
        "from vertex_registry import local_registry\n"
        "with local_registry() as r:\n"
        "    r.register_version('churn', 'gs://models/churn/1')\n"
        "    assert len(r.list_versions('churn').to_pandas()) == 1"
    ),
    "storage": "import tqdm, google.cloud.storage, vertex_registry.artifacts",
    "emulator": "from vertex_registry.emulator import Emulator\nwith Emulator(rest_port=0) as e: assert e.rest",
    "ui": "import aiohttp\nfrom vertex_registry.ui._rendering import environment\nenvironment()",
    "mlflow": "import vertex_registry.mlflow, vertex_registry.mlflow_artifacts",
    "zenml": "from vertex_registry.zenml import VertexModelRegistryFlavor as F; assert F().name == 'vertex'",
}
#: A first version without a cloud, and what a package must know about itself.
SMOKE: Final = """
import importlib.metadata, pathlib, warnings
warnings.filterwarnings("error", module="vertex_registry")
import vertex_registry
from vertex_registry import Stage, local_registry
where = pathlib.Path(vertex_registry.__file__)
assert where.is_relative_to(pathlib.Path({prefix!r}).resolve()), where
assert vertex_registry.__version__ == importlib.metadata.version("vertex-registry") == {version!r}
with local_registry() as registry:
    for number in (1, 2):
        registry.register_version("churn", f"gs://models/churn/{{number}}", metadata={{"accuracy": number / 10}})
        registry.set_stage("churn", number, Stage.PRODUCTION, archive_existing=True)
    assert registry.rollback("churn").restored.version == "1"
"""
#: A use that type checkers must accept, and one that they must refuse.
TYPED: Final = "from vertex_registry import RegistryClient\n\nname: str = RegistryClient().get_model('churn').name\n"
MISTYPED: Final = "from vertex_registry import RegistryClient\n\nRegistryClient().get_model(7)\n"


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201 - a command


def run(*words: str | Path, folder: Path | None = None, wanted: int | None = 0) -> str:
    """Run a program in an environment that doesn't know this repository, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment | {"PYTHONWARNINGS": "ignore::FutureWarning"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if wanted is not None and done.returncode != wanted:
        sys.exit(f"{' '.join(map(str, words))[:300]}\n{done.stdout[-6_000:]}\nended with {done.returncode}")
    return done.stdout


def pythons() -> dict[str, Path]:
    """Return one interpreter for each version of Python that this machine has, by its version."""
    places = [Path(place) for place in os.environ["PATH"].split(os.pathsep)]
    places += Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    found: dict[str, Path] = {}
    for place in [*places, Path(sys.base_prefix, "bin")]:
        for program in sorted(place.glob("python3.*")):
            name = re.fullmatch(r"python(3)\.(\d+)", program.name)
            if name and (int(name[1]), int(name[2])) >= OLDEST:
                answer = run(program, "-c", "import sys; print(*sys.version_info[:2], sep='.')", wanted=None).strip()
                if re.fullmatch(r"3\.\d+", answer):
                    found.setdefault(answer, program)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def build(folder: Path) -> tuple[Path, Path, Path]:
    """Build the sdist, and the wheel from the unpacked sdist. Return both, and the folder with the sdist's files."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    files = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=files)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel, files


def wrong_in_wheel(wheel: Path) -> list[str]:
    """Return what is missing in a wheel, and what doesn't belong in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vertex_registry").rglob("*.py")}
    wanted = {*sources, "vertex_registry/py.typed", f"{info}/licenses/LICENSE"}
    header, _, readme = metadata.partition("\n\n")
    wrong = [f"{name} is missing" for name in sorted(wanted - set(names))]
    wrong += [
        f"{name} doesn't belong in the wheel"
        for name in names
        if not name.startswith(("vertex_registry/", f"{info}/")) or re.search(r"(^|/)(tests?|conftest)[/._]|\.db", name)
    ]
    wrong += [f"{link} is a relative link" for link in re.findall(r"\]\((?![a-z]+:|#)([^)]*)\)", readme)]
    wrong += [
        f"the extra {extra} is missing"
        for extra in project["optional-dependencies"]
        if f"Extra: {extra}" not in header.replace("Provides-", "")
    ]
    wrong += [
        f"the entry point {value} is missing" for value in project["scripts"].values() if value not in entry_points
    ]
    if "License-Expression: Apache-2.0" not in header:
        wrong.append("the licence isn't named")
    return wrong


class Environment:
    """A fresh virtual environment."""

    def __init__(self, folder: Path, python: Path, *packages: str | Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        run("uv", "venv", "--quiet", "--python", python, folder)
        self.install(*packages)

    def install(self, *words: str | Path) -> None:
        """Install packages."""
        run("uv", "pip", "install", "--quiet", "--python", self.python, *words)

    def check(self, code: str, *, wanted: int | None = 0) -> str:
        """Run code in an empty folder."""
        with tempfile.TemporaryDirectory() as empty:
            return run(self.python, "-c", code, folder=Path(empty), wanted=wanted)


def check_types(environment: Environment, folder: Path) -> None:
    """Let mypy and pyright check a use of the installed package, and a wrong one."""
    environment.install("mypy", "pyright[nodejs]")
    for file, code, wanted in [("right.py", TYPED, 0), ("wrong.py", MISTYPED, 1)]:
        (folder / file).write_text(code, encoding="utf-8")
        run(environment.python, "-m", "mypy", "--strict", file, folder=folder, wanted=wanted)
        run(environment.python, "-m", "pyright", "--pythonpath", environment.python, file, folder=folder, wanted=wanted)


def check_extras(folder: Path, python: Path, wheel: Path) -> None:
    """Check what a user reads without an extra, and that it works with it."""
    bare = Environment(folder / "bare", python, wheel)
    # Google's SDK brings it, in an older version that the extra excludes. Without it, the sentence shows.
    run("uv", "pip", "uninstall", "--quiet", "--python", bare.python, "google-cloud-storage", "google-crc32c")
    for extra, (code, sentence) in WITHOUT.items():
        answer = bare.check(code, wanted=None)
        if sentence not in answer:
            sys.exit(f"Without [{extra}], the user reads:\n{answer}")
        Environment(folder / extra, python, f"{wheel}[{extra}]").check(WITH[extra])
        say(f"  extra [{extra}]: works with it; without it: {answer.strip().splitlines()[-1]}")


def main() -> None:
    """Check the packages, and end at the first thing that's wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="check on this version only, such as 3.12")
    parser.add_argument("--select", default="grpc", help="the -k of pytest (default: the suite over gRPC)")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `uv` is installed here

    with tempfile.TemporaryDirectory(prefix="release-") as temporary:
        folder = Path(temporary)
        sdist, wheel, files = build(folder)
        if wrong := wrong_in_wheel(wheel):
            sys.exit("\n".join(wrong))
        version = wheel.name.split("-")[1]
        say(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB; {sdist.name}: {sdist.stat().st_size / 1024:.0f} KiB")
        shutil.rmtree(files / "vertex_registry")  # the suite must meet the installed package

        found = {name: path for name, path in pythons().items() if not options.python or name in options.python}
        if missing := set(options.python or []) - set(found):
            sys.exit(f"This machine doesn't have Python {', '.join(sorted(missing))}. It has {', '.join(pythons())}.")
        for number, (name, python) in enumerate(found.items()):
            say(f"Python {name} ({python})")
            for package in (wheel, sdist):
                kind = "sdist" if package is sdist else "wheel"
                environment = Environment(folder / f"{kind}-{name}", python, package)
                environment.check(SMOKE.format(prefix=str(environment.folder), version=version))
                say(f"  {kind} alone: a version registered, promoted and rolled back")
                if package is wheel:
                    wheels = environment
            if number == 0:
                check_extras(folder, python, wheel)
                check_types(wheels, folder)
                say("  mypy and pyright read the types")
            wheels.install("--group", f"{files / 'pyproject.toml'}:test")
            suite = ("-m", "pytest", "-q", "-n", "2", "-k", options.select, "tests/behaviour")
            say(f"  {run(wheels.python, *suite, folder=files).splitlines()[-1]}")


if __name__ == "__main__":
    main()
