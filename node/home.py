"""A node's home folder: where its keys, certificates, stores and settings lie.

Rules
1. `create` makes a home whole or not at all: it is built beside its place and renamed into it. `load` never creates.
   What a process left that was killed while it did is taken away by the next (`clean_up`).
2. Private keys are files of mode 0600, PKCS #8, encrypted when a passphrase is given.
3. One daemon for each home: `lock` (an advisory lock that the kernel lets go when the process dies).

    home/  config.toml  keys/{sign,seal,tls}.pem  keys/root.pem (the province)  chain.pem (own first)  root.pem
           addresses (of the parent)  recover.json (while one is not through)  log.db  state.db  health.db
           alerts.db  accounts.db (of the console)  run/{lock,poke.sock,http}
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.crypto.suite import SUITE_1
from fednode.node import files
from fednode.sync.errors import Refused, StoreError

CHAIN, ROOT_CERTIFICATE, ADDRESSES = "chain.pem", "root.pem", "addresses"
RECOVERY = "recover.json"  # there while a recovery is not through: node/recovery.py
LOG_DB, STATE_DB, HEALTH_DB, ALERTS_DB = "log.db", "state.db", "health.db", "alerts.db"
CONFIG = "config.toml"


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """What a node signs with, what is sealed to it, what its TLS and its children's certificates rest on."""

    sign: SigningKey
    seal: SealKey
    tls: TlsKey

    @classmethod
    def generate(cls, rng: Callable[[int], bytes]) -> NodeKeys:
        """Fresh keys."""
        return cls(SigningKey.from_seed(rng(32)), SealKey.from_seed(rng(32)), TlsKey.generate())

    @property
    def stash_key(self) -> bytes:
        """The key under which content keys lie in log.db."""
        return SUITE_1.hash(b"fednode stash v1\n" + self.seal.private)


def pem_of(chain: tuple[bytes, ...]) -> bytes:
    """DER certificates as PEM."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


def root_of_pem(path: Path) -> Identity:
    """A root certificate out of a PEM file. Raises IntegrityError FN-6234 for anything else, Refused FN-3300."""
    try:
        der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        root = certs.parse(der)
    except OSError as error:
        raise Refused("FN-3300", path=str(path), reason=error.strerror or str(error)) from error
    except (ValueError, x509.InvalidVersion, IntegrityError) as error:
        raise IntegrityError("FN-6234", path=str(path)) from error
    if root.node != certs.ROOT:
        raise IntegrityError("FN-6234", path=str(path))
    return root


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a folder for this process. Whether it does: not where another one holds it, or there is none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Home:
    """A home that exists. `path` is the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys_dir, self.run_dir = path / "keys", path / "run"
        self.log_db, self.state_db = path / LOG_DB, path / STATE_DB
        self.health_db, self.alerts_db = path / HEALTH_DB, path / ALERTS_DB

    # ------------------------------------------------------------ making

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator[Home]:
        """Build a home: the block fills it, then it takes its place. Raises StoreError FN-7616 (there is a node
        already), FN-7617 (cannot write there)."""
        cls.clean_up(path)
        path = path.expanduser().absolute()
        cls.check_free(path)
        temporary = path.with_name(f".{path.name}.making-{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (temporary, temporary / "keys", temporary / "run"):
                folder.mkdir(mode=0o700)
            with held(temporary):
                yield cls(temporary)
                if (path / CONFIG).exists():  # written before the node: it stays
                    config = path / CONFIG
                    files.write(temporary / CONFIG, config.read_bytes(), config.stat().st_mode & 0o777)
                    files.sync_folder(temporary)
                    files.remove(config)  # while it is in neither, `clean_up` brings it back
                for folder in (temporary / "keys", temporary):
                    files.sync_folder(folder)
                files.move(temporary, path)
        except StoreError as error:  # what cannot be written is this home: nobody knows the folder beside it
            if error.code == "FN-7605":
                raise StoreError("FN-7617", path=str(path), reason=os.strerror(errno.ENOSPC)) from error
            if error.code == "FN-7617":
                raise StoreError("FN-7617", path=str(path), reason=error.params["reason"]) from error
            raise
        except OSError as error:
            raise StoreError("FN-7617", path=str(path), reason=error.strerror or str(error)) from error
        finally:
            cls.clean_up(path)

    @staticmethod
    def clean_up(path: Path) -> None:
        """Take away what a process left that was killed while it made this home: there are private keys in it that
        nobody knows. A config.toml that was on its way goes back to where it was. Raises StoreError FN-7617."""
        path = path.expanduser().absolute()
        for left in path.parent.glob(f".{glob.escape(path.name)}.making-*"):
            with held(left) as alone:
                if not alone:  # somebody is at work there
                    continue
                try:
                    config = left / CONFIG
                    if config.is_file() and not (path / CONFIG).exists() and not (path / CHAIN).exists():
                        path.mkdir(exist_ok=True)
                        files.move(config, path / CONFIG)
                    shutil.rmtree(left)
                except OSError as error:
                    raise StoreError("FN-7617", path=str(left), reason=error.strerror or str(error)) from error

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a node lives here."""
        return (path.expanduser() / CHAIN).is_file()

    @classmethod
    def check_free(cls, path: Path) -> None:
        """That a home may be made here: nothing there, or an empty folder, or one with a config.toml alone."""
        try:
            found = {entry.name for entry in path.expanduser().iterdir()}
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError("FN-7617", path=str(path), reason=error.strerror or str(error)) from error
        if found - {CONFIG}:
            raise StoreError("FN-7616", path=str(path))

    def write_keys(self, keys: NodeKeys, passphrase: bytes | None, root: TlsKey | None = None) -> None:
        """Private keys, 0600."""
        files.write(self.keys_dir / "sign.pem", keys.sign.to_pem(passphrase), 0o600)
        files.write(self.keys_dir / "seal.pem", keys.seal.to_pem(passphrase), 0o600)
        files.write(self.keys_dir / "tls.pem", keys.tls.to_pem(passphrase), 0o600)
        if root is not None:
            files.write(self.keys_dir / "root.pem", root.to_pem(passphrase), 0o600)

    def write_chain(self, chain: tuple[bytes, ...]) -> None:
        """This node's certificates (own first) without the root, and the root."""
        self._guarded(ROOT_CERTIFICATE, pem_of(chain[-1:]))
        self._guarded(CHAIN, pem_of(chain[:-1]))

    def write_addresses(self, addresses: tuple[str, ...]) -> None:
        """Where the parent is to be dialled."""
        self._guarded(ADDRESSES, "".join(f"{one}\n" for one in addresses).encode())

    def write_recovery(self, data: bytes) -> None:
        """Where a recovery stands."""
        self._guarded(RECOVERY, data)

    @property
    def recovery(self) -> Path:
        """The file that is there while a recovery is not through."""
        return self.path / RECOVERY

    def _guarded(self, name: str, data: bytes) -> None:
        try:
            files.write(self.path / name, data)
        except OSError as error:
            raise StoreError("FN-7617", path=str(self.path / name), reason=error.strerror or str(error)) from error

    # ------------------------------------------------------------ loading

    @classmethod
    def load(cls, path: Path) -> Home:
        """An existing home. Raises StoreError FN-7618 when there is no node here."""
        path = path.expanduser().absolute()
        if not (path / CHAIN).is_file():
            raise StoreError("FN-7618", path=str(path))
        home = cls(path)
        with contextlib.suppress(OSError):
            home.run_dir.mkdir(mode=0o700, exist_ok=True)
        return home

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise StoreError("FN-7619", path=str(path), reason=error.strerror or str(error)) from error

    def keys(self, passphrase: bytes | None) -> NodeKeys:
        """This node's keys. Raises StoreError FN-7619 (unreadable), FednodeError FN-7615 (passphrase)."""
        return NodeKeys(
            SigningKey.from_pem(self._read(self.keys_dir / "sign.pem"), passphrase),
            SealKey.from_pem(self._read(self.keys_dir / "seal.pem"), passphrase),
            TlsKey.from_pem(self._read(self.keys_dir / "tls.pem"), passphrase),
        )

    def root_key(self, passphrase: bytes | None) -> TlsKey | None:
        """The domain's root key, where it lies here."""
        path = self.keys_dir / "root.pem"
        return TlsKey.from_pem(self._read(path), passphrase) if path.exists() else None

    def read_root_key(self, path: Path, passphrase: bytes | None) -> TlsKey:
        """A root key out of a file that was kept elsewhere. Raises StoreError FN-7619, FednodeError FN-7615."""
        return TlsKey.from_pem(self._read(path), passphrase)

    def chain(self) -> tuple[bytes, ...]:
        """Own certificate first, root last (DER)."""
        data = self._read(self.path / CHAIN) + self._read(self.path / ROOT_CERTIFICATE)
        try:
            return tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(data))
        except (ValueError, x509.InvalidVersion) as error:
            raise StoreError("FN-7619", path=str(self.path / CHAIN), reason=str(error)[:200]) from error

    def addresses(self) -> tuple[str, ...]:
        """Where the parent was said to be; none at the province. Raises StoreError FN-7619."""
        path = self.path / ADDRESSES
        try:
            return tuple(self._read(path).decode().split()) if path.exists() else ()
        except UnicodeDecodeError as error:
            raise StoreError("FN-7619", path=str(path), reason=str(error)) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One daemon for each home. Raises StoreError FN-7622 when there is another, FN-7617 when it cannot be told."""
        try:
            self.run_dir.mkdir(mode=0o700, exist_ok=True)
            descriptor = files.lock_file(self.run_dir / "lock")
        except OSError as error:
            raise StoreError("FN-7617", path=str(self.run_dir), reason=error.strerror or str(error)) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                raise StoreError("FN-7622", path=str(self.path), pid=pid) from error
            files.label(descriptor, str(os.getpid()))
            yield
        finally:
            os.close(descriptor)

    def running(self) -> bool:
        """Whether a daemon holds the lock."""
        try:
            descriptor = os.open(self.run_dir / "lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False
