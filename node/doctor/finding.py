"""A check, and what it found.

Rules
1. A check has a number and an id that stay for good: people read them out over the telephone, scripts ask for them.
2. A finding is one of four: ok, warning (works, but look at it), failure (does not work), not applicable. It says what
   is so, and where it is not ok what to do next, with the command that mends it.
3. Numbers stay numbers until they are told: `Size` and `Span` become words in the language that is asked for.
4. Words are keys of the message catalogue, or an error of ours, which has words and a hint already.

>>> found = warning("doctor.daemon_off")
>>> found.state, found.told("en")[1][:28], found.commands("en")
('warning', '`sudo systemctl start fednod', ['sudo systemctl start fednode', 'fednode run'])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from fednode.crypto.errors import FednodeError
from fednode.node.messages import catalogue, error_text, hint, text
from fednode.node.units import human_bytes, human_ms

OK, WARNING, FAILURE, NOT_APPLICABLE = "ok", "warning", "failure", "not_applicable"
STATES = (OK, WARNING, FAILURE, NOT_APPLICABLE)
PROGRAMS = frozenset(
    ("fednode", "sudo", "chmod", "df", "du", "free", "top", "ss", "timedatectl", "journalctl", "getent", "ip", "ping")
)
WAITS = "doctor.waits"  # for a check before it that failed
_MARKED = re.compile(r"`([^`]+)`")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Span:
    """A duration in milliseconds."""

    ms: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a range of a log: a code, in a few words."""

    code: str


def _shown(value: Any, lang: str) -> Any:
    if isinstance(value, Fault):
        key = f"verify.{value.code}"
        return text(key, lang) if key in catalogue() else error_text(FednodeError(value.code), lang)[0]
    if isinstance(value, Size):
        return human_bytes(value.bytes)
    return human_ms(value.ms, lang) if isinstance(value, Span) else value


@dataclass(frozen=True, slots=True)
class Finding:
    """`words`: a key of the catalogue with its `params`; or `error`, whose words are taken. `data`: for --json."""

    state: str
    words: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    error: FednodeError | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The error's; "" where there is none."""
        return self.error.code if self.error is not None else ""

    def told(self, lang: str) -> tuple[str, str]:
        """What is so, and what to do next ("" for nothing)."""
        if self.error is not None:
            return error_text(self.error, lang)
        params = {name: _shown(value, lang) for name, value in self.params.items()}
        return text(self.words, lang, **params), hint(self.words, lang, **params)

    def commands(self, lang: str) -> list[str]:
        """The commands that what to do next names: settings and the like stand in the same marks."""
        return [one for one in _MARKED.findall(self.told(lang)[1]) if one.split()[0] in PROGRAMS]

    def having(self, **data: Any) -> Finding:
        """The same, with data for --json."""
        return replace(self, data={**self.data, **data})


def ok(words: str, **params: Any) -> Finding:
    return Finding(OK, words, params)


def warning(words: str, **params: Any) -> Finding:
    return Finding(WARNING, words, params)


def failure(words: str, **params: Any) -> Finding:
    return Finding(FAILURE, words, params)


def beside(words: str, **params: Any) -> Finding:
    """Not applicable."""
    return Finding(NOT_APPLICABLE, words, params)


def wrong(error: FednodeError) -> Finding:
    """A failure that an error of ours says."""
    return Finding(FAILURE, error=error)


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """`exit_code`: the command's, where this is the first check that failed. `needs`: ids of checks before it without
    which there is nothing to look at: where one of them failed, this one is not applicable."""

    number: int
    id: str
    exit_code: int
    look: Callable[[S], Finding]
    needs: tuple[str, ...] = ()


Found = tuple[Check[S], Finding]


def run(checks: Sequence[Check[S]], scene: S, told: Callable[[Check[S]], None] = lambda check: None) -> list[Found[S]]:
    """Look, one check after the other. `told`: which one begins. What a check raises is what it found."""
    missing: dict[str, int] = {}  # id -> number of the check that is to blame
    found: list[Found[S]] = []
    for check in checks:
        told(check)
        blame = min((missing[one] for one in check.needs if one in missing), default=0)
        one = beside(WAITS, number=blame) if blame else _looked(check, scene)
        if blame or one.state == FAILURE:
            missing[check.id] = blame or check.number
        found.append((check, one))
    return found


def _looked(check: Check[S], scene: S) -> Finding:
    try:
        return check.look(scene)
    except FednodeError as error:
        return wrong(error)
    except OSError as error:
        path = str(error.filename or "-")
        return failure("doctor.os", reason=error.strerror or str(error), path=path)


def exit_code(found: Sequence[Found[S]]) -> int:
    """That of the first check that failed; 0 where none did."""
    return next((check.exit_code for check, one in found if one.state == FAILURE), 0)


def worst(found: Sequence[Found[S]]) -> str:
    """Failure where there is one, else warning where there is one, else ok."""
    states = {one.state for _, one in found}
    return FAILURE if FAILURE in states else WARNING if WARNING in states else OK


def document(found: Sequence[Found[S]], lang: str) -> dict[str, Any]:
    """All of it for --json: words in a language, keys and numbers that stay."""
    checks = []
    for check, one in found:
        message, following = one.told(lang)
        checks.append(
            {
                "number": check.number,
                "id": check.id,
                "state": one.state,
                "code": one.code,
                "message": message,
                "next": following,
                "commands": one.commands(lang),
                "data": one.data,
            }
        )
    counts = {state: sum(one.state == state for _, one in found) for state in STATES}
    return {"state": worst(found), "counts": counts, "checks": checks}
