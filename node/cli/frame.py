"""What every command shares: global options, words, one JSON document, exit codes.

Rules
1. Data goes to stdout, everything else to stderr. With `--json` stdout is one document:
   `{"version": 1, "command": ..., "ok": true, ...}`, or `{"version": 1, "command": ..., "ok": false, "error": {...}}`.
2. The global options stand before or after the command's name.
3. Exit codes: 0 done, 2 usage, 3 input refused or partly refused, 4 peer not reachable, 5 refused by the peer or not
   permitted, 6 integrity failure, 7 store trouble, 130 interrupted. The first digit of an error's code says which.
4. A command that acts names its act (`action`); the audit has an event of it. The service that does it writes the event
   of what was done; of what was refused or failed it is written here, once for all commands.
5. Help is in the language that `--lang`, FEDNODE_LANG or the locale asks for: options and commands carry the key of
   their words.

>>> operator({"SUDO_USER": "alice"}, "root", 0), operator({}, "alice", 1000)
('alice (root, uid 0)', 'alice (alice, uid 1000)')
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click
from click.exceptions import Exit

from fednode.crypto.errors import FednodeError
from fednode.node.cli import usage
from fednode.node.i18n import language
from fednode.node.messages import catalogue, error_text, text
from fednode.sync.errors import PeerError, Refused, StoreError

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.config import Config

SHAPE_VERSION = 1
HOME_DEFAULT = "~/.fednode"
OPERATOR_VARIABLE = "FEDNODE_OPERATOR"
ABOUT = ("node", "level", "dataset", "area", "retry", "job", "dry_run")  # arguments that an event of a failure may name


def operator(environ: Mapping[str, str], account: str, uid: int) -> str:
    """Who gives the commands, for the audit: FEDNODE_OPERATOR (several people, one account), whoever called sudo, or
    the account; and always the account itself, which nobody can choose."""
    name = environ.get(OPERATOR_VARIABLE) or environ.get("SUDO_USER") or account
    return f"{name} ({account}, uid {uid})"


def _account() -> tuple[str, int]:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:  # a container may run under a number that has no name
        return "?", uid


@dataclass(slots=True)
class Session:
    """One run of the command line: what the global options said, and how to answer. `action`: what the audit calls the
    command's act, "" for one that only reads; `about`: what an event of its failure is to name."""

    environ: Mapping[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    action: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    _lang_in_file: str | None = None
    _app: App | None = None

    @property
    def lang(self) -> str:
        """The flag, FEDNODE_LANG, `lang` in the home's config.toml, the locale."""
        given = self.options.get("lang") or self.environ.get("FEDNODE_LANG")
        if not given:
            if self._lang_in_file is None:
                self._lang_in_file = ""
                with contextlib.suppress(FednodeError):  # a file with faults is reported when it is needed
                    self._lang_in_file = self.config()[0].lang
            given = self._lang_in_file
        return language(given, self.environ)

    @property
    def as_json(self) -> bool:
        return bool(self.options.get("json"))

    @property
    def quiet(self) -> bool:
        return bool(self.options.get("quiet"))

    @property
    def home(self) -> Path:
        return Path(self.options.get("home") or self.environ.get("FEDNODE_HOME") or HOME_DEFAULT)

    def words(self, key: str, /, **params: Any) -> str:
        """Words in the chosen language."""
        return text(key, self.lang, **params)

    def level(self, level: str) -> str:
        """A level in words; a level of a domain's own as it stands."""
        return self.words(f"level.{level}") if f"level.{level}" in catalogue() else level

    def config(self, flags: Mapping[str, Any] | None = None) -> tuple[Config, dict[str, str]]:
        """The configuration of the home, and where each value came from."""
        from fednode.node.config import load

        common = {name: self.options.get(name) for name in ("log_format", "log_level", "lang")}
        return load(self.home, self.environ, {**common, **(flags or {})})

    def app(self, flags: Mapping[str, Any] | None = None) -> App:
        """The node of the home, loaded."""
        from fednode.node import profile
        from fednode.node.app import App

        config, origins = self.config(flags)
        profile.thrifty(profile.chosen(config.profile, profile.memory_bytes()))
        if {origins["log_level"], origins["log_format"]} != {"default"}:
            self.logs(config)
        self._app = App.open(self.home, config, operator=self.operator)
        return self._app

    def became(self, app: App) -> None:
        """A switchover has made another node of it: what was open is closed, this one is at the end."""
        self._app = app

    @property
    def opened(self) -> App | None:
        """The node, where this command has opened one."""
        return self._app

    @property
    def operator(self) -> str:
        """Who gives the commands, for the audit."""
        return operator(self.environ, *_account())

    def logs(self, config: Config) -> None:
        """Send logs to stderr as configured. Costs start-up time: commands that say little do without, unless asked."""
        from fednode.node import logs

        logs.set_up(config.log_level, config.log_format, plain="NO_COLOR" in self.environ)

    # ------------------------------------------------------------ answering

    def done(self, data: Mapping[str, Any], lines: Iterable[str] = (), exit_code: int = 0) -> None:
        """The answer: a document with --json, else lines on stdout."""
        self.exit_code = exit_code
        if self.as_json:
            document = {"version": SHAPE_VERSION, "command": self.command, "ok": exit_code == 0, **data}
            print_json(document)
            return
        for line in lines:
            click.echo(line)

    def note(self, key: str, /, **params: Any) -> None:
        """A word on the side, on stderr; not with --quiet or --json."""
        if not self.quiet and not self.as_json:
            click.echo(self.words(key, **params), err=True)

    def say(self, line: str) -> None:
        """A line on the side, on stderr."""
        click.echo(line, err=True)

    def failed(self, error: FednodeError) -> int:
        """Report an error; returns the exit code."""
        self._tell(error.code, refused=isinstance(error, (Refused, PeerError)))
        message, hint = error_text(error, self.lang)
        code = error.exit_code
        if self.as_json:
            shown: dict[str, Any] = {"code": error.code, "exit": code, "message": message, "hint": hint}
            params = {name: plain(value) for name, value in error.params.items()}
            self._document({**shown, "params": params})
        click.echo(f"{self.words('error.label')} {error.code}: {message}", err=True)
        if hint:
            click.echo(f"{self.words('hint.label')}: {hint}", err=True)
        return code

    def interrupted(self) -> int:
        """Ctrl-C: say so; returns the exit code."""
        self._tell("interrupted", refused=False)
        message = self.words("interrupted")
        if self.as_json:
            self._document({"code": "interrupted", "exit": 130, "message": message, "hint": "", "params": {}})
        click.echo(message, err=True)
        return 130

    def _document(self, error: dict[str, Any]) -> None:
        try:
            print_json({"version": SHAPE_VERSION, "command": self.command, "ok": False, "error": error})
        except OSError:
            _give_up_stdout()  # full or gone: the words on stderr have to do

    def close(self) -> None:
        """The end: the store is closed, whatever still refers to it."""
        if self._app is not None:
            self._app.close()

    def _tell(self, code: str, *, refused: bool) -> None:
        """Write in the audit that the command's act was refused, or failed: of a dry run nothing, and nothing where the
        home was not even opened. Trouble in doing so must not hide the error that is being reported."""
        if self._app is None or not self.action or self.about.get("dry_run"):
            return
        from fednode.node.journal import FAILED, REFUSED

        with contextlib.suppress(FednodeError, OSError):
            self._app.journal().event(self.action, REFUSED if refused else FAILED, code=code, **self.about)

    def confirm(self, node: str, yes: bool) -> None:
        """A destructive act asks for the node's id. Raises Refused FN-2701 when it is not given."""
        if yes:
            return
        if self.as_json or not sys.stdin.isatty():
            raise Refused("FN-2702")
        given = click.prompt(self.words("confirm.node", node=node), default="", show_default=False, err=True)
        if given != node:
            raise Refused("FN-2701", given=given, node=node)


def plain(value: Any) -> Any:
    """A parameter of an error as JSON can say it."""
    return value if isinstance(value, int | float | bool) or value is None else str(value)


def print_json(document: Any) -> None:
    """One document, one line, UTF-8, on stdout."""
    click.echo(msgspec.json.encode(document).decode())


def _give_up_stdout() -> None:
    """What is left in its buffer goes nowhere, so that the end of the program does not stumble over it again."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stdout that is no file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------- options and commands with words


class Option(click.Option):
    """An option whose `help` is a key of the message catalogue."""


def option(*names: str, words: str, **kwargs: Any) -> Callable[[Any], Any]:
    """An option of a command. `words`: the key of its help."""
    return click.option(*names, cls=Option, help=words, **kwargs)


def _global(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and value is not False:
        context.ensure_object(Session).options[str(parameter.name)] = value


def _global_options() -> list[click.Parameter]:
    def one(*names: str, words: str, **kwargs: Any) -> Option:
        return Option(list(names), help=words, expose_value=False, is_eager=True, callback=_global, **kwargs)

    return [
        one("--home", words="option.home", metavar="DIR"),
        one("--json", words="option.json", is_flag=True),
        one("--lang", words="option.lang", type=click.Choice(("zh", "en"))),
        one("--log-format", words="option.log_format", type=click.Choice(("text", "json"))),
        one("--log-level", words="option.log_level", type=click.Choice(("debug", "info", "warning", "error"))),
        one("--quiet", "-q", words="option.quiet", is_flag=True),
    ]


class Worded:
    """Commands whose help and options' help are keys of the catalogue, put into words when they are shown."""

    params: list[click.Parameter]
    help: str | None
    short_help: str | None

    def put_in_words(self, lang: str) -> None:
        for parameter in self.params:
            if isinstance(parameter, Option) and parameter.help:
                parameter.help = _words(parameter, parameter.help, lang)
        if self.help:
            self.help = self.short_help = _words(self, self.help, lang)


def _words(owner: Any, current: str, lang: str) -> str:
    key = getattr(owner, "words_key", None) or current
    owner.words_key = key
    return text(key, lang)


def _lang(context: click.Context) -> str:
    return context.ensure_object(Session).lang


class Command(Worded, click.RichCommand):
    """A command: global options come with it. `action`: what the audit calls it; "" where it only reads."""

    def __init__(self, *args: Any, action: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action = action
        self.params += _global_options()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.put_in_words(_lang(ctx))
        super().format_help(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        session = ctx.ensure_object(Session)
        session.command = ctx.command_path.partition(" ")[2]
        session.action = self.action
        session.about = {name: ctx.params[name] for name in ABOUT if ctx.params.get(name)}
        return super().invoke(ctx)


class Group(Worded, click.RichGroup):  # type: ignore[misc]  # rich-click's own two bases disagree
    """A group of commands, each loaded when it is needed: `loaders` names the module and attribute. `action`: what the
    audit calls the group itself, where it acts without a subcommand."""

    command_class = Command

    def __init__(self, *args: Any, loaders: Mapping[str, str] | None = None, action: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action = action
        self.params += _global_options()
        self._loaders = dict(loaders or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._loaders})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._loaders and cmd_name not in self.commands:
            import importlib

            module, _, attribute = self._loaders[cmd_name].partition(":")
            self.add_command(getattr(importlib.import_module(f"fednode.node.cli.{module}"), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.put_in_words(_lang(ctx))
        for name in self.list_commands(ctx):
            worded: Any = self.get_command(ctx, name)
            worded.put_in_words(_lang(ctx))
        super().format_help(ctx, formatter)


def command(words: str, action: str = "", **kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """A command whose function takes the Session first. `words`: the key of its help; `action`: what the audit calls
    its act, "" for one that only reads."""

    def decorate(function: Callable[..., Any]) -> Command:
        made: Command = click.command(cls=Command, help=words, action=action, **kwargs)(click.pass_obj(function))
        return made

    return decorate


# ---------------------------------------------------------------- running


def run(group: click.Group, arguments: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    """Run the command line; returns the exit code and never raises for anything that a person can cause."""
    session = Session(environ)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        usage.check_text(given)
        group.main(given, "fednode", standalone_mode=False, obj=session)
    except Exit as ended:
        return int(ended.exit_code)
    except SystemExit as ended:  # click's own, for completion, and when the reader of our output has gone
        return 0 if _reader_gone() else ended.code if isinstance(ended.code, int) else 2
    except (click.Abort, KeyboardInterrupt):
        return session.interrupted()
    except click.ClickException as error:
        session.options |= usage.peek(given)
        return session.failed(usage.refused(error, session.words))
    except FednodeError as error:
        session.options |= usage.peek(given)
        return session.failed(error)
    except BrokenPipeError:
        _give_up_stdout()  # whoever read our output has gone: not an error of ours
        return 0
    except OSError as error:
        path = str(error.filename or "") or session.words("somewhere")
        return session.failed(StoreError("FN-7701", reason=f"{error.strerror or error}", path=path))
    except Exception as error:  # a disk that cannot be read; else a bug: it is said so, with the log
        import logging

        from fednode.node import sqlite

        if isinstance(error, sqlite.Error):
            return session.failed(sqlite.trouble(error, session.home))
        logging.getLogger("fednode").exception("unexpected error")
        return session.failed(StoreError("FN-7001", reason=f"{type(error).__name__}: {error}"))
    finally:
        session.close()
    return session.exit_code


def _reader_gone() -> bool:
    """Whether click found nobody at the other end of stdout (`| head`); it then puts a wrapper in its place."""
    return type(sys.stdout).__name__.endswith("PacifyFlushWrapper")


# ---------------------------------------------------------------- for people


def table(rows: Sequence[Sequence[Any]], heads: Sequence[str]) -> list[str]:
    """Rows as aligned text; Chinese characters count two columns."""
    from rich.cells import cell_len

    shown = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(cell_len(row[column]) for row in shown) for column in range(len(heads))]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
