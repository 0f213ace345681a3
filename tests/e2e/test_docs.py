"""Every command in the pages for newcomers works, in the order in which a reader types it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import sites
from ports import free_port
from processes import FEDNODE, Processes
from runbook import lines, script

SERVICE = "needs systemd: tests/e2e/test_install.py has a fresh system for it"
INSTALLER = "installs onto this machine: tests/e2e/test_install.py does it in a fresh root"
LEFT_OUT: dict[str, dict[str, str]] = {
    "quickstart.zh.md": {},
    "install.md": {
        r"sudo \./install\.sh": INSTALLER,
        r"sudo apt ": INSTALLER,
        r"tar xzf fednode-": "scripts/build-binary makes the archive, and starts what is in it",
        r"chmod \+x fednode-0": "scripts/build-binary makes the one file, and starts it",
        r"\./fednode-0": "scripts/build-binary makes both, and starts the one file",
        r"fednode-venv/bin/pip install": "asks an index: tests/packaging installs it without one",
        r"sudo systemctl": SERVICE,
        r"sudo journalctl": SERVICE,
    },
    "faq.md": {r"sudo timedatectl": "sets the clock of this machine"},
    "technician.zh.md": {
        r"sudo \./install\.sh": INSTALLER,
        r"sudo systemctl": SERVICE,
        r"sudo journalctl": SERVICE,
    },
    "doctor.md": {},
}
CSV = [line for line in lines("quickstart.md") if line.startswith(("uscc,", "911"))]


def follow(text: str, folder: Path, **environ: str) -> str:
    """Run a page's script in a folder; all that it says."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDNODE_")}
    path = f"{FEDNODE.parent}:{os.environ['PATH']}"
    home = {**clean, "PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "NO_COLOR": "1", **environ}
    done = subprocess.run(
        ["bash", "-x", "-c", text], cwd=folder, env=home, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def ports(*given: str) -> dict[str, str]:
    """Free ports in the place of the page's."""
    return {one: str(free_port()) for one in given}


@pytest.mark.e2e
def test_the_quick_start(tmp_path: Path) -> None:
    page = "quickstart.zh.md"
    said = follow(script(page, LEFT_OUT[page], ports("7443", "7444", "7543", "7544")), tmp_path, FEDNODE_LANG="zh")
    for expected in ("本机可以运行 fednode。", "上级身份", "石家庄远石道路运输有限公司", "注销", "上级"):
        assert expected in said
    assert not (tmp_path / "try-fednode").exists()


def test_the_quick_start_is_the_same_in_both_languages() -> None:
    names = {"河北省": "Hebei", "长安区": "Changan"}

    def told(page: str) -> list[str]:
        found = [line for line in lines(page) if line != 'lang = "zh"']
        return [_named(line, names) if line.startswith("fednode") else line for line in found]

    assert told("quickstart.zh.md") == told("quickstart.md")


def _named(line: str, names: Mapping[str, str]) -> str:
    for zh, en in names.items():
        line = line.replace(zh, en)
    return line


@pytest.fixture(scope="module")
def county(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A province and a county, running, with the organisations of the quick start."""
    with sites.province(tmp_path_factory.mktemp("nodes")) as nodes:
        nodes.found("130102", "county", "长安区", "13")
        nodes.run("130102", "sync")
        (nodes.folder / "organisations.csv").write_text("\n".join(CSV) + "\n", "utf-8")
        nodes.run("130102", "import", "org-registration", str(nodes.folder / "organisations.csv"))
        yield nodes


@pytest.mark.e2e
@pytest.mark.parametrize("page", ["faq.md", "technician.zh.md", "doctor.md"])
def test_pages_for_the_day(county: Processes, tmp_path: Path, page: str) -> None:
    stick = tmp_path / "usb"
    for folder in (stick, tmp_path / "stick"):
        folder.mkdir()
    shutil.copy(county.folder / "organisations.csv", tmp_path)
    replaced = {}
    if page == "technician.zh.md":
        at_the_parent = "sudo fednode bundle import /media/usb        # 在上级的机器上"
        replaced = {
            at_the_parent: f"fednode --home {county.home('13')} bundle import {stick}",
            "/media/usb": str(stick),
            "/tmp/support.tar.gz": "support.tar.gz",
        }
    follow(script(page, LEFT_OUT[page], replaced), tmp_path, FEDNODE_HOME=str(county.home("130102")))
    assert county.run("130102", "doctor")["doctor"]["counts"]["failure"] == 0


@pytest.mark.e2e
def test_the_page_on_installing(tmp_path: Path) -> None:
    """With settings of this test's in both homes: a reader's two machines have the default ports."""
    settings = []
    for home in ("province", "county"):
        listen, enrol = (f"127.0.0.1:{free_port()}" for _ in range(2))
        told = f'listen = "{listen}"\nenrol_listen = "{enrol}"\nadvertise = ["{listen}"]\nadvertise_enrol = ["{enrol}"]'
        settings.append(f"mkdir {home}\ncat > {home}/config.toml <<'END'\n{told}\nEND\n")
    first, join = "fednode --home province init", "fednode --home county join"
    started = "fednode --home province run &\nready province\n"
    replaced = {first: "".join(settings) + first, join: started + join}
    said = follow(script("install.md", LEFT_OUT["install.md"], replaced), tmp_path)
    assert "fednode 0." in said
