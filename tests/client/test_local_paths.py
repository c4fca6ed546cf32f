"""Where a local registry can keep its data."""

from __future__ import annotations

import pytest

from vertex_registry import InvalidArgumentError, local_registry


@pytest.mark.parametrize("path", [5, 5.0, True, b"registry.db", "", "nul\0byte", ["registry.db"], object()])
def test_an_invalid_path(path: object) -> None:
    """The error for a value that isn't the path of a file says what to do."""
    with pytest.raises(InvalidArgumentError, match=r"isn't the path of a file\. Leave it out"):
        local_registry(path)  # type: ignore[arg-type]  # that is the point
