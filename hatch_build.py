"""Fits the README to a package index, where a relative link leads nowhere. Part of building the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def readme_for_index(text: str, files: str | None) -> str:
    """Return the README with absolute links.

    Args:
        text: The README as it's in the repository.
        files: The address that a file's path is appended to. If it's None, a relative link becomes its text, and a
            relative image disappears.
    """
    text = re.sub(r"(?m)^> \[![A-Z]+\]\n", "", text)  # an index shows the marker of an admonition as text
    if files is None:
        text = re.sub(r"(?m)^!\[[^\]]*\]\((?![a-z]+:)[^)]*\)\n+", "", text)
        return re.sub(r"\[([^\]]*)\]\((?![a-z]+:|#)[^)]*\)", r"\1", text)
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)", rf"\g<1>{files.replace('/blob/', '/raw/')}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?![a-z]+:|#)", rf"\g<1>{files}/", text)


class ReadmeHook(MetadataHookInterface):
    """Puts the fitted README into the package's metadata."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README, with links into the repository that ``[project.urls]`` names, if there is one."""
        source = metadata.get("urls", {}).get("Source")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        files = f"{source.rstrip('/')}/blob/v{metadata['version']}" if source else None
        metadata["readme"] = {"content-type": "text/markdown", "text": readme_for_index(text, files)}
