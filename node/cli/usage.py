"""A command line that was not understood: click's errors as our own, with a code and words in the chosen language.

Rules
1. Everything that click refuses before a command runs becomes a Refused with exit code 2; click's own English is shown
   only where we have no words.
2. The options that decide how to answer (`--json`, `--lang`) hold even when they stand behind the mistake.

>>> peek(["status", "--galaxy", "--json", "--lang=zh"])
{'json': True, 'lang': 'zh'}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

import rich_click as click
from click.exceptions import BadOptionUsage, NoSuchCommand

from fednode.node.messages import LANGUAGES
from fednode.sync.errors import Refused

Words = Callable[..., str]
_EXTRA = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)


def peek(arguments: Sequence[str]) -> dict[str, Any]:
    """The options that say how to answer, wherever they stand."""
    found: dict[str, Any] = {}
    for position, one in enumerate(arguments):
        if one == "--":
            break
        if one == "--json":
            found["json"] = True
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        lang = following if one == "--lang" else one.partition("=")[2] if one.startswith("--lang=") else ""
        if lang in LANGUAGES:
            found["lang"] = lang
    return found


def check_text(arguments: Sequence[str]) -> None:
    """Every argument is text: one that is not could neither be stored nor shown. Raises Refused FN-2715."""
    for one in arguments:
        try:
            one.encode()
        except UnicodeEncodeError as error:
            shown = one.encode("utf-8", "backslashreplace").decode()
            raise Refused("FN-2715", argument=shown) from error


def refused(error: click.ClickException, words: Words) -> Refused:
    """What click said, in our words."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "fednode"
    if isinstance(error, click.NoSuchOption):
        return Refused("FN-2704", option=error.option_name, near=_perhaps(error.possibilities, words), command=path)
    if isinstance(error, NoSuchCommand):
        known = []
        if context is not None and isinstance(context.command, click.Group):
            known = context.command.list_commands(context)
        near = difflib.get_close_matches(error.command_name, known)
        return Refused("FN-2712", name=error.command_name, near=_perhaps(near, words), command=path)
    if isinstance(error, click.MissingParameter):
        name = error.param.human_readable_name if error.param is not None else ""
        return Refused("FN-2705", name=name, command=path)
    if isinstance(error, click.BadParameter):
        name = error.param.opts[0] if error.param is not None else ""
        return Refused("FN-2706", name=name, reason=_reason(error, words), command=path)
    if isinstance(error, BadOptionUsage):
        return Refused("FN-2714", option=error.option_name, command=path)
    message = error.format_message()
    if message == "Missing command.":
        return Refused("FN-2705", name=words("usage.command"), command=path)
    if extra := _EXTRA.search(message):
        return Refused("FN-2713", extra=extra[1], command=path)
    return Refused("FN-2703", reason=message, command=path)


def _perhaps(near: Sequence[str] | None, words: Words) -> str:
    return words("usage.perhaps", near=", ".join(near)) if near else ""


def _reason(error: click.BadParameter, words: Words) -> str:
    kind = error.param.type if error.param is not None else None
    if isinstance(kind, click.Choice):
        return words("usage.choice", choices=", ".join(map(str, kind.choices)))
    if isinstance(kind, click.IntRange) and kind.min is not None and kind.max is not None:
        return words("usage.range", low=kind.min, high=kind.max)
    if kind is click.INT:
        return words("usage.integer")
    return error.message
