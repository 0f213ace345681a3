"""The layout works for every tool: wheel, editable install, mypy and pyright see the same modules under `fednode`.

The symlinks in src/fednode are what makes it so. A tool that skips them reports no errors because it looks at nothing,
so each type checker must find an error that is put there for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from source import PACKAGES, ROOT

SEED = "\n\ndef seeded_error() -> int:\n    return 'not an int'\n"
# A module of each room, and of a subpackage: the seeded error goes at its end.
SEEDED = ("crypto/errors.py", "sync/errors.py", "node/i18n.py", "node/messages/__init__.py")


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def succeed(*command: str | Path, cwd: Path, **env: str) -> str:
    done = run(*command, cwd=cwd, **env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shipped() -> set[str]:
    """Paths below fednode/ of what an installation must have: every module and data file of the four folders."""
    files = (path for folder in PACKAGES for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"} | {"__init__.py", "py.typed"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what matters, so that nothing here writes into the working tree."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in (*PACKAGES, "src", "docs"):  # node/data/docs are links to docs
        junk = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=junk)
    for name in ("setup.cfg", "pyproject.toml", "pyrightconfig.json", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    succeed(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        out,
        checkout,
        cwd=checkout,
    )
    (built,) = out.glob("fednode-*.whl")
    return built


def test_the_folders_are_joined_by_relative_symlinks() -> None:
    for folder in PACKAGES:
        link = ROOT / "src/fednode" / folder
        assert link.is_symlink(), f"{link}: a checkout without symlinks? (git config core.symlinks true)"
        assert os.readlink(link) == f"../../{folder}"


@pytest.mark.slow
def test_the_wheel_holds_every_file_and_no_other_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"fednode"}
    assert {name.removeprefix("fednode/") for name in names} == shipped()


@pytest.mark.slow
def test_wheel_and_editable_install_see_the_same(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    walk = (
        "import pkgutil, fednode; from importlib import resources;"
        "print(sorted(m.name for m in pkgutil.walk_packages(fednode.__path__, 'fednode.', onerror=lambda name: None)));"
        "print(sorted(p.name for p in resources.files('fednode').joinpath('node/messages').iterdir()));"
        "import fednode.node.messages as m; print(m.text('error.label', 'zh'))"
    )
    seen = []
    for name, what in (("wheel", [wheel]), ("editable", ["--editable", checkout])):
        venv = tmp_path / name
        succeed(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
        python = venv / "bin/python"
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-build-isolation")
        # The build backend comes from the environment that runs the tests: no index is asked.
        site = next(path for path in sys.path if path.endswith("site-packages"))
        succeed(*pip, *what, cwd=tmp_path, PYTHONPATH=site)
        seen.append(succeed(python, "-c", walk, cwd=tmp_path))
        assert (venv / "bin/fednode").exists()
        for bare in PACKAGES:
            assert run(python, "-c", f"import {bare}", cwd=tmp_path).returncode != 0, f"{name} installs a bare {bare}"
    assert seen[0].splitlines()[0] == seen[1].splitlines()[0]
    assert "错误" in seen[0]
    assert "错误" in seen[1]


@pytest.fixture(scope="module")
def seeded(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("seeded") / "checkout"
    shutil.copytree(checkout, copy, symlinks=True)
    for name in SEEDED:
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write(SEED)
    return copy


@pytest.mark.slow
def test_mypy_sees_every_room(seeded: Path) -> None:
    output = run(sys.executable, "-m", "mypy", "--cache-dir", seeded / "cache", cwd=seeded).stdout
    missed = [name for name in SEEDED if f"src/fednode/{name}" not in output]
    assert missed == [], output


@pytest.mark.slow
def test_pyright_sees_every_room(seeded: Path) -> None:
    # basedpyright is pyright with its Node in the wheel: nothing is fetched when it runs
    pyright = Path(sys.executable).with_name("basedpyright")
    output = run(str(pyright), "--level", "error", cwd=seeded).stdout
    missed = [name for name in SEEDED if f"/{name}:" not in output]
    assert missed == [], output
