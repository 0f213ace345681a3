"""The script in front of the binary: it refuses politely where the program cannot run, else it is not in the way."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import builder

OLDEST = (2, 35)
CANNOT = 78


def launch(
    folder: Path, *, machine: str = "x86_64", glibc: str = "glibc 2.36", loader: str = "/"
) -> tuple[int, str, str]:
    """Start the launcher on a machine that says this of itself. Returns exit code, stdout, stderr."""
    text = builder.module("_build_binary").script("launcher.sh", OLDEST, MACHINE="x86_64", LOADER=loader)
    assert "@" not in text.replace('"$@"', "")
    (folder / "real").mkdir()
    (folder / "tools").mkdir()
    programs = {"real/fednode": text, "real/fednode.bin": '#!/bin/sh\necho "ran $*"\n'}
    programs |= {"tools/uname": f"#!/bin/sh\necho {machine}\n"}
    programs |= {"tools/getconf": f"#!/bin/sh\necho {glibc}\n" if glibc else "#!/bin/sh\nexit 1\n"}
    programs |= {"tools/ldd": "#!/bin/sh\nexit 1\n"}
    for name, content in programs.items():
        (folder / name).write_text(content, "utf-8")
        (folder / name).chmod(0o755)
    (folder / "link").symlink_to("real/fednode")
    for tool in ("dirname", "readlink", "head"):
        (folder / "tools" / tool).symlink_to(shutil.which(tool) or tool)
    environment = {"PATH": str(folder / "tools")}
    done = subprocess.run([folder / "link", "a b", "c"], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("glibc", ["glibc 2.35", "glibc 2.36", "glibc 2.100", "glibc 3.0", "glibc 2.35.1", "musl", ""])
def test_it_runs_the_program_where_it_can(tmp_path: Path, glibc: str) -> None:
    assert launch(tmp_path, glibc=glibc) == (0, "ran a b c\n", "")


@pytest.mark.parametrize("glibc", ["glibc 2.34", "glibc 2.9", "glibc 1.99", "glibc 2.28-234.el8"])
def test_it_refuses_an_old_system_in_both_languages(tmp_path: Path, glibc: str) -> None:
    code, out, err = launch(tmp_path, glibc=glibc)
    assert (code, out) == (CANNOT, "")
    assert "系统太旧" in err
    assert "too old" in err
    assert glibc.split()[1] in err
    assert "2.35" in err


def test_it_refuses_another_processor(tmp_path: Path) -> None:
    code, _, err = launch(tmp_path, machine="i686")
    assert code == CANNOT
    assert "i686" in err


def test_it_refuses_a_system_without_glibc(tmp_path: Path) -> None:
    code, _, err = launch(tmp_path, loader="/nowhere/ld-linux.so")
    assert code == CANNOT
    assert "/nowhere/ld-linux.so" in err
