"""What a message says at a shell: options and commands in place of Python's names, and what to type next. Pure.

A command in a message has the options that choose the registry, so it works as it's shown.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vertex_registry.cli._invocation import Invocation

_PROGRAM: Final = "vertex-registry"

#: What messages say in Python, and what they say here. ``vr`` in backquotes is a command, and NAME the model's name.
_RULES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"RegistryClient\((\w+)=\.\.\.\)", r"--\1"),
        (r" ?Retry\(operation_timeout=\.\.\.\) sets [^.]*\.", ""),
        (
            r"took longer than Retry\(operation_timeout=\.\.\.\) allows\. Allow more time, or report",
            "took long. Report",
        ),
        (r"Call the method again to finish what it began", "Run the command again to finish what it began"),
        (r"Retry\(call_timeout=\.\.\.\)", "--timeout"),
        (r"Retry\(call_timeout=(\S+)\)", r"--timeout \1"),
        (r"; without a data file everything is kept in memory| Leave it out to keep everything in memory\.", ""),
        (r"list_models\(\)", "`vr models list`"),
        (r"list_versions\((.+?)\) shows", r"`vr versions list \1` shows"),
        (r"register_version\((.+?), \.\.\.\) creates", r"`vr versions register \1 SOURCE` creates"),
        (r"register_version\((.+?), \.\.\.\) will wait", "the next registration will wait"),
        (r"Call register_version again with request_id=", "Run the command again with --request-id "),
        (r"call register_version again with request_id=", "run the command again with --request-id "),
        (r"register_version with request_id=(\S+)", r"The same command with --request-id \1"),
        (r"set_stage\((.+?), \.\.\., Stage\.(\w+)\)", r"`vr promote \1 VERSION \2`"),
        (r"set_stage\(\)", "`vr promote NAME VERSION STAGE`"),
        (r"stage_history\(\)", "`vr history NAME`"),
        (r"when=(\S+) is", r"--at \1 is"),
        (r"get_version\((.+?), stage=\.\.\.\)", r"`vr versions list \1`"),
        (r"Call get_version\((.+?), stage=([^)]+)\)", r"Run `vr versions list \1 --stage \2`"),
        (r"Call latest_version\((.+?)\) for", r"Run `vr versions list \1 --limit 1` for"),
        (r"set_default\(name, version\)", "`vr alias set NAME VERSION default`"),
        (r"Call set_default\((.+?), (.+?)\)", r"Run `vr alias set \1 \2 default`"),
        (r"delete_version\((.+?), (.+?)\) deletes", r"`vr versions delete \1 \2` deletes"),
        (r", or its name as version_name=", ""),
        (r", or find a version by its name with get_version\(version_name=\.\.\.\)", ""),
        (r"update_version\(name, (.+?), remove_metadata=\[\.\.\.\]\)", "Python: RegistryClient.update_version does it"),
        (r"update_model\(name, labels=\{\.\.\.\}\), which", "Python: RegistryClient.update_model, which"),
        (r"aliases has 'default', but make_default=False", "--alias has 'default', but --no-make-default"),
        (r"Create one with location=", "Pass --location "),
        (r", or (?:keep artifacts elsewhere|name another one) with artifacts=", ""),
        (r", or pass follow_links=True to upload what it leads to", ""),
        (r"Open the registry with local_registry\(\)", "Name the registry's file with --local"),
        (r"local_registry\(\)", "--local FILE"),
        (r"another registry or emulator\. Close that one", "another command or emulator. Wait until it ends"),
        (r"container= to ", "--container to "),
        (r"\bpath=", "--local "),
        (r"^rename has ", "--rename has "),
        (r"^version_name has ", "--version-name has "),
        (r"^request_id has ", "--request-id has "),
        (r"^rename gives ", "--rename gives "),
        (r"another one with rename\b", "another one with --rename"),
        (r"\bdestination=", "--to "),
        (r"\bversion_name= for", "--version-name for"),
        (r"\bstaging_bucket=", "--staging-bucket "),
        (r"\b(project|location|endpoint|keep|limit)=", r"--\1 "),
    )
)

#: The call in the error for a version that was named by its stage, or as the latest one.
_MEANT: Final = re.compile(r"Call (?:get_version|latest_version)\(.+\) for")

#: What to type after an error, by the name of its class.
_NEXT: Final = {
    "NotFoundError": "`vr models list`",
    "AuthenticationError": "gcloud auth application-default login",
    "AmbiguousNameError": "`vr duplicates`",
    "HistoryUnknownError": "`vr history NAME`",
}


def translate(message: str, invocation: Invocation) -> str:
    """Return a message of the package as it reads at a shell."""
    for pattern, replacement in _RULES:
        message = pattern.sub(replacement, message)
    return re.sub(r"`vr (.+?)`", lambda match: f"`{_command(match[1], invocation)}`", message)


def next_command(error: Exception, invocation: Invocation) -> str | None:
    """Return the command to type after an error, or None if there's none."""
    if request_id := getattr(error, "request_id", ""):
        return _again_with(request_id, invocation.words)
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if invocation.words[:1] == ["migrate"] and kinds[0] == "NotFoundError":
        return None  # what wasn't found is in the other registry
    if _LOCAL.search(str(error)):
        return _with_file(invocation.words)
    if _EMULATED in str(error):
        return None  # nobody needs to log in for an emulator
    command = next((_NEXT[kind] for kind in kinds if kind in _NEXT), None)
    if kinds[0] == "NotFoundError" and invocation.name is not None and not _lacks_model(str(error)):
        command = "`vr history NAME`" if invocation.words[:1] == ["rollback"] else "`vr versions list NAME`"
        if (meant := _MEANT.search(str(error))) is not None:
            return next(iter(re.findall(r"`(.+)`", translate(meant[0], invocation))), None)
    return None if command is None else translate(command, invocation).strip("`")


def _command(words: str, invocation: Invocation) -> str:
    """Return a command on the same registry. Its words are as a shell reads them, and NAME is the model's name."""
    try:
        split = shlex.split(words)
    except ValueError:  # a name that Python quotes in another way
        split = words.split()
    filtered = split[:2] == ["versions", "list"] and len(split) == _FILTERED_WORDS
    split, options = (split[:3], split[3:]) if filtered else (split, [])
    name = invocation.name
    typed = [name if word == "NAME" and name is not None else _STAGES.get(word, word) for word in split]
    # A name such as "-x" looks like an option.
    first = next((at for at, word in enumerate(typed) if word.startswith("-")), None)
    if first is not None:
        return shlex.join([_PROGRAM, *typed[:first], *options, *invocation.registry, "--", *typed[first:]])
    return shlex.join([_PROGRAM, *typed, *options, *invocation.registry])


def _again_with(request_id: str, words: list[str]) -> str:
    """Return the same command with a request ID."""
    if "--request-id" not in words and not any(word.startswith("--request-id=") for word in words):
        end = words.index("--") if "--" in words else len(words)  # what follows "--" isn't an option
        words = [*words[:end], "--request-id", request_id, *words[end:]]
    return shlex.join([_PROGRAM, *words])


#: The words of `versions list` with a name and one option with its value.
_FILTERED_WORDS: Final = 5
_STAGES: Final = {name: name.lower() for name in ("NONE", "STAGING", "PRODUCTION", "ARCHIVED")}


def _with_file(words: list[str]) -> str:
    """Return the same command on a local registry, in place of the registry that was chosen."""
    end = words.index("--") if "--" in words else len(words)  # what follows "--" isn't an option
    chosen = [word.partition("=")[0] in _REGISTRY_OPTIONS for word in words[:end]]
    values = [False, *(one and "=" not in word for one, word in zip(chosen, words, strict=False))]
    kept = [word for word, *drop in zip(words, chosen, values, strict=False) if not any(drop)]
    return shlex.join([_PROGRAM, *kept, "--local", "FILE", *words[end:]])


_REGISTRY_OPTIONS: Final = frozenset({"--endpoint", "--project", "--location"})
#: What an error says if a local registry would have the artifact, or keep it.
_LOCAL: Final = re.compile(r"Open the registry with local_registry\(\)|Use local_registry\(\), which does")
#: What an error says if there are no credentials and Vertex AI is an emulator.
_EMULATED: Final = "An emulator of Vertex AI keeps no artifacts"


def _lacks_model(message: str) -> bool:
    return "There is no model" in message
