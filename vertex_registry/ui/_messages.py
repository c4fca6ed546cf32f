"""What an error says on the site: addresses in place of Python's names. Pure."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT: Final = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""


def _list_models(_match: re.Match[str]) -> str:
    return "models{ending} lists"


def _list_versions(match: re.Match[str]) -> str:
    return f"{_model(match)} lists"


def _newest(match: re.Match[str]) -> str:
    return f"{_model(match)} lists the newest one first"


def _in_stage(match: re.Match[str]) -> str:
    return f"{_model(match, stage=match[2])} lists those in {match[2]}"


def _model(match: re.Match[str], **parameters: str) -> str:
    query = urlencode({"name": ast.literal_eval(match[1])} | parameters, quote_via=quote, errors="replace")
    return f"model{{ending}}?{query}"


#: What messages say in Python, and what they say here, with ``{ending}`` for ``.json`` in JSON.
_RULES: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"register_version\({_TEXT}, \.\.\.\) creates one; (?=list_models)", ""),
        (r"list_models\(\) shows", _list_models),
        (rf"list_versions\({_TEXT}\) shows", _list_versions),
        (rf"Call get_version\({_TEXT}, stage='\w+'\) for the one in (\w+)", _in_stage),
        (rf"Call latest_version\({_TEXT}\) for the newest one", _newest),
        (r"Pass its number .*, or its name as version_name=\.", "Give its number, an alias or its name."),
        (r"(?:this|but this) client is for (\S+)\. Create .*", r"but this site is for \1."),
        (r" ?Retry\([a-z_]+=\.\.\.\) sets [^.]*\.", ""),
        (r"RegistryClient\((\w+)=\.\.\.\)", r"--\1"),
        (r"local_registry\(\)", "--local"),
        (r"endpoint='([^']*)'", r"--endpoint \1"),
    )
)


def translate(message: str, ending: str) -> str:
    """Return a message of the package as a reader of the site needs it.

    Args:
        message: The message.
        ending: What the addresses of pages end in: ``.json`` for a reader of JSON, or an empty text.
    """
    for pattern, replacement in _RULES:
        message = pattern.sub(replacement, message)
    return message.replace("{ending}", ending)
