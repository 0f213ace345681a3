"""Every command line of the documentation: its words are understood, its options stand in docs/cli.md, it is run.

Who runs it: `tests/e2e/test_docs.py` (pages that are played as a script), the tests that follow docs/recovery.md
section by section, and the plays below, in this process, with the province's daemon beside it. What none of them can
run is on a list, with the reason, and the list is exact."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click

from fednode.node.cli import cli, invoke
from fednode.node.cli.frame import Group, Session
from fednode.node.config import Config, load
from fednode.node.shipped import catalog
from fednode.sync.backup import encode_key
from ports import free_port
from processes import FEDNODE
from runbook import blocks, commands, lines, named, typed
from sample_data import records, write
from source import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), ROOT / "deploy/README.md", *(ROOT / "docs").rglob("*.md"))
)
NO_COMMANDS = {"...", "COMMAND --help", "backup v1", "grant 1", "recovery key 1", "proof"}  # first lines of files
COMMON = {"--home", "--json", "--lang", "--log-format", "--log-level", "--quiet", "--help"}
SCRIPTED = ("quickstart.md", "quickstart.zh.md", "install.md", "faq.md", "doctor.md", "technician.zh.md")
SCRIPTS = tuple(f"docs/{name}" for name in SCRIPTED)  # tests/e2e/test_docs.py

# ---------------------------------------------------------------- the plays

STICK = "tests/node/cli/test_stick_manual.py follows these steps in docs/operate.zh.md"
DAEMON = "a daemon at this place is what the play already has"
# Of each command line of a page, in order: at which machine, how it begins; where none can run it: "" and why not.
README = (
    ("p", "init", ""), ("p", "catalog publish", ""), ("p", "run", ""), ("p", "invite", ""), ("c", "join", ""),
    ("c", "run", ""), ("c", "sync --limit", ""), ("c", "import", ""), ("c", "doctor", ""), ("c", "status", ""),
    ("p", "find", ""), ("p", "audit prove", ""), ("c", "erase", ""), ("p", "verify", ""), ("p", "audit log", ""),
    ("c", "standby invite", ""), ("c", "jobs", ""), ("c", "bundle export", ""),
    ("p", "bundle inspect", ""), ("p", "bundle import", ""), ("c", "bundle import", ""), ("v", "join TOKEN --req", ""),
)  # fmt: skip
OPERATE = (
    ("p", "init", ""), ("p", "catalog publish", ""), ("p", "run", ""), ("p", "invite", ""), ("c", "join", ""),
    ("", "run", DAEMON), ("c", "sync", ""), ("c", "sync --limit", ""), ("c", "jobs", ""), ("c", "import", ""),
    ("c", "import admin-penalty", ""), ("c", "import admin-licence old", ""), ("c", "put", ""), ("c", "get", ""),
    ("c", "find", ""), ("c", "delete", ""), ("p", "mesh", ""), ("p", "mesh --state", ""), ("p", "mesh --by", ""),
    ("p", "mesh 13", ""), ("", "mesh --watch", "runs until Ctrl-C: tests/node/cli/test_mesh.py"),
    ("p", "alerts", ""), ("p", "alerts --level", ""), ("", "alerts ack", "needs an alert: tests/node/test_alerts.py"),
    ("", "alerts close", "needs an alert: tests/node/test_alerts.py"), ("p", "alerts silence", ""),
    ("p", "alerts unsilence", ""), ("p", "alerts rules", ""),
    ("", "user add", "asks for a password: tests/node/web/test_accounts.py"),
    ("", "run --http 127", "tests/node/web/test_served.py"),
    ("", "run --http 0.0.0.0", "tests/node/web/test_served.py"),
    ("", "drill", "needs a standby: tests/e2e/test_promotion.py"), ("p", "drill --list", ""),
    ("", "revoke", "needs that village: tests/node/cli/test_audited.py"), ("c", "audit prove", ""),
    ("c", "audit root", ""), ("c", "audit check", ""), ("c", "erase", ""), ("c", "erase", ""), ("c", "erase --st", ""),
    ("c", "compact", ""), ("", "status", STICK), ("", "bundle export", STICK), ("", "bundle inspect", STICK),
    ("", "bundle import", STICK), ("", "bundle import", STICK), ("", "bundle import", STICK), ("", "status", STICK),
    ("", "invite", STICK), ("", "join", STICK), ("", "bundle import", STICK), ("", "join", STICK),
    ("", "bundle import", STICK), ("", "join", STICK), ("", "bundle import", STICK), ("", "invite", STICK),
    ("", "join", STICK), ("", "bundle import", STICK),
)  # fmt: skip
CATALOG = (("p", "catalog publish", ""), ("p", "catalog publish", ""), ("p", "catalog show", ""))
PLAYS = {"README.md": README, "docs/operate.md": OPERATE, "docs/catalog.md": CATALOG}
# What pages name in sentences and tables, and needs nothing but a node that has something.
BESIDE = (
    "audit log", "audit verify --full", "bundle inspect /media/usb", "catalog export", "catalog list", "catalog show",
    "completion bash", "config show --origin", "conflicts", "coverage", "coverage --blank", "coverage --days 30",
    "coverage --rejected", "digest", "docs", "docs install", "doctor", "doctor --full", "find admin-licence",
    "invites", "jobs", "jobs run cleaning", "mesh", "nodes", "rebuild", "refused", "standby list", "status", "verify",
    "user list", "version",
)  # fmt: skip
# What stands in a line for what only the reader has; what a line asks a person.
FILLED = {"--yes": ("erase", "revoke", "promote", "recover")}

# ---------------------------------------------------------------- what no test runs line by line

PLACES = "tests/e2e/test_promotion.py does it with its own options"
GRANT = "tests/node/test_later_lives.py and tests/sync/test_grant.py: a grant in advance"
ROLLED = "tests/e2e/test_recover.py, a province that was rolled back"
NOT_RUN = {
    "docs/recovery.md": {
        "standby invite --token-file s1.token": PLACES,
        "standby seal 130102-s1 --out grant.txt --code-file code.txt": GRANT,
        "promote --grant grant.txt --code-file code.txt": GRANT,
        "drill": "tests/node/test_drill.py",
        "recover --dry-run": ROLLED,
        "standby resume": "tests/node/test_switchover.py",
    },
    "docs/operate.zh.md": {
        "standby list": PLACES,
        "promote --planned --dry-run": "tests/e2e/test_promotion.py follows these lines in docs/recovery.md",
        "promote --planned": "tests/e2e/test_promotion.py follows these lines in docs/recovery.md",
    },
    "docs/api.md": {
        "status --json": "every play runs with --json",
        "find org-registration --text 运输 --json": "every play runs with --json",
    },
}
SAME = {"README.zh.md": "README.md", "docs/operate.zh.md": "docs/operate.md"}
NAMES = {
    "河北省": "Hebei", "石家庄市": "Shijiazhuang", "某村": "A village", "令牌": "TOKEN", "主键": "KEY", "键": "KEY",
    "编号": "ID", "申请指纹": "REQUEST", "根证书指纹": "ROOT", "许可.xlsx": "licences.xlsx",
    "处罚.csv": "penalties.csv", "旧表.csv": "old-table.csv", "已派人": "on the way", "线路已修复": "line mended",
    "停电检修": "power works", "被盗": "stolen", "法院裁定": "court order",
}  # fmt: skip


def plain(line: str) -> str:
    """A command line without its home, in English."""
    words = shlex.split(line)
    while words[:1] == ["--home"]:
        words = words[2:]
    return " ".join(NAMES.get(word, word) for word in words)


# ---------------------------------------------------------------- understood


def found(words: list[str]) -> tuple[click.Context, tuple[str, ...], click.Command, list[str]]:
    """The command that words name, its path, and what is left of them. Raises UsageError for one that there is not."""
    context = click.Context(cli, obj=Session({}))
    current: click.Command = cli
    names: tuple[str, ...] = ()
    while words[:1] == ["--home"]:
        words = words[2:]
    while isinstance(current, Group) and words and not words[0].startswith("-"):
        inner = current.get_command(context, words[0])
        if inner is None:
            if names:
                break
            raise click.UsageError(f"there is no command {words[0]}")
        names, current, words = (*names, words[0]), inner, words[1:]
    return context, names, current, words


def options(command: click.Command) -> set[str]:
    return {
        one
        for option in command.params
        if isinstance(option, click.Option)
        for one in (*option.opts, *option.secondary_opts)
    }


def given(words: list[str]) -> set[str]:
    """The options among words; of `--request|--grant` both."""
    return {one for word in words if word.startswith("-") and word != "-" for one in word.split("|")}


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_are_understood(page: str) -> None:
    for line in typed(page):
        words = shlex.split(line.partition(" > ")[0])
        context, names, command, rest = found(words)
        command.make_context(" ".join(names), rest, parent=context)
    for line in named(page):
        if line in NO_COMMANDS:
            continue
        _, _, command, rest = found(shlex.split(line))
        assert given(rest) <= options(command), f"{page}: {line}"


def rows() -> dict[tuple[str, ...], str]:
    """The rows of docs/cli.md by the command that they are of."""
    told: dict[tuple[str, ...], str] = {}
    for line in (ROOT / "docs/cli.md").read_text("utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        for usage in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", line)[1]):
            words = [one for one in re.sub(r"[\[\]]", " ", usage.replace("\\|", "|")).split() if one != "..."]
            try:
                _, names, command, rest = found(words)
            except click.UsageError:
                continue  # a setting, an option of every command
            if names:
                assert given(rest) <= options(command), f"docs/cli.md: {usage}"
                told[names] = told.get(names, "") + line
    return told


def test_docs_cli_has_every_command_with_every_option() -> None:
    told = rows()

    def walk(command: click.Command, names: tuple[str, ...]) -> Iterator[str]:
        text = told.get(names, "")
        if names and not (isinstance(command, Group) and names not in told):
            if names not in told:
                yield f"{' '.join(names)}: no row"
            for option in command.params:
                if isinstance(option, click.Option) and option.opts[0] not in COMMON:
                    forms = (*option.opts, *option.secondary_opts)
                    if not any(re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text) for one in forms):
                        yield f"{' '.join(names)} {option.opts[0]}"
        if isinstance(command, Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None:
                    yield from walk(inner, (*names, name))

    assert list(walk(cli, ())) == []


def settings_shown() -> Iterator[tuple[str, str]]:
    """Pieces of config.toml in the pages, with the page."""
    for page in PAGES:
        for block in blocks(page):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                if (told := tomllib.loads(block)) and "dataset" not in told:
                    yield page, block


def test_settings_in_the_pages_are_taken(tmp_path: Path) -> None:
    shown = list(settings_shown())
    assert len(shown) > 8
    for page, block in shown:
        (tmp_path / "config.toml").write_text(block.replace("fnrecover1...", encode_key(bytes(range(32)))), "utf-8")
        assert load(tmp_path, {}, {}), page


def test_docs_cli_has_every_setting() -> None:
    text = (ROOT / "docs/cli.md").read_text("utf-8")
    for field in dataclasses.fields(Config):
        section, _, name = field.name.partition("_")
        there = f"`{field.name}`" in text or (f"`[{section}]`" in text and f"`{name}`" in text)
        assert there or f"`[[{section}.{name}]]`" in text, field.name


# ---------------------------------------------------------------- run


@pytest.mark.parametrize("page", PLAYS)
def test_a_play_has_just_the_lines_of_its_page(page: str) -> None:
    told = [plain(line) for line in typed(page)]
    assert [
        (line, begins) for line, (_, begins, _) in zip(told, PLAYS[page], strict=True) if not line.startswith(begins)
    ] == []


def sections_followed() -> set[str]:
    """The command lines of docs/recovery.md in sections that a test follows, but for those at the primary."""
    tests = [path.read_text("utf-8") for path in (ROOT / "tests/e2e").glob("*.py")]
    titles = {title for text in tests for title in re.findall(r'commands\("([^"]+)"\)', text)}
    given = [words for title in titles for words in commands(title)]
    return {plain(shlex.join(words)) for words in given if words[:2] != ["--home", "primary"]}


def test_what_no_test_runs_is_on_a_list_and_nothing_else_is() -> None:
    run = {plain(line) for page in PLAYS for line, (_, _, why) in zip(typed(page), PLAYS[page], strict=True) if not why}
    excused = {plain(line) for page in PLAYS for line in typed(page)} - run
    for page in PAGES:
        if page in SCRIPTS or page in PLAYS:
            continue
        left = {plain(line) for line in typed(page)} - run - NO_COMMANDS
        left -= excused if page in SAME else set()
        left -= sections_followed() if page == "docs/recovery.md" else set()
        assert left == set(NOT_RUN.get(page, {})), page


class Desk:
    """People at three machines who type what a page says. Each command ends well, and its document is docs/cli.md's."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.told = folder, capsys, rows()
        self.unsaid: list[str] = []
        self.more: list[str] = []  # keys of records that are there, for when one was deleted
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.known = {"TOKEN": "", "KEY": "", "/media/usb": str(folder / "usb")}
        for home in ("p", "c", "v"):
            ports = [free_port() for _ in range(2)]
            listen, enrol = (f'"127.0.0.1:{port}"' for port in ports)
            told = f"listen = {listen}\nenrol_listen = {enrol}\nadvertise = [{listen}]\nadvertise_enrol = [{enrol}]\n"
            (folder / home).mkdir()
            (folder / home / "config.toml").write_text(told + "reserve_mib = 1\n")
        (folder / "usb").mkdir()

    def type(self, machine: str, line: str) -> None:
        """One line at one machine."""
        words = [self.known.get(word, word) for word in shlex.split(line)]
        while words[:1] == ["--home"]:
            words = words[2:]
        if words[0] == "run":
            self.start(machine)
            return
        if words[0] in FILLED["--yes"] and "--dry-run" not in words and "--status" not in words:
            words.append("--yes")
        self.capsys.readouterr()
        code = invoke(["--home", str(self.folder / machine), "--json", *words], {"LANG": "C.UTF-8"})
        shown = self.capsys.readouterr()
        assert code == 0, f"{machine}: {line}\n{shown.out}{shown.err}"
        document = json.loads(shown.out)
        keys = document.keys() - {"version", "command", "ok", "dry_run"}
        names = found(words)[1]
        row = self.told[names].replace(".", "`") + (self.told["audit", "check"] if names == ("audit", "prove") else "")
        self.unsaid += [f"{line}: {key}" for key in sorted(keys) if f"`{key}" not in row]
        if words[0] == "delete":
            self.known["KEY"] = self.more.pop()
        self.known["TOKEN"] = document.get("token") or self.known["TOKEN"]

    def start(self, machine: str) -> None:
        """The daemon; it says when its ports are open."""
        command = [FEDNODE, "--home", self.folder / machine, "run", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.folder)
        self.daemons[machine] = process
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ok"]

    def close(self) -> None:
        for process in self.daemons.values():
            process.send_signal(signal.SIGTERM)
            process.communicate()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    made = Desk(tmp_path, capsys)
    licence, penalty = catalog().datasets["admin-licence"], catalog().datasets["admin-penalty"]
    shown = (row for row in records("admin-licence", 90, seed=1, area="130102") if row["xk_yxqzi"] >= "2099")
    rows_ = list(itertools.islice(shown, 3))  # which nobody withdraws
    made.more = ["|".join(row[code] for code in licence.key) for row in rows_]
    made.known["KEY"] = made.more.pop()
    write(tmp_path / "licences.xlsx", licence, iter(rows_), form="xlsx")
    write(tmp_path / "penalties.csv", penalty, records("admin-penalty", 3, seed=1, area="130102"))
    write(tmp_path / "old-table.csv", licence, records("admin-licence", 3, seed=2, area="130102"))
    old = (tmp_path / "old-table.csv").read_text("utf-8")
    (tmp_path / "old-table.csv").write_text(old.replace("行政相对人名称", "公司名", 1), "utf-8")
    yield made
    made.close()


@pytest.mark.e2e
@pytest.mark.parametrize("page", PLAYS)
def test_a_reader_types_it_all(page: str, desk: Desk) -> None:
    if page == "docs/operate.md":
        desk.known |= {"130102001001": "1301", "130102": "1301"}  # whoever there is in the play
    if page == "docs/catalog.md":
        desk.type("p", "init --id 13 --name Hebei")
        whole = [line for line in lines("catalog.md") if not line.startswith("fednode ")]
        Path("catalog.toml").write_text("\n".join(whole), "utf-8")
    for line, (machine, _, _) in zip(typed(page), PLAYS[page], strict=True):
        if machine:
            desk.type(machine, line)
    if page == "README.md":
        for line in BESIDE:
            desk.type("p", line)
    assert desk.unsaid == [], "keys of documents that docs/cli.md does not have:\n" + "\n".join(desk.unsaid)
