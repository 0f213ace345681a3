"""The list of what is in the binary (SBOM, CycloneDX 1.6): from what PyInstaller took, not from what was installed.

Rules
1. A file belongs to the distribution whose RECORD names it, to Python itself, to this project, or to a package of the
   system that dpkg names. One that is nobody's ends the build: a list that leaves out something is worse than none.
2. Nothing in it depends on when or where it was made.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

from _release import ROOT, sha256
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import fednode

OWN = {"fednode"}
TOCS = ("PYZ-00.toc", "Analysis-00.toc")


@dataclass
class Parts:
    """What is in the binary. `system`: libraries of this machine, by path."""

    distributions: dict[str, Distribution] = field(default_factory=dict)
    system: dict[Path, str] = field(default_factory=dict)


def taken(work: Path) -> list[Path]:
    """Every file that PyInstaller took, out of the tables that it leaves in its work folder."""
    found: set[Path] = set()

    def walk(value: object) -> None:
        if (
            isinstance(value, tuple)
            and len(value) == 3
            and value[2] in ("PYMODULE", "PYSOURCE", "EXTENSION", "BINARY", "DATA")
        ):
            found.add(Path(os.path.abspath(str(value[1]))))
        elif isinstance(value, tuple | list):
            for one in value:
                walk(one)

    for toc in work.rglob("*.toc"):
        if toc.name in TOCS:
            walk(ast.literal_eval(toc.read_text("utf-8")))
    return sorted(path for path in found if path.is_file())


def _owners() -> dict[Path, Distribution]:
    owners = {}
    for one in distributions():
        for file in one.files or ():
            owners[Path(os.path.abspath(str(one.locate_file(file))))] = one
    return owners


def _system_package(path: Path) -> str:
    """`name=version` of the Debian package that a library is from, "" where nobody knows."""
    if shutil.which("dpkg-query") is None:
        return ""
    for candidate in dict.fromkeys((str(path), str(path.resolve()), str(path).removeprefix("/usr"))):
        owner = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False)
        if owner.returncode == 0:
            name = owner.stdout.split(": ")[0].split(",")[0]
            asked = ["dpkg-query", "-W", "-f", "${Package}=${Version}", name]
            return subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return ""


def _built() -> dict[str, str]:
    """What is of this Python's own building (scripts/_older_root.py): `name=version` of the source package, by file."""
    told = Path(sys.base_prefix, "SOURCES")
    lines = told.read_text("ascii").splitlines() if told.exists() else []
    return dict(line.split(maxsplit=1) for line in lines)


def parts(work: Path, but: Collection[str]) -> Parts:
    """Whose the files are, `but` those of these names. Ends the program on one that is nobody's (rule 1)."""
    owners, found, strangers, built = _owners(), Parts(), [], _built()
    python = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    python |= {Path(sys.base_prefix).resolve() / "lib"}
    here = (ROOT, work)
    for path in taken(work):
        if path.name in but:
            continue
        owner, ours = owners.get(path), ".venv" not in path.parts and any(path.is_relative_to(one) for one in here)
        standard = "site-packages" not in path.parts and any(path.resolve().is_relative_to(one) for one in python)
        if owner is not None:
            if owner.name not in OWN:
                found.distributions[owner.name.lower()] = owner
        elif path.name in built:
            found.system[path] = built[path.name]
        elif ours or standard or path.suffix == ".pyc":
            continue
        elif package := _system_package(path):
            found.system[path] = package
        else:
            strangers.append(str(path))
    if strangers:
        sys.exit("the binary holds files that belong to no package:\n" + "\n".join(strangers))
    return found


def licences(found: Parts) -> Iterator[tuple[str, Path]]:
    """(distribution, file) of every licence text that has to go along."""
    for name, one in sorted(found.distributions.items()):
        for file in one.files or ():
            stem = file.name.upper()
            if ".dist-info" in str(file) and stem.startswith(("LICEN", "COPYING", "NOTICE", "AUTHORS")):
                yield name, Path(str(one.locate_file(file)))


def _licence(one: Distribution) -> list[DisjunctiveLicense | LicenseExpression]:
    metadata = one.metadata
    if expression := metadata.get("License-Expression"):
        return [LicenseExpression(expression)]
    named = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    given = (metadata.get("License") or "").strip().split("\n")[0][:80]
    return [DisjunctiveLicense(name=name) for name in sorted(set(named)) or ([given] if given else [])]


def _components(found: Parts) -> Iterable[Component]:
    python = _built().get("cpython", sys.version.split()[0]).rpartition("=")[2]
    yield Component(name="cpython", version=python, type=ComponentType.PLATFORM, bom_ref="cpython")
    for name, one in sorted(found.distributions.items()):
        url = PackageURL("pypi", None, name.replace("_", "-"), one.version)
        yield Component(
            name=name,
            version=one.version,
            purl=url,
            bom_ref=str(url),
            type=ComponentType.LIBRARY,
            licenses=_licence(one),
        )
    for path, package in sorted(found.system.items()):
        name, _, version = package.partition("=")
        url = PackageURL("deb", "debian", name, version)
        digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256(path))
        ref = f"{url}#{path.name}"
        yield Component(
            name=path.name, version=version, purl=url, bom_ref=ref, type=ComponentType.LIBRARY, hashes=[digest]
        )


def write(found: Parts, target: Path, time_s: int, commit: str) -> None:
    """The list, as CycloneDX JSON."""
    about = Component(name="fednode", version=fednode.__version__, type=ComponentType.APPLICATION, bom_ref="fednode")
    bom = Bom(components=_components(found))
    bom.metadata.component = about
    bom.metadata.timestamp = datetime.fromtimestamp(time_s, UTC)
    bom.metadata.tools.tools.clear()
    bom.register_dependency(about, list(bom.components))
    inside = "".join(sorted(f"{one.bom_ref}\n" for one in bom.components))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"fednode {fednode.__version__} {commit}\n{inside}")
    target.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n", "utf-8")
