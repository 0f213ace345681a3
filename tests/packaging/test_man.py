"""scripts/man: each command has a page, examples first, that a formatter takes without a word."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import rich_click as click

import builder
from fednode.node.cli import LOADERS, cli
from fednode.node.cli.frame import Group, Session
from source import ROOT


@pytest.fixture(scope="module")
def man() -> ModuleType:
    found: ModuleType = builder.module("_man")
    return found


@pytest.fixture(scope="module")
def pages(man: ModuleType) -> dict[str, str]:
    made: dict[str, str] = man.pages()
    return made


def test_chinese_pages_are_the_same_in_chinese(man: ModuleType, pages: dict[str, str]) -> None:
    chinese: dict[str, str] = man.pages("zh")
    assert chinese.keys() == pages.keys()
    for name, page in chinese.items():
        assert re.findall(r"^\.SH (.+)$", page, re.MULTILINE)[:4] == ["名称", "示例", "概述", "描述"], name
        assert re.search(r"\.SH 描述\n.*[\u4e00-\u9fff]", page), name
        assert page.count("\n.TP") == pages[name].count("\n.TP")


def test_each_command_has_a_page_with_examples_first(pages: dict[str, str]) -> None:
    assert {f"fednode-{name}.1" for name in LOADERS} | {"fednode.1", "fednode-audit-verify.1"} <= set(pages)
    for name, page in pages.items():
        headings = re.findall(r"^\.SH (.+)$", page, re.MULTILINE)
        assert headings[:4] == ["NAME", "EXAMPLES", "SYNOPSIS", "DESCRIPTION"], name
        assert "EXIT STATUS" in headings
        assert re.search(r"\.nf\nfednode.*\n\.fi|\.nf\n(fednode.*\n)+\.fi", page), name
        assert "help." not in page, f"{name} shows a key of the catalogue"


def test_examples_are_command_lines(man: ModuleType) -> None:
    """Each is parsed by the command that it is of: an option that went would be noticed."""
    for path, given in man.examples(dict(man.commands(cli))).items():
        for line in given:
            words = shlex.split(line.partition(" > ")[0])[1:]
            command: click.Command = cli
            context = click.Context(cli, obj=Session({}))
            for name in path:
                assert words.pop(0) == name
                assert isinstance(command, Group)
                command = command.get_command(context, name) or command
            if path and "--help" not in words and not isinstance(command, Group):
                command.make_context(" ".join(path), words, parent=context)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_a_formatter_has_nothing_to_say(man: ModuleType, pages: dict[str, str], tmp_path: Path) -> None:
    files = []
    for lang, made in (("en", pages), ("zh", man.pages("zh"))):
        (tmp_path / lang).mkdir()
        for name, page in made.items():
            files.append(tmp_path / lang / name)
            files[-1].write_text(page, "utf-8")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-K", "utf8", "-T", "utf8", *files], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    one = tmp_path / "en/fednode-doctor.1"
    shown = subprocess.run(["groff", "-man", "-T", "ascii", one], capture_output=True, text=True, check=True).stdout
    assert "fednode doctor --full" in shown


def test_the_script_writes_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/_man.py", tmp_path / "man", "zh"], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "man/fednode.1").exists()
    assert str(len(list((tmp_path / "man").iterdir()))) in done.stdout
