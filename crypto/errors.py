"""Errors: a stable code, what it happened to, and the exit code that the code implies.

Rules
1. A code is `FN-` and four digits; its first digit is the exit code: 2 usage, 3 input refused, 4 peer not reachable,
   5 refused by the peer or not permitted, 6 integrity failure, 7 store trouble. A code that was released never changes
   its meaning.
2. An error's class decides the reaction (here and in `fednode.sync.errors`), its code decides the words.
3. Words for people live in the message catalogue (`node/messages/*.toml`), never in the code that raises. Parameters
   are values that those words name; no secret is ever a parameter.

>>> error = IntegrityError("FN-6201", log="hebei/13/1/sys.catalog", size=7)
>>> str(error), error.exit_code, error.params["size"]
('FN-6201 (log=hebei/13/1/sys.catalog, size=7)', 6, 7)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

_CODE = re.compile(r"FN-[2-7][0-9]{3}")


class FednodeError(Exception):
    """Anything that fednode reports to a person or a peer. `params` are the values its message names.

    Making one never raises: the code may have come from a peer. That the codes in our own source are well formed, and
    of a family (`exit_codes`) that their class stands for, is checked by tests/tidy."""

    exit_codes: ClassVar[frozenset[int]] = frozenset(range(2, 8))

    def __init__(self, code: str, /, **params: Any) -> None:
        super().__init__(code)
        self.code = code
        self.params: Mapping[str, Any] = params

    @property
    def exit_code(self) -> int:
        """What the command line exits with: the first digit of the code; 1 when it is no code of ours."""
        return int(self.code[3]) if _CODE.fullmatch(self.code) else 1

    def __str__(self) -> str:
        inner = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.code} ({inner})" if inner else self.code

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way would drop the parameters (worker processes send errors back pickled).
        return _rebuild, (type(self), self.code, dict(self.params), dict(self.__dict__))


class IntegrityError(FednodeError):
    """A proof does not hold: signature, hash, tree, ciphertext, certificate. Keep the evidence; no retry as it is."""

    exit_codes = frozenset({6})


def _rebuild(cls: type[FednodeError], code: str, params: dict[str, Any], attributes: dict[str, Any]) -> FednodeError:
    error = cls(code, **params)
    error.__dict__.update(attributes)
    return error
