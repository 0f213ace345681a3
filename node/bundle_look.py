"""Bundles as they lie on a stick: which there are, whether they are whole, from whom, what is in them. Nothing is
applied here.

Rules
1. Every file is read once for its hash, and once more when what is in it is taken; the device may show another file the
   second time. What the second reading opens is bound to the first: the wrapped key of each volume lies in its head,
   which must be the one that was hashed, and no frame that was not sealed under that key opens.
2. A manifest that the sender has signed counts before any other. Of those whose signature cannot be judged (the sender
   is not known here), or does not hold, CANDIDATES_MAX are looked at.
3. Nothing in memory grows with a bundle's contents, nor by more than a little with each file.

>>> # for one in look(stick.scan([folder]).parts, trust.directory): one.whole, one.fingerprint
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fednode.crypto import certs, stream
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import stick
from fednode.node.stick import Part
from fednode.sync import bundle as bun
from fednode.sync import volume as vol
from fednode.sync import wire
from fednode.sync.bundle import Intake
from fednode.sync.effects import Commit
from fednode.sync.errors import PeerError, Refused
from fednode.sync.identity import Directory

if TYPE_CHECKING:
    from fednode.node.app import App

NAMED_MAX = 10
CANDIDATES_MAX = 4


# ---------------------------------------------------------------- looking


@dataclass(slots=True)
class Look:
    """What can be seen of a bundle. `missing`: numbers of volumes; None where the one with the manifest is not there.
    `damaged`: volumes that are not what the manifest says. `signed`: whether the manifest is signed by the node that it
    names; None: that node is not known here. `chosen`: for each volume the file that is what the manifest says."""

    header: vol.Header
    parts: dict[int, list[Part]]
    manifest: vol.Manifest | None = None
    signed: bool | None = None
    missing: list[int] | None = None
    damaged: list[int] = field(default_factory=list)
    chosen: list[Part] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint if self.manifest else ""

    @property
    def bytes(self) -> int:
        return sum(parts[0].size for parts in self.parts.values())

    @property
    def whole(self) -> bool:
        return self.manifest is not None and not self.missing and not self.damaged

    def check(self) -> vol.Manifest:
        """Raises Refused FN-3502 (volumes missing), FN-3503 (the last one is), IntegrityError FN-6504 (damaged)."""
        sender, made = self.header.sender, certs.iso(self.header.made_ms // 1000)
        if self.damaged:
            raise IntegrityError("FN-6504", volume=_numbers(self.damaged), sender=sender, made=made)
        if self.manifest is None:
            raise Refused("FN-3503", here=_numbers(sorted(self.parts)), sender=sender, made=made)
        if self.missing:
            count = len(self.manifest.volumes)
            raise Refused("FN-3502", missing=_numbers(self.missing), count=count, sender=sender, made=made)
        return self.manifest


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:NAMED_MAX]))
    return shown + (", ..." if len(numbers) > NAMED_MAX else "")


def look(parts: Sequence[Part], directory: Directory | None = None) -> list[Look]:
    """The bundles that files belong to, oldest first; every file is read once, nothing is opened. `directory`: who is
    known here, so that a signature can be judged."""
    looks: dict[vol.Header, Look] = {}
    for part in parts:
        header = replace(part.head.header, volume=1)
        one = looks.setdefault(header, Look(header, {}))
        one.parts.setdefault(part.head.header.volume, []).append(part)
    for one in looks.values():
        _compare(one, directory.life(one.header.sender, one.header.incarnation) if directory is not None else None)
    return sorted(looks.values(), key=lambda one: (one.header.made_ms, one.header.id))


@dataclass(slots=True)
class _Manifests:
    """The manifests of a bundle that were met (rule 2), each once."""

    sender: Identity | None
    signed: dict[bytes, vol.Manifest] = field(default_factory=dict)
    others: dict[bytes, vol.Manifest] = field(default_factory=dict)

    def meet(self, manifest: vol.Manifest) -> None:
        kept = self.signed if self._holds(manifest) else self.others
        if len(kept) < CANDIDATES_MAX:
            kept[manifest.raw] = manifest

    def _holds(self, manifest: vol.Manifest) -> bool:
        if self.sender is None:
            return False
        try:
            manifest.check(self.sender.sign_key)
        except IntegrityError:
            return False
        return True


def _compare(one: Look, sender: Identity | None) -> None:
    """Find the manifest, and for each of its volumes a file that is what it says. Of several manifests the one counts
    that the most volumes bear out."""
    sums: dict[Path, vol.Sum] = {}
    manifests = _Manifests(sender)
    for parts in one.parts.values():
        for part in parts:
            with stick.opened(part.path) as file, contextlib.suppress(FednodeError):
                read = vol.Volume(file.read)
                manifest = read.skip()
                if read.head != part.head:  # not the file that was looked at before
                    continue
                sums[part.path] = read.sum
                if manifest is not None and _names(manifest, one.header):
                    manifests.meet(manifest)

    def fits(manifest: vol.Manifest) -> list[Part | None]:
        return [
            next((part for part in one.parts.get(number, ()) if sums.get(part.path) == expected), None)
            for number, expected in enumerate(manifest.volumes, 1)
        ]

    found = manifests.signed or manifests.others
    if not found:
        unread = [number for number, parts in one.parts.items() if not any(part.path in sums for part in parts)]
        one.damaged = sorted(unread)
        return
    one.manifest = max(found.values(), key=lambda manifest: sum(part is not None for part in fits(manifest)))
    one.signed = bool(manifests.signed) if sender is not None else None
    places = fits(one.manifest)
    one.missing = [n for n, part in enumerate(places, 1) if part is None and n not in one.parts]
    one.damaged = [n for n, part in enumerate(places, 1) if part is None and n in one.parts]
    one.chosen = [part for part in places if part is not None]


def _names(manifest: vol.Manifest, header: vol.Header) -> bool:
    return replace(manifest.header, key_id=b"") == replace(header, key_id=b"")


# ---------------------------------------------------------------- opening


class Opened:
    """A bundle that is whole, from whom it says, and opens with this node's key: its keys are kept, so that a second
    reading sees the same or nothing. `sender`, `from_parent`: as they were found to be."""

    sender: Identity
    from_parent: bool

    def __init__(self, one: Look, seal_private: bytes) -> None:
        self.look, self.manifest = one, one.check()
        self._keys = [stream.unwrap(seal_private, part.head.wrap, part.head.raw) for part in one.chosen]
        self.opening = bun.parse_opening(next(self._frames()))

    def _frames(self) -> Iterator[bytes]:
        for part, key in zip(self.look.chosen, self._keys, strict=True):
            with stick.opened(part.path) as file:
                try:
                    read = vol.Volume(file.read)
                    if read.head != part.head:
                        raise IntegrityError("FN-6501")
                    yield from read.open(key)
                except IntegrityError as error:
                    raise IntegrityError("FN-6504", **self._named(part)) from error

    def _named(self, part: Part) -> dict[str, str]:
        header = self.look.header
        return {
            "volume": str(part.head.header.volume),
            "sender": header.sender,
            "made": certs.iso(header.made_ms // 1000),
        }

    def messages(self) -> Iterator[Commit | wire.Ack | wire.Fenced | wire.Witnessed]:
        """What is in it, in order. Raises IntegrityError FN-6504, PeerError FN-55xx."""
        intake, frames = Intake(), self._frames()
        next(frames)
        for frame in frames:
            message = intake.take(frame)
            if message is not None:
                yield message
        intake.end()


def open_for(app: App, one: Look) -> Opened:
    """Gates before anything is applied: sender, completeness, signature, contents. Raises what those raise."""
    trust = app.trust
    trust.refresh(app.store)
    sender = bun.sender_of(one.header, trust.directory, trust.node)
    manifest = one.check()
    if one.header.key_id != SUITE_1.hash(app.keys.seal.public)[:8]:
        raise PeerError("FN-5523", sender=sender.node, node=trust.node)
    newer = one.header.incarnation > sender.incarnation
    if not newer:
        manifest.check(sender.sign_key)
    opened = Opened(one, app.keys.seal.private)
    if newer:
        sender = _new_life(app, one.header, opened.opening)
        manifest.check(sender.sign_key)
    if opened.opening.hello.node != sender.node:
        raise PeerError("FN-5510", node=opened.opening.hello.node, certificate=sender.node)
    opened.sender, opened.from_parent = sender, trust.directory.parent_of(trust.node) == sender.node
    if opened.from_parent:
        trust.hear(opened.opening.hello.lives)
    for _ in opened.messages():
        pass
    return opened


def _new_life(app: App, header: vol.Header, opening: bun.Opening) -> Identity:
    """The parent in a life that is news here: it says so in its greeting; or (a program that does not) this node's
    chain, as the parent sends it, leads through it."""
    app.trust.hear(opening.hello.lives)
    if (found := app.trust.directory.life(header.sender, header.incarnation)) is not None:
        return found
    chain = opening.chain
    above = certs.check_chain(chain, app.trust.root_sha256)[1:2]
    if not above or (above[0].node, above[0].incarnation) != (header.sender, header.incarnation):
        raise IntegrityError("FN-6502", node=header.sender)
    app.trust.hear(chain[-2:0:-1])
    return above[0]


def contents(app: App, one: Look) -> dict[str, int] | None:
    """For whoever only looks: what is inside, where this node has the key."""
    segments = acks = 0
    try:
        opened = Opened(one, app.keys.seal.private)
        for message in opened.messages():
            segments += isinstance(message, Commit)
            acks += isinstance(message, wire.Ack)
    except FednodeError:
        return None
    opening = opened.opening
    told = {"after": opening.after, "upto": opening.upto, "peer_holds": opening.hello.have.lsn}
    return {**told, "segments": segments, "acks": acks}
