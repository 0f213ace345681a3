"""The operator's way with a stick, word by word as docs/operate.zh.md tells it (section 7)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.cli import invoke
from sticks import Row, held, write

PAGE = Path(__file__).parents[3] / "docs" / "operate.zh.md"
LINE = re.compile(r"    fednode (.+?)\s+# (村|乡镇)：(.*)")
HOMES = {"村": "130102001001", "乡镇": "130102001"}


def told(title: str) -> list[tuple[str, str]]:
    """(machine, command) of the steps under a title of the page."""
    section = PAGE.read_text("utf-8").split(f"### {title}")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    ")]
    found = [match for match in map(LINE.fullmatch, lines) if match]
    assert len(found) == len(lines) > 3
    return [(match[2], match[1]) for match in found]


class Operators:
    """Two people who do what the page says, with one stick and a telephone."""

    def __init__(self, row: Row, capsys: pytest.CaptureFixture[str]) -> None:
        self._row, self._capsys = row, capsys
        self._stick = row.stick()
        self.said: list[str] = []
        self._known = {"令牌": "", "申请指纹": "", "根证书指纹": ""}

    def follow(self, title: str) -> None:
        for machine, command in told(title):
            for name, value in self._known.items():
                command = command.replace(name, value)
            words = shlex.split(command.replace("/media/usb", str(self._stick)))
            home = self._row.folder / HOMES[machine]
            self._capsys.readouterr()
            code = invoke(["--home", str(home), "--lang", "zh", *words], {"LANG": "zh_CN.UTF-8"})
            shown = self._capsys.readouterr()
            assert code == 0, f"{machine}: {command}\n{shown.out}{shown.err}"
            self.said.append(shown.out + shown.err)
            self._learn(words, shown.out)

    def _learn(self, words: list[str], shown: str) -> None:
        if words[0] == "invite" and "--answer" not in words:
            self._known["令牌"] = shown.split()[0]
        if "--request" in words:
            self._known["申请指纹"] = re.findall(r"指纹：([0-9 ]{24})", shown)[0]
        if "--answer" in words:
            self._known["根证书指纹"] = re.findall(r"根证书指纹：([0-9 ]{24})", shown)[0]


@pytest.fixture
def row(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Row]:
    made = Row(tmp_path, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("row", [4], indirect=True)
def test_one_exchange(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    township, village = row.apps[3:]
    write(village, "a", "b", "c")
    people = Operators(row, capsys)
    people.follow("交换一次（村 → 乡镇 → 村）")
    status, exported, inspected, dry, imported, back, after = people.said
    fingerprints = [re.findall(r"指纹：([0-9 ]{24})", one)[0] for one in (exported, inspected, dry, imported)]
    assert len(set(fingerprints)) == 1, "what the telephone compares"
    assert "签名有效" in inspected
    assert "个确认" in back
    assert "上级尚未持有" in status
    assert "上级已持有本机保存的全部内容" in after
    assert held(township) == 3


@pytest.mark.parametrize("row", [3], indirect=True)
@pytest.mark.parametrize("title", ["用U盘加入（有令牌）", "用U盘加入（没有令牌：双方用电话核对指纹）"])
def test_joining(row: Row, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    people = Operators(row, capsys)
    people.follow(title)
    township = row.apps[3]
    township.trust.refresh(township.store)
    known = township.trust.directory.get("130102001001")
    assert known is not None
    assert known.name == "某村"
    assert township.store.peer("130102001001") is not None
    capsys.readouterr()
    assert invoke(["--home", str(row.folder / "130102001001"), "--json", "status"], {}) == 0
    assert '"catalog":1' in capsys.readouterr().out


def test_the_readme_names_the_same_steps() -> None:
    root = PAGE.parents[1]
    for name in ("README.md", "README.zh.md"):
        text = (root / name).read_text("utf-8")
        for step in ("bundle export --to parent -o", "bundle inspect", "bundle import", "join"):
            assert step in text, (name, step)
