"""A bucket of an S3-compatible storage as a place for backups.

Rules
1. `obstore` (Rust's object_store; the extra `fednode[s3]`) speaks to it, and only here. It signs, retries with back-off
   what may be retried, and reads no settings of other programs.
2. A file is one object, put in one request: it is there whole or not at all. Storages differ in whether they refuse to
   write over an object, so what is there is looked at before.
3. A storage that cannot be reached is Unavailable (FN-4520), one that refuses is a PeerError (FN-5333): nothing of the
   node's is lost, and the backups before stay.

>>> split("s3://backups/hebei/a/")
('backups', 'hebei/a')
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from fednode.node.backup.places import SCHEME, check_same
from fednode.node.config import Config
from fednode.sync.errors import PeerError, Refused, Unavailable

if TYPE_CHECKING:
    from obstore.store import S3Store

S3 = f"s3{SCHEME}"
RETRIES = 5
RETRY_TIMEOUT_S = 60
REQUEST_TIMEOUT = "60s"
_REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")  # a request that came too late, or too many, may be made again
_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]+)*)/?")


def split(target: str) -> tuple[str, str]:
    """(bucket, prefix) of `s3://bucket/prefix`. Raises Refused FN-2741."""
    match = _PLACE.fullmatch(target)
    if match is None:
        raise Refused("FN-2741", place=target)
    return match[1], match[2].strip("/")


def bucket_of(target: str, config: Config) -> Bucket:
    """The bucket that a text names. Raises Refused FN-2741, FN-2744 (the extra is not installed), FN-2746 (no key)."""
    bucket, prefix = split(target)
    if not config.backup_access_key or not config.backup_secret_key:
        raise Refused("FN-2746", place=target)
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise Refused("FN-2744", place=target) from error
    store = S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=config.backup_endpoint or None,
        region=config.backup_region,
        access_key_id=config.backup_access_key,
        secret_access_key=config.backup_secret_key.decode(),
        virtual_hosted_style_request=False,
        client_options={"allow_http": config.backup_endpoint.startswith("http://"), "timeout": REQUEST_TIMEOUT},
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)},
    )
    return Bucket(f"{S3}{bucket}/{prefix}".rstrip("/"), store)


class Bucket:
    """Objects under a prefix of a bucket."""

    def __init__(self, shown: str, store: S3Store) -> None:
        self.shown, self._store = shown, store

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except exceptions.BaseError as error:
            if _REFUSED.search(str(error)):
                raise PeerError("FN-5333", place=self.shown, reason=_short(error)) from error
            raise Unavailable("FN-4520", place=self.shown, reason=_short(error)) from error

    def folders(self, folder: str) -> list[str]:
        import obstore

        with self._asking():
            found = obstore.list_with_delimiter(self._store, folder or None)["common_prefixes"]
        return sorted(one.rstrip("/").rpartition("/")[2] for one in found)

    def files(self, folder: str) -> list[str]:
        import obstore

        with self._asking():
            found = obstore.list_with_delimiter(self._store, folder or None)["objects"]
        return sorted(one["path"].rpartition("/")[2] for one in found)

    def read(self, name: str, bytes_max: int) -> bytes | None:
        import obstore

        with self._asking():
            try:
                found = obstore.get(self._store, name)
                if found.meta["size"] <= bytes_max:
                    return bytes(found.bytes())
                return bytes(obstore.get_range(self._store, name, start=0, end=bytes_max + 1))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        import obstore

        there = self.read(name, len(data))
        if there is not None:
            return check_same(f"{self.shown}/{name}", there, data)
        with self._asking():
            try:
                obstore.put(self._store, name, data, use_multipart=False)
            except FileNotFoundError as error:
                raise PeerError("FN-5333", place=self.shown, reason="NoSuchBucket") from error

    def remove(self, name: str) -> None:
        import obstore

        with self._asking():
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return


def _short(error: Exception) -> str:
    """What the storage said, in one line."""
    code = re.search(r"<Code>([A-Za-z]+)</Code>", str(error))
    return code[1] if code else " ".join(str(error).split())[:160]
