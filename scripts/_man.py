"""Man pages out of the commands themselves: one for `fednode` and one for each command, examples first, in English or
Chinese.

Rules
1. What a page says is what `--help` says: names, arguments and options come from the commands, words from the
   catalogue.
2. Examples are lines of the documentation, most of which the tests follow; a command that no page uses has one of
   `MORE`, or its own usage with what it must have.

>>> escaped("-a"), line(".x"), line("节点，键")
('\\\\-a', '\\\\&.x', '节\\\\:点，\\\\:键')
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
PAGES = ("quickstart.md", "faq.md", "install.md", "doctor.md", "recovery.md", "operate.md")
EXAMPLES_MAX = 3
GLOBAL = ("--home", "--json", "--lang", "--log-format", "--log-level", "--quiet", "--help")
LANGUAGES = ("en", "zh")
BREAKS = re.compile(
    "(?<=[\u4e00-\u9fff，；：、。）”])(?=[\u4e00-\u9fff（“])"
)  # where a line of Chinese may end: roff does not know
EXIT = (
    ("0", "done", "成功"),
    ("2", "the command line was not understood", "命令输错了"),
    ("3", "input refused, or partly refused", "输入的内容被拒绝，或部分被拒绝"),
    ("4", "the peer cannot be reached; nothing is lost", "连不上对方，数据没有丢失"),
    ("5", "refused by the peer, or not permitted here", "被对方拒绝，或不允许"),
    ("6", "integrity failure: a proof does not hold", "数据验证不通过"),
    ("7", "trouble with this node's store, home or configuration", "本机磁盘、目录或设置有问题"),
    ("130", "interrupted; the same command again goes on", "被中断；再执行一次即可继续"),
)
HEADINGS = {  # what the sections of a page are called; man(1) in Chinese calls them so
    "NAME": "名称",
    "EXAMPLES": "示例",
    "SYNOPSIS": "概述",
    "DESCRIPTION": "描述",
    "OPTIONS": "选项",
    "OPTIONS OF EVERY COMMAND": "各命令通用的选项",
    "COMMANDS": "命令",
    "EXIT STATUS": "退出状态",
    "SEE ALSO": "参见",
}
ALSO = {
    "en": "fednode docs cli, fednode docs errors: every command, every code",
    "zh": "fednode docs cli、fednode docs errors：全部命令、全部代码",
}
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
    shown = BREAKS.sub("\\\\:", escaped(words))
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


def said(owner: object, lang: str) -> str:
    """The words of a command's or an option's help."""
    key = getattr(owner, "words_key", None) or getattr(owner, "help", None) or ""
    try:
        return text(key, lang)
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


def page(path: Path_, command: click.Command, given: list[str], below: list[Path_], lang: str) -> str:
    """One man page."""
    name, told = "-".join(("fednode", *path)), line(said(command, lang))
    made = [f'.TH {escaped(name.upper())} 1 "" "fednode {fednode.__version__}" "fednode"']
    made += [".ad l"] if lang == "zh" else []
    made += [section("NAME", lang), f"{escaped(name)} \\- {brief(told) if lang == 'zh' else told}"]
    made += [section("EXAMPLES", lang), ".nf", *(line(one) for one in given), ".fi"]
    made += [section("SYNOPSIS", lang), f".B {' '.join(map(escaped, ('fednode', *path)))}", line(_usage(command))]
    made += [section("DESCRIPTION", lang), told]
    own, common = [], []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            (common if parameter.opts[0] in GLOBAL else own).append(parameter)
    for heading, some in (("OPTIONS", own), ("OPTIONS OF EVERY COMMAND", common)):
        made += [section(heading, lang)] if some else []
        for one in some:
            forms = escaped(", ".join((*one.opts, *one.secondary_opts)))
            made += [".TP", f".B {forms} {escaped(_value(one))}".rstrip()]
            made.append(line(said(one, lang)) or "\\&")
    if below:
        made += [section("COMMANDS", lang), *(f".BR {escaped('-'.join(('fednode', *one)))} (1)\n.br" for one in below)]
    made.append(section("EXIT STATUS", lang))
    for code, english, chinese in EXIT:
        made += [".TP", f".B {code}", line(chinese if lang == "zh" else english)]
    made += [section("SEE ALSO", lang), ".BR fednode (1);", line(ALSO[lang])]
    return "\n".join(made) + "\n"


def brief(told: str) -> str:
    """The first clause of a text, which `apropos` reads: without places where a line may end."""
    return re.split("[；：，。（]", told.replace("\\:", ""))[0]


def section(heading: str, lang: str) -> str:
    """The line that begins a section."""
    return f".SH {HEADINGS[heading] if lang == 'zh' else heading}"


def _usage(command: click.Command) -> str:
    pieces = command.collect_usage_pieces(click.Context(command))
    return " ".join(pieces)


def _value(option: click.Option) -> str:
    choices = getattr(option.type, "choices", ())
    return "" if option.is_flag else option.metavar or "|".join(map(str, choices)) or str(option.type.name).upper()


def pages(lang: str = "en") -> dict[str, str]:
    """Every man page by the name of its file."""
    every = dict(commands(cli))
    shown = examples(every)
    made = {}
    for path, command in every.items():
        below = [one for one in every if len(one) == len(path) + 1 and one[: len(path)] == path]
        if isinstance(command, Worded):
            made["-".join(("fednode", *path)) + ".1"] = page(path, command, shown[path], below, lang)
    return made


def main() -> int:
    """Write the pages into a folder."""
    if len(sys.argv) != 3 or sys.argv[2] not in LANGUAGES:
        print("usage: scripts/man [--lang en|zh] [FOLDER]", file=sys.stderr)
        return 2
    folder, made = Path(sys.argv[1]), pages(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in made.items():
        (folder / name).write_text(one, "utf-8")
    print(f"{len(made)} pages in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
