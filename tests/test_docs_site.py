"""The documentation's site: every page is in the menu, and every public name has its place in the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import vertex_registry
from tests import terminal

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages(menu: list[Any]) -> list[str]:
    """Return the pages of a menu, in order."""
    found: list[str] = []
    for entry in menu:
        (target,) = entry.values()
        found += pages(target) if isinstance(target, list) else [target]
    return found


def test_every_page_is_in_the_menu_once() -> None:
    """A page that's in no menu can't be found, and a menu names no page twice."""
    menu = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])

    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_public_name_is_in_the_reference_once() -> None:
    """The reference shows the docstring of each name that can be imported from the package."""
    shown = [
        name
        for page in DOCS.glob("api/*.md")
        for name in re.findall(r"(?m)^::: vertex_registry\.(\S+)", page.read_text())
    ]

    assert sorted({*vertex_registry.__all__} - {"__version__"}) == sorted(name for name in shown if "." not in name)


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), ROOT / "README.md"], ids=lambda page: page.name)
def test_links_stay_in_the_docs(page: Path) -> None:
    """A page of the site links to no file outside, which the site wouldn't have; the README's links exist."""
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve()
        assert linked.exists(), target
        if page.name != "README.md":
            assert linked.is_relative_to(DOCS), target


#: Pages with examples that aren't run where they are, and the tests that run them as whole files.
RUN_AS_FILES: Final = {
    "airflow.md": "examples/run_airflow.py",
    "cloud-run.md": "tests/client/test_embedding.py",
    "embedding.md": "tests/client/test_embedding.py",
    "kubeflow.md": "examples/run_kubeflow.py",
    "projects.md": "tests/client/test_embedding.py",
    "storage.md": "tests/artifacts/test_storage_page.py",
    "testing.md": "tests/pytest_plugin/test_testing_page.py",
    "zenml.md": "tests/adapter/test_guide.py",
}


def test_no_example_has_a_hidden_part() -> None:
    """What a reader sees is what runs. An example that's skipped is a whole file, which another test runs."""
    skipping = {page.name for page in DOCS.glob("*.md") if "<!-- skip:" in page.read_text(encoding="utf-8")}
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        assert "invisible-code-block" not in page.read_text(encoding="utf-8"), page.name

    assert skipping == set(RUN_AS_FILES)
    assert all((ROOT / test).exists() for test in RUN_AS_FILES.values())


@pytest.mark.parametrize(("page", "file"), [("airflow.md", "airflow_dag.py"), ("kubeflow.md", "kubeflow_pipeline.py")])
def test_examples_of_pipelines_are_those_that_run(page: str, file: str) -> None:
    """The page shows the file that `make airflow` and `make kubeflow` run, without its docstring."""
    (shown,) = re.findall(rf"```python\n# {file}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)

    assert (ROOT / "examples" / file).read_text(encoding="utf-8").endswith(f'"""\n\n{shown}')


def test_every_error_has_a_way_out() -> None:
    """The page about recovery has a heading with each error."""
    headings = " ".join(re.findall(r"(?m)^## (.*)", (DOCS / "recover.md").read_text(encoding="utf-8")))
    errors = {name for name in vertex_registry.__all__ if name.endswith("Error")} - {"RegistryError"}

    assert set(re.findall(r"\w+Error", headings)) == errors


def test_every_environment_variable_is_on_the_page() -> None:
    """Each variable that the code reads by itself has a row."""
    shown = set(re.findall(r"`([A-Z_]{5,})`", (DOCS / "environment.md").read_text(encoding="utf-8")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "vertex_registry").rglob("*.py"))
    constants = dict(re.findall(r'(?m)^(\w+)(?:: Final)? = "([A-Z_]+)"', code))
    given = re.findall(r'\benviron(?:\.get\(|\[)(?:"(\w+)"|(?:\w+\.)?([A-Z_]+)\b)', code)
    read = {name or constants[constant] for name, constant in given}

    assert read - shown == set()
    assert len(read) >= 7


def test_examples_in_docstrings_are_shown_as_code() -> None:
    """The site shows `>>>` as code only under `Examples:`."""
    public = ["_client", "_listing", "_records", "_stages", "_waiting", "_history", "local", "errors"]
    for name in public:
        lines = (ROOT / "vertex_registry" / f"{name}.py").read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if line.lstrip().startswith(">>> ") and not lines[number - 1].lstrip().startswith((">>>", "...")):
                assert lines[number - 1].strip() == "Examples:", f"{name}.py:{number + 1}"


def test_the_picture_shows_what_the_page_shows() -> None:
    """The README's picture is drawn from a console block, which a test runs: `python -m tests.terminal`."""
    assert terminal.picture() == terminal.FILE.read_text(encoding="utf-8")
