"""Targets in `fednode.node` that a node below speaks to behind protobuf: what an issuer does with a SuccessionRequest,
and a primary with a HandOverRequest. The asker is who it says (TLS has shown that): the standby itself. Keys are made
anew in each process, so `@R`, `@C` and `@T` in an input stand for its request, its primary's consent, and a token.

>>> [one.name for one in TARGETS]
['succession', 'hand-over']
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from crash.lab import in_memory
from fednode.node import fence, succession, switchover
from fednode.node.app import App
from fednode.proto import fednode_pb2 as pb
from fuzz.target import PROTOBUF, Finding, Target, codes, law
from sticks import SETTINGS, Row, carry

M = TypeVar("M", bound=Message)
BACK = "1301-s2"


class Pair:
    """A province that has allowed a city's standby to succeed it, the city, and that standby."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fednode-fuzz-", dir=in_memory()))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        row = Row(self.folder, depth=1)
        self.province, self.city = row.apps
        self.standby = row.standby_of(self.city)
        for app in (self.province, self.city):  # the word of who is allowed has come to both
            app.trust.refresh(app.store)
        carry(row, self.city, self.province)
        succession.allow(self.province, self.standby.trust.node)
        carry(row, self.city, self.province)
        self.token = self.city.invite_standby()
        self._kept = self.folder / "kept"
        self.province.close()
        shutil.copytree(self.province.home.path, self._kept)
        self.province = App.open(self.province.home.path, SETTINGS)

    def filled(self, data: bytes) -> bytes:
        """With the request and the consent that these keys make, in the place of what stands for them."""
        me, city = self.standby.trust.me, self.city.trust.me
        text = succession.consent_text(city.node, city.incarnation, me.node, BACK)
        for mark, made in (
            (b"@R", succession._request(self.standby, city.node)),
            (b"@C", self.city.keys.sign.sign(text)),
        ):
            data = data.replace(mark, made) if mark in data else data
        return data

    def back(self) -> None:
        """The province as it was before it certified anybody."""
        path = self.province.home.path
        self.province.close()
        shutil.rmtree(path)
        shutil.copytree(self._kept, path)
        self.province = App.open(path, SETTINGS)


@cache
def _pair() -> Pair:
    return Pair()


def _parsed(kind: type[M], data: bytes) -> M | None:
    """As `carrier` does; None where it refuses by itself."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _succession(data: bytes) -> None:
    pair, request = _pair(), _parsed(pb.SuccessionRequest, data)
    if request is None:
        return
    request.request, request.consent = pair.filled(request.request), pair.filled(request.consent)
    province, before = pair.province, pair.province.store.lsn
    try:
        answer = succession.grant(province, province.new_writer(province.store), pair.standby.trust.me, request)
    except Exception:
        law(province.store.lsn == before, "what is refused leaves nothing behind")
        raise
    law(request.dry or province.store.lsn > before, "a certificate is in the log")
    law(bool(request.dry) != bool(answer.chain), "a trial gives no certificate")
    if answer.chain:
        pair.back()


def _successions() -> Iterator[bytes]:
    plain = {"node": "1301", "life": 1, "request": b"@R"}
    yield pb.SuccessionRequest(**plain).SerializeToString()
    yield pb.SuccessionRequest(**plain, dry=True).SerializeToString()
    yield pb.SuccessionRequest(**plain, consent=b"@C", back=BACK).SerializeToString()


def _hand_over(data: bytes) -> None:
    pair, request = _pair(), _parsed(pb.HandOverRequest, data)
    if request is None:
        return
    city = pair.city
    request.token = request.token.replace("@T", pair.token)
    writer = city.new_writer(city.store)
    try:
        handing = switchover.hand_over(city, writer, pair.standby.trust.me, request)
    except Exception:
        law(fence.standing(city.store) is None, "who refuses goes on")
        raise
    if handing is not None:
        try:
            answer = switchover.agreed(city, handing, 7)
        except Exception as error:
            raise Finding(f"hand-over: it has stopped writing, and cannot say so: {error!r}") from error
        finally:
            switchover.go_on(city, writer, "fuzz")
        law(bool(answer.consent and answer.request), "an agreement has a consent")


def _hand_overs() -> Iterator[bytes]:
    for token in ("@T", "fednode1.x"):
        yield pb.HandOverRequest(node="1301", life=1, token=token).SerializeToString()
    yield pb.HandOverRequest(node="1301", cancel=True).SerializeToString()


TARGETS = (
    Target("succession", _succession, codes("5114 5118 5119 5124 5511 5512"), _successions, PROTOBUF),
    Target("hand-over", _hand_over, codes("3101 3102 5118 5119 5511 5512 5517"), _hand_overs, PROTOBUF),
)
