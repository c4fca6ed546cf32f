"""The example on the page about storage that needs a bucket: it runs as it's shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.storage.server import StorageServer

PAGE: Final = (Path(__file__).parents[2] / "docs" / "storage.md").read_text(encoding="utf-8")


def test_the_example_with_a_bucket(storage_emulator: StorageServer) -> None:
    """A folder is uploaded once, and downloaded again."""
    storage_emulator.make_bucket("models")
    (code,) = re.findall(r"```python\n# upload.py\n(.*?)```", PAGE, re.DOTALL)

    exec(code, {})  # noqa: S102 - the page's own example

    assert [name.rpartition("/")[2] for name in storage_emulator.names("models")] == ["model.bst"]
