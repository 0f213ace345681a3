"""config, version, completion: about the program itself."""

from __future__ import annotations

import platform
import sys

import rich_click as click

import fednode
from fednode.node.cli.frame import Group, Session, command, option, table
from fednode.sync.errors import Refused

SHELLS = ("bash", "zsh", "fish")


@click.group(cls=Group, help="help.config")
def config() -> None:
    """Settings."""


@command("help.config_show")
@option("--origin", is_flag=True, words="option.origin")
def show(session: Session, origin: bool) -> None:
    """The settings in force, and with --origin where each came from."""
    from fednode.node import profile
    from fednode.node.config import shown

    found, origins = session.config()
    values = shown(found)
    if found.profile == profile.AUTO:
        memory = profile.memory_bytes()
        values["profile"] = profile.chosen(found.profile, memory).name
        origins["profile"] += f": {memory // profile.MIB} MiB of memory"
    rows = [(name, value, origins[name]) if origin else (name, value) for name, value in values.items()]
    heads = [session.words(f"head.{key}") for key in ("setting", "value", "origin")[: 3 if origin else 2]]
    data = {"config": values, **({"origins": origins} if origin else {})}
    session.done(data, table(rows, heads))


config.add_command(show, "show")


@command("help.version")
def version(session: Session) -> None:
    """Versions of the program and of what it stands on."""
    from fednode.node import sqlite
    from fednode.sync import segment, versions

    found = {
        "fednode": fednode.__version__,
        "protocol_min": versions.SPOKEN.low,
        "protocol_max": versions.SPOKEN.high,
        "segment": segment.VERSION,
        "sqlite": ".".join(map(str, sqlite.version())),
        "python": platform.python_version(),
    }
    session.done({"versions": found}, [f"{name} {value}" for name, value in found.items()])


@command("help.completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(session: Session, shell: str) -> None:
    """The completion script for a shell."""
    from click.shell_completion import get_completion_class

    from fednode.node.cli import cli

    made = get_completion_class(shell)
    if made is None:
        raise Refused("FN-2706", name="SHELL", reason=shell, command="fednode completion")
    try:
        script = made(cli, {}, "fednode", "_FEDNODE_COMPLETE").source()
    except RuntimeError as error:  # click asks bash for its version, and there may be none
        raise Refused("FN-2706", name="SHELL", reason=str(error), command="fednode completion") from error
    if session.as_json:
        session.done({"shell": shell, "script": script})
    else:
        sys.stdout.write(script + "\n")
