"""What a local registry can be kept in."""

from __future__ import annotations

import pytest

from vertex_registry import InvalidArgumentError, local_registry


@pytest.mark.parametrize("path", [5, 5.0, True, b"registry.db", "", "nul\0byte", ["registry.db"], object()])
def test_what_is_no_path(path: object) -> None:
    """What can't be the path of a file is an error of ours, and names what to do."""
    with pytest.raises(InvalidArgumentError, match=r"isn't the path of a file\. Leave it out"):
        local_registry(path)  # type: ignore[arg-type]  # that is the point
