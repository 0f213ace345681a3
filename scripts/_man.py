"""Man pages out of the commands themselves: one for `fednode` and one for each command, examples first.

Rules
1. What a page says is what `--help` says: names, arguments and options come from the commands, words from the
   catalogue.
2. Examples are lines of the documentation, most of which the tests follow; a command that no page uses has one of
   `MORE`, or its own usage with what it must have.

>>> escaped("-a"), line(".x")
('\\\\-a', '\\\\&.x')
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import rich_click as click

import fednode
from fednode.node.cli import cli
from fednode.node.cli.frame import Group, Worded
from fednode.node.messages import text

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("quickstart.md", "faq.md", "install.md", "doctor.md", "recovery.md", "monitoring.md")
EXAMPLES_MAX = 3
GLOBAL = ("--home", "--json", "--lang", "--log-format", "--log-level", "--quiet", "--help")
EXIT = (
    ("0", "done"),
    ("2", "the command line was not understood"),
    ("3", "input refused, or partly refused"),
    ("4", "the peer cannot be reached; nothing is lost"),
    ("5", "refused by the peer, or not permitted here"),
    ("6", "integrity failure: a proof does not hold"),
    ("7", "trouble with this node's store, home or configuration"),
    ("130", "interrupted; the same command again goes on"),
)
MORE = {  # for commands that no page of `PAGES` uses
    "": "COMMAND --help",
    "audit": "audit verify --full",
    "bundle": "bundle export --to parent -o /media/usb",
    "bundle import": "bundle import /media/usb",
    "bundle inspect": "bundle inspect /media/usb",
    "catalog": "catalog show org-registration",
    "config": "config show --origin",
    "coverage": "coverage --days 30",
    "erase": "erase org-registration KEY --reason 'court order' --dry-run",
    "jobs run": "jobs run backup",
    "mesh": "mesh --state stale",
    "revoke": "revoke 130102 --reason 'the machine was stolen' --dry-run",
    "standby": "standby list",
    "user": "user list",
}
Path_ = tuple[str, ...]


def escaped(words: str) -> str:
    """A text as roff takes it."""
    return words.replace("\\", "\\e").replace("-", "\\-")


def line(words: str) -> str:
    """A line of text: one that begins with a dot or a quote would be a request."""
    shown = escaped(words)
    return "\\&" + shown if shown.startswith((".", "'")) else shown


def commands(command: click.Command, path: Path_ = ()) -> Iterator[tuple[Path_, click.Command]]:
    """Every command with its path, the program itself with an empty one."""
    yield path, command
    if isinstance(command, Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from commands(inner, (*path, name))


def said(owner: object) -> str:
    """The words of a command's or an option's help, in English."""
    key = getattr(owner, "words_key", None) or getattr(owner, "help", None) or ""
    try:
        return text(key, "en")
    except KeyError:
        return key


def examples(every: dict[Path_, click.Command]) -> dict[Path_, list[str]]:
    """Lines of the documentation, by the command that they give; for each command one at least."""
    found: dict[Path_, list[str]] = {path: [] for path in every}
    for page in PAGES:
        for given in re.findall(r"^    (fednode .*)$", (ROOT / "docs" / page).read_text("utf-8"), re.MULTILINE):
            words = [one for one in re.sub(r"--home \S+ ", "", given.partition("  #")[0]).split()[1:] if one != "&"]
            path = next((tuple(words[:size]) for size in (3, 2, 1) if tuple(words[:size]) in every), None)
            if path is not None and len(found[path]) < EXAMPLES_MAX:
                shown = " ".join(("fednode", *words))
                if shown not in found[path]:
                    found[path].append(shown)
    for path, given in found.items():
        if not given:
            more = MORE.get(" ".join(path))
            given.append(f"fednode {more}" if more else plain(path, every[path]))
    return found


def plain(path: Path_, command: click.Command) -> str:
    """A command with what it must have."""
    words = ["fednode", *path]
    for parameter in command.params:
        if parameter.required and isinstance(parameter, click.Option):
            values = getattr(parameter.type, "choices", (_value(parameter),))
            words += [parameter.opts[0], str(values[0])]
        elif parameter.required:
            values = getattr(parameter.type, "choices", (parameter.human_readable_name,))
            words.append(str(values[0]))
    return " ".join(words)


def page(path: Path_, command: click.Command, given: list[str], below: list[Path_]) -> str:
    """One man page."""
    name = "-".join(("fednode", *path))
    made = [f'.TH {escaped(name.upper())} 1 "" "fednode {fednode.__version__}" "fednode"']
    made += [".SH NAME", f"{escaped(name)} \\- {line(said(command))}"]
    made += [".SH EXAMPLES", ".nf", *(line(one) for one in given), ".fi"]
    made += [".SH SYNOPSIS", f".B {' '.join(map(escaped, ('fednode', *path)))}", line(_usage(command))]
    made += [".SH DESCRIPTION", line(said(command))]
    own, common = [], []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            (common if parameter.opts[0] in GLOBAL else own).append(parameter)
    for heading, some in (("OPTIONS", own), ("OPTIONS OF EVERY COMMAND", common)):
        made += [f".SH {heading}"] if some else []
        for one in some:
            made += [
                ".TP",
                f".B {escaped(', '.join((*one.opts, *one.secondary_opts)))} {escaped(_value(one))}".rstrip(),
            ]
            made.append(line(said(one)) or "\\&")
    if below:
        made += [".SH COMMANDS", *(f".BR {escaped('-'.join(('fednode', *one)))} (1)\n.br" for one in below)]
    made.append(".SH EXIT STATUS")
    for code, meaning in EXIT:
        made += [".TP", f".B {code}", line(meaning)]
    made += [
        ".SH SEE ALSO",
        ".BR fednode (1);",
        line("fednode docs cli, fednode docs errors: every command, every code"),
    ]
    return "\n".join(made) + "\n"


def _usage(command: click.Command) -> str:
    pieces = command.collect_usage_pieces(click.Context(command))
    return " ".join(pieces)


def _value(option: click.Option) -> str:
    choices = getattr(option.type, "choices", ())
    return "" if option.is_flag else option.metavar or "|".join(map(str, choices)) or str(option.type.name).upper()


def pages() -> dict[str, str]:
    """Every man page by the name of its file."""
    every = dict(commands(cli))
    shown = examples(every)
    made = {}
    for path, command in every.items():
        below = [one for one in every if len(one) == len(path) + 1 and one[: len(path)] == path]
        if isinstance(command, Worded):
            made["-".join(("fednode", *path)) + ".1"] = page(path, command, shown[path], below)
    return made


def main() -> int:
    """Write the pages into a folder."""
    if len(sys.argv) != 2:
        print("usage: scripts/man FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in pages().items():
        (folder / name).write_text(made, "utf-8")
    print(f"{len(pages())} pages in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
