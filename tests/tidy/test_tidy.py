"""The rules of docs/architecture.md that a tool can hold us to and that ruff, mypy and import-linter cannot say.

Each test collects every breach before it fails, as `file:line what`, so that one run shows all there is to mend.
"""

from __future__ import annotations

import ast
import configparser
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from source import PACKAGES, ROOT, Source, dotted, sources

# Lines of a module, lines of a function. No exemptions: a file that needs one wants splitting.
LIMITS = {"crypto": (400, 70), "sync": (400, 70), "proto": (400, 70), "node": (700, 90), "tests": (700, 120)}

# The real clock and randomness enter in one place; all else is given `now` and `rng`. Keep it tiny: file -> reason.
REAL_WORLD = {"node/app.py": "the composition root"}
CLOCKS = {
    "time.time", "time.time_ns", "time.localtime", "time.gmtime",
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
    "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4",
}  # fmt: skip
RANDOM = ("random", "secrets")

# What import-linter cannot see: builtins that reach outside, in rooms that must not.
OUTSIDE = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


def every(*folders: str) -> tuple[Source, ...]:
    return sources(*(folders or PACKAGES))


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in source.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def report(breaches: list[str]) -> None:
    if breaches:
        pytest.fail("\n" + "\n".join(breaches), pytrace=False)


def test_imports_name_fednode_in_full() -> None:
    """`import crypto` finds whatever distribution is called so; `from . import` hides where a thing lives."""
    report(
        [
            f"{source.name}:{line} import {name}: write fednode.{name.lstrip('.')}"
            for source in every(*PACKAGES, "tests", "scripts", "src")
            for line, name in source.imports()
            if name.split(".")[0] in (*PACKAGES, "")
        ]
    )


def test_modules_and_functions_are_short() -> None:
    breaches = []
    for source in every(*PACKAGES, "tests"):
        module_max, function_max = LIMITS[source.room]
        if (lines := len(source.lines)) > module_max:
            breaches.append(f"{source.name}:1 {lines} lines, at most {module_max}")
        for function in functions(source):
            if (lines := (function.end_lineno or 0) - function.lineno + 1) > function_max:
                breaches.append(
                    f"{source.name}:{function.lineno} {function.name} has {lines} lines, at most {function_max}"
                )
    report(breaches)


def test_modules_say_what_they_are() -> None:
    report(
        [f"{source.name}:1 no docstring" for source in every() if not (ast.get_docstring(source.tree) or "").strip()]
    )


def test_only_app_takes_the_real_clock_and_randomness() -> None:
    breaches = []
    for source in every("node"):
        if source.name in REAL_WORLD:
            continue
        breaches += [f"{source.name}:{c.lineno} {dotted(c.func)}()" for c in source.calls() if dotted(c.func) in CLOCKS]
        breaches += [
            f"{source.name}:{line} import {name}"
            for line, name in source.imports()
            if name.split(".")[0] in RANDOM or name in CLOCKS
        ]
    report(breaches)


def test_the_table_of_exceptions_names_files_that_exist() -> None:
    missing = [name for name in REAL_WORLD if not (ROOT / name).exists()]
    if missing == ["node/app.py"]:
        pytest.skip("node/app.py is not written yet")
    assert missing == []


def test_pure_rooms_call_nothing_outside() -> None:
    report(
        [
            f"{source.name}:{call.lineno} {call.func.id}()"
            for source in every("crypto", "sync")
            for call in source.calls()
            if isinstance(call.func, ast.Name) and call.func.id in OUTSIDE
        ]
    )


def test_no_check_is_an_assert() -> None:
    """`python -O` takes asserts out; a check that matters raises."""
    report(
        [
            f"{source.name}:{node.lineno} assert"
            for source in every()
            for node in source.nodes
            if isinstance(node, ast.Assert)
        ]
    )


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(dotted(kind) in ("Exception", "BaseException") for kind in types)


def says_why(source: Source, handler: ast.ExceptHandler) -> bool:
    """A comment on the `except`, or on a line of its own right before or after it, that is more than a `noqa`."""
    line, before, after = (source.lines[n] if 0 <= n < len(source.lines) else "" for n in _around(handler.lineno - 1))
    beside = [text.strip() for text in (before, after) if text.strip().startswith("#")]
    return any(comment.strip(" #") and "noqa" not in comment for comment in [line.partition("#")[2], *beside])


def _around(n: int) -> tuple[int, int, int]:
    return n, n - 1, n + 1


def test_catching_everything_says_why() -> None:
    """Anything outside the error families is a bug, not to be swallowed. Undoing and raising again needs no comment."""
    report(
        [
            f"{source.name}:{node.lineno} catches everything, and no comment says why"
            for source in every()
            for node in source.nodes
            if isinstance(node, ast.ExceptHandler)
            and catches_everything(node)
            and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
            and not says_why(source, node)
        ]
    )


def test_tests_do_not_sleep() -> None:
    """A test that waits for time is slow or flaky or both. `asyncio.sleep(0)`, which lets others run, is allowed."""
    report(
        [
            f"{source.name}:{call.lineno} sleep"
            for source in every("tests")
            for call in source.calls()
            if dotted(call.func).split(".")[-1] == "sleep"
            and not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
        ]
    )


# Whole or not at all, and on disk: fednode.node.files knows how, and nothing else in node writes a file of its own.
WRITERS = {"write_text", "write_bytes", "copyfile", "copy2", "copytree", "copymode", "touch"}
MOVERS = {
    "os.replace",
    "os.rename",
    "os.renames",
    "os.link",
    "os.ftruncate",
    "os.truncate",
    "shutil.move",
    "shutil.copy",
}
WRITING = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}


def writes_a_file(call: ast.Call) -> bool:
    """Whether a call opens a file for writing, or moves one."""
    name = dotted(call.func)
    last = name.split(".")[-1]
    if name in MOVERS or last in WRITERS:
        return True
    if last not in ("open", "fdopen"):
        return False
    inside = [node for argument in (*call.args, *(one.value for one in call.keywords)) for node in ast.walk(argument)]
    if any(dotted(one) == "os.devnull" for one in inside if isinstance(one, ast.Attribute)):
        return False
    flags = any(isinstance(one, ast.Attribute) and one.attr in WRITING for one in inside)
    mode = any(isinstance(one, ast.Constant) and is_mode(one.value) for one in inside)
    return flags or mode


def is_mode(value: object) -> bool:
    """Whether a constant is a mode that writes."""
    return (
        isinstance(value, str) and len(value) <= 3 and set(value) <= set("rwaxbt+") and bool(set(value) & set("wax+"))
    )


def test_files_are_written_by_one_module() -> None:
    report(
        [
            f"{source.name}:{call.lineno} {dotted(call.func)}: write it with fednode.node.files"
            for source in every("node")
            if source.name != "node/files.py"
            for call in source.calls()
            if writes_a_file(call)
        ]
    )


WRITES = (
    "open(p, 'w')",
    "p.open(mode='ab')",
    "os.open(p, os.O_WRONLY | os.O_CREAT)",
    "p.write_bytes(b'')",
    "os.replace(a, b)",
)
READS = ("open(p)", "p.open('rb')", "os.open(p, os.O_RDONLY)", "text.replace(a, b)", "os.open(os.devnull, os.O_WRONLY)")


@pytest.mark.parametrize("code", [*WRITES, *READS])
def test_what_counts_as_writing_a_file(code: str) -> None:
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert writes_a_file(call) is (code in WRITES)


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_setup_cfg_lists_every_package() -> None:
    listed = set(setup_cfg()["options"]["packages"].split())
    found = {
        ".".join(("fednode", *path.parent.relative_to(ROOT).parts))
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found | {"fednode"}


def test_every_module_is_in_a_package() -> None:
    report(
        [
            f"{s.name} has no __init__.py beside it"
            for s in every()
            if not (ROOT / s.name).with_name("__init__.py").exists()
        ]
    )


def test_setup_cfg_ships_every_data_file() -> None:
    patterns = [
        ("/".join((*package.split(".")[1:], pattern)))
        for package, value in setup_cfg()["options.package_data"].items()
        for pattern in value.replace(",", " ").split()
    ]
    files = (path for folder in PACKAGES for path in (ROOT / folder).rglob("*") if path.is_file())
    names = [str(path.relative_to(ROOT)) for path in files if path.suffix not in (".py", ".pyc")]
    report([f"{name} is in no [options.package_data]" for name in names if not any(fnmatch(name, p) for p in patterns)])


def test_every_page_comes_with_the_program() -> None:
    """`fednode docs` reads links into docs/, which the wheel and the binary hold as files."""
    links = {path.name: os.readlink(path) for path in (ROOT / "node/data/docs").iterdir()}
    assert links == {path.name: f"../../../docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_scripts_can_be_run() -> None:
    report(
        [
            f"{path.relative_to(ROOT)} is not executable, or has no #! line"
            for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"]
            if path.is_file() and not path.name.startswith("_") and not _runs(path)
        ]
    )


def _runs(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!" and bool(path.stat().st_mode & 0o100)
