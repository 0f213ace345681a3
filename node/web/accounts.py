"""Operator accounts of the console and their sessions: `accounts.db` in the node's home, this node's alone.

Rules
1. Of a password only its argon2id hash is kept, of a session's token only its SHA-256. Nothing of it is in a log, goes
   to another node, or into a backup.
2. Passwords are verified one at a time: each takes `MEMORY_KIB`, and a village has little. An account that is not there
   takes as long as one that is.
3. A session ends when it was idle for too long, when it is too old, when the clock was set back before its beginning,
   and with the account: a change of password or role, and disabling it, end all of its sessions.
4. `now_ms` is this machine's own clock: no peer moves it.

>>> check_name("Alice")
Traceback (most recent call last):
...
fednode.sync.errors.Refused: FN-2802 (name=Alice)
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite
from fednode.node.schema import accounts_migrations, migrate
from fednode.node.web.roles import ROLES
from fednode.sync.errors import Refused, StoreError

FILE = "accounts.db"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
PASSWORD_MIN, PASSWORD_BYTES_MAX = 12, 256
DISTINCT_MIN = 5  # characters of a password
ACCOUNTS_MAX, SESSIONS_MAX = 1_000, 20  # sessions of one account; the oldest goes
MEMORY_KIB = 19 * 1024  # with 2 passes and 1 lane: OWASP's recommendation for argon2id
SEEN_EVERY_MS = 60_000  # how exactly it is known when a session was used last
TOKEN_BYTES = 32
_HASHER = PasswordHasher(time_cost=2, memory_cost=MEMORY_KIB, parallelism=1)
_TURN = threading.Lock()  # rule 2


@dataclass(frozen=True, slots=True)
class Account:
    """One operator. `last_ms`: when somebody signed in last, None: never."""

    name: str
    role: str
    disabled: bool
    made_ms: int
    last_ms: int | None


def check_name(name: str) -> str:
    """The name of an account. Raises Refused FN-2802."""
    if not NAME.fullmatch(name):
        raise Refused("FN-2802", name=name[:64])
    return name


def check_role(role: str) -> str:
    """Raises Refused FN-2804."""
    if role not in ROLES:
        raise Refused("FN-2804", role=role[:64], roles=", ".join(ROLES))
    return role


def check_password(password: str, name: str) -> str:
    """A password that may be set, in NFC. Raises Refused FN-2803."""
    text = unicodedata.normalize("NFC", password)
    weak = len(text) < PASSWORD_MIN or len(set(text)) < DISTINCT_MIN or name in text.lower()
    if weak or len(text.encode("utf-8", "replace")) > PASSWORD_BYTES_MAX:
        raise Refused("FN-2803", least=PASSWORD_MIN, distinct=DISTINCT_MIN, most=PASSWORD_BYTES_MAX)
    return text


def _hash(password: str) -> str:
    with _TURN:
        return _HASHER.hash(password.encode())


NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43  # a hash that nothing fits


def _fits(hashed: str, password: str) -> bool:
    text = unicodedata.normalize("NFC", password).encode("utf-8", "replace")
    if len(text) > PASSWORD_BYTES_MAX:
        return False
    with _TURN:
        try:
            return bool(_HASHER.verify(hashed, text))
        except (VerificationError, InvalidHashError):
            return False


class Accounts:
    """The accounts of one home, through a connection of the caller's thread."""

    def __init__(self, connection: sqlite.Connection, path: Path) -> None:
        self._c, self._path = connection, path

    @classmethod
    def open(cls, home: Path) -> Self:
        """Those of a home; made where there are none yet. Raises StoreError."""
        path = home / FILE
        connection = sqlite.connect(path, synchronous="FULL", cache_kib=256)
        try:
            path.chmod(0o600)
            migrate(connection, accounts_migrations, path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def close(self) -> None:
        self._c.close()

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            found: list[tuple[Any, ...]] = self._c.execute(sql, values).fetchall()
            return found
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, self._path) from error

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        with sqlite.transaction(self._c, self._path):
            for sql, values in statements:
                self._c.execute(sql, values)

    # ------------------------------------------------------------ accounts

    def all(self) -> list[Account]:
        """Every account, by name."""
        rows = self._rows("select name, role, disabled, made_ms, last_ms from account order by name")
        return [_account(row) for row in rows]

    def get(self, name: str) -> Account:
        """One account. Raises Refused FN-3802 where there is none."""
        rows = self._rows("select name, role, disabled, made_ms, last_ms from account where name = ?", name)
        if not rows:
            raise Refused("FN-3802", name=name[:64])
        return _account(rows[0])

    def add(self, name: str, role: str, password: str, now_ms: int) -> Account:
        """A new account. Raises Refused FN-280x for what may not be, FN-3803 where there is one of that name, FN-3805
        where there are too many."""
        check_name(name), check_role(role)
        hashed = _hash(check_password(password, name))
        try:
            with sqlite.transaction(self._c, self._path):
                if self._c.execute("select count(*) from account").fetchone()[0] >= ACCOUNTS_MAX:
                    raise Refused("FN-3805", limit=ACCOUNTS_MAX)
                there = self._c.execute("select 1 from account where name = ?", (name,)).fetchone()
                if there is not None:
                    raise Refused("FN-3803", name=name)
                self._c.execute(
                    "insert into account (name, role, password, made_ms) values (?, ?, ?, ?)",
                    (name, role, hashed, now_ms),
                )
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, self._path) from error
        return self.get(name)

    def set_password(self, name: str, password: str) -> Account:
        """Another password; sessions end. Raises Refused FN-3802, FN-2803."""
        self.get(name)
        return self._change(name, "password", _hash(check_password(password, name)))

    def set_role(self, name: str, role: str) -> Account:
        """Another role; sessions end. Raises Refused FN-3802, FN-2804."""
        self.get(name)
        return self._change(name, "role", check_role(role))

    def disable(self, name: str, disabled: bool = True) -> Account:
        """Nobody signs in with it any more (or somebody may again); sessions end. Raises Refused FN-3802."""
        self.get(name)
        return self._change(name, "disabled", int(disabled))

    def _change(self, name: str, column: str, value: Any) -> Account:
        self._write(
            (f"update account set {column} = ? where name = ?", (value, name)),
            ("delete from session where account = ?", (name,)),
        )
        return self.get(name)

    def verify(self, name: str, password: str) -> Account | None:
        """The account, when the password is its own and it is not disabled."""
        rows = self._rows("select password from account where name = ?", name)
        fits = _fits(rows[0][0] if rows else NOBODY, password)
        if not rows or not fits:
            return None
        found = self.get(name)
        return None if found.disabled else found

    # ------------------------------------------------------------ sessions

    def begin(self, name: str, rng: Callable[[int], bytes], now_ms: int, address: str) -> str:
        """A new session's token."""
        token = rng(TOKEN_BYTES).hex()
        oldest = "select hash from session where account = ? order by seen_ms desc limit -1 offset ?"
        self._write(
            (
                "insert into session (hash, account, began_ms, seen_ms, address) values (?, ?, ?, ?, ?)",
                (_token_hash(token), name, now_ms, now_ms, address),
            ),
            (f"delete from session where hash in ({oldest})", (name, SESSIONS_MAX)),
            ("update account set last_ms = ? where name = ?", (now_ms, name)),
        )
        return token

    def session(self, token: str, now_ms: int, idle_ms: int, whole_ms: int) -> Account | None:
        """Whose session it is; None where it has ended."""
        hashed = _token_hash(token)
        rows = self._rows("select account, began_ms, seen_ms from session where hash = ?", hashed)
        if not rows:
            return None
        name, began_ms, seen_ms = rows[0]
        found = self.get(name)
        if found.disabled or not (0 <= now_ms - began_ms < whole_ms and now_ms - seen_ms < idle_ms):
            self.end(token)
            return None
        if not 0 <= now_ms - seen_ms < SEEN_EVERY_MS:
            self._saw(hashed, now_ms)
        return found

    def _saw(self, hashed: bytes, now_ms: int) -> None:
        try:
            self._write(("update session set seen_ms = ? where hash = ?", (now_ms, hashed)))
        except StoreError as error:  # on a full disk people still look, and sign in again somewhat earlier
            if error.code != "FN-7605":
                raise

    def end(self, token: str) -> None:
        """Sign out."""
        self._write(("delete from session where hash = ?", (_token_hash(token),)))

    def sweep(self, now_ms: int, idle_ms: int, whole_ms: int) -> None:
        """Forget sessions that have ended."""
        self._write(
            ("delete from session where seen_ms <= ? or began_ms <= ?", (now_ms - idle_ms, now_ms - whole_ms)),
        )


def _account(row: tuple[Any, ...]) -> Account:
    name, role, disabled, made_ms, last_ms = row
    return Account(str(name), str(role), bool(disabled), int(made_ms), last_ms)


def _token_hash(token: str) -> bytes:
    return SUITE_1.hash(b"fednode console session v1\n" + token.encode("utf-8", "replace"))
