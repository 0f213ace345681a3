"""Volumes: the files of a bundle. Sealed frames between a head in clear and, in the last one, a signed manifest.

    magic || length:u32 || Volume (header, commitment, wrapped key)     see proto/fednode.proto
    then frames: length:u32 || sealed; the highest bit of the length marks a volume's last
    at the end of the last volume: 0:u32 || length:u32 || SignedManifest

Rules
1. The last volume ends with a manifest that the sender signs: size and hash of every volume. Nothing is complete
   without it, and no volume of another bundle fits.
2. Each volume is a stream of its own (`fednode.crypto.stream`), under a fresh key that is wrapped to the recipient.
3. Who has no key sees sender, recipient, time, sizes and the fingerprint of the manifest, which people compare by
   telephone. Everything else is sealed.
4. A reader takes one frame at a time, none larger than `wire.FRAME_BYTES_MAX`; limits hold before anything is read.
5. No file is larger than was asked for, the manifest counted in: what FAT32 can hold it does hold.

>>> digits(bytes(32))
'0000 0000 0000 0000 0000'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from fednode.crypto import stream
from fednode.crypto.certs import DOMAIN_NAME, NODE_NAME
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1, suite
from fednode.proto import fednode_pb2 as pb
from fednode.sync import wire
from fednode.sync.errors import PeerError, Refused

MAGIC = b"FNBUNDL1"
VERSION = 1
ID_BYTES = 16
KEY_ID_BYTES = 8
HEAD_BYTES_MAX = 1024
MADE_MS_MAX = 253_402_300_799_999  # the end of the year 9999: dates that can be shown
MANIFEST_BYTES_MAX = 1024 * 1024
VOLUMES_MAX = 9_999
VOLUME_BYTES_MIN = 128 * 1024  # a frame, a head and a manifest fit
VOLUME_BYTES_MAX = (1 << 32) - 1  # what FAT32 can hold
SEALED_FRAME_BYTES_MAX = wire.FRAME_BYTES_MAX + stream.TAG_BYTES
_MANIFEST_BYTES, _SUM_BYTES = 512, 48  # at most: a manifest without its volumes, and each of them
_LAST = 1 << 31  # in a frame's length: the volume ends with it
_SIGNED = b"fednode bundle v1\n"

Read = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Header:
    """What a volume says of itself, in clear."""

    domain: str
    sender: str
    incarnation: int
    recipient: str
    id: bytes
    made_ms: int
    key_id: bytes
    volume: int = 1


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a volume: its header, and what opens it. `size`: how many bytes of the file it takes."""

    header: Header
    raw: bytes
    commit: bytes
    wrap: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Size and SHA-256 of a volume's file up to the end of its last frame."""

    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle consists of, and who says so. `raw` is what was signed."""

    header: Header
    volumes: tuple[Sum, ...]
    raw: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        return digits(SUITE_1.hash(_SIGNED + self.raw))

    def check(self, sign_key: bytes) -> None:
        """Raises IntegrityError FN-6502: the sender did not sign this."""
        try:
            SUITE_1.verify(sign_key, _SIGNED + SUITE_1.hash(self.raw), self.signature)
        except IntegrityError as error:
            raise IntegrityError("FN-6502", node=self.header.sender) from error


def digits(sha256: bytes) -> str:
    """A hash as people read it out: 20 digits, 66 bits of it."""
    text = f"{int.from_bytes(sha256[:16], 'big') % 10**20:020d}"
    return " ".join(text[i : i + 4] for i in range(0, 20, 4))


# ---------------------------------------------------------------- making


def pack(
    frames: Iterable[bytes],
    header: Header,
    reader: bytes,
    sign: Callable[[bytes], bytes],
    rng: Callable[[int], bytes],
    volume_bytes: int,
    volumes_max: int = VOLUMES_MAX,
) -> Iterator[tuple[int, bytes]]:
    """The bytes of a bundle: (number of the volume, what to write next), in order; the manifest comes last. `reader`:
    the recipient's HPKE key; `frames`: at least one, the opening; `volume_bytes`: how large a volume may become. Raises
    Refused FN-3518 where so many volumes of that size cannot hold it."""
    sums: list[Sum] = []
    sealer: stream.Sealer | None = None
    hasher, size, waiting = SUITE_1.hasher(), 0, b""
    for frame in frames:
        if sealer is not None and waiting:
            more = len(waiting) + len(frame) + 2 * (4 + stream.TAG_BYTES)
            full = size + more + _manifest_room(len(sums) + 1) > volume_bytes
            data = _frame(sealer, waiting, full)
            hasher.update(data)
            size += len(data)
            yield len(sums) + 1, data
            if full:
                sums.append(Sum(size, hasher.digest()))
                sealer = None
        if sealer is None:
            least = HEAD_BYTES_MAX + 4 + SEALED_FRAME_BYTES_MAX + _manifest_room(len(sums) + 1)
            if len(sums) >= volumes_max or least > volume_bytes:
                raise Refused("FN-3518", volumes=len(sums), size=volume_bytes)
            data, sealer = _head(replace(header, volume=len(sums) + 1), reader, rng(stream.KEY_BYTES))
            hasher, size = SUITE_1.hasher(), len(data)
            hasher.update(data)
            yield len(sums) + 1, data
        waiting = frame
    if sealer is None:
        raise ValueError("a bundle has an opening")
    data = _frame(sealer, waiting, True)
    hasher.update(data)
    sums.append(Sum(size + len(data), hasher.digest()))
    yield len(sums), data
    yield len(sums), _manifest(header, sums, sign)


def _manifest_room(volumes: int) -> int:
    return 8 + _MANIFEST_BYTES + volumes * _SUM_BYTES


def _head(header: Header, reader: bytes, content_key: bytes) -> tuple[bytes, stream.Sealer]:
    raw = pb.VolumeHeader(
        version=VERSION,
        suite=SUITE_1.number,
        domain=header.domain,
        sender=header.sender,
        incarnation=header.incarnation,
        recipient=header.recipient,
        id=header.id,
        volume=header.volume,
        made_ms=header.made_ms,
        key_id=header.key_id,
    ).SerializeToString()
    sealer = stream.Sealer(raw, reader, content_key)
    data = pb.Volume(header=raw, commit=sealer.commit, wrap=sealer.wrap).SerializeToString()
    return MAGIC + len(data).to_bytes(4, "big") + data, sealer


def _frame(sealer: stream.Sealer, data: bytes, last: bool) -> bytes:
    sealed = sealer.seal(data, last=last)
    return (len(sealed) | (_LAST if last else 0)).to_bytes(4, "big") + sealed


def _manifest(header: Header, sums: Sequence[Sum], sign: Callable[[bytes], bytes]) -> bytes:
    raw = pb.Manifest(
        version=VERSION,
        domain=header.domain,
        sender=header.sender,
        incarnation=header.incarnation,
        recipient=header.recipient,
        id=header.id,
        made_ms=header.made_ms,
        volumes=[pb.VolumeSum(size=one.size, sha256=one.sha256) for one in sums],
    ).SerializeToString()
    data = pb.SignedManifest(manifest=raw, signature=sign(_SIGNED + SUITE_1.hash(raw))).SerializeToString()
    return bytes(4) + len(data).to_bytes(4, "big") + data


# ---------------------------------------------------------------- reading


def _exactly(read: Read, size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise IntegrityError("FN-6501")
    return data


def read_head(read: Read) -> Head:
    """The beginning of a volume. Raises IntegrityError FN-6501 for anything else, PeerError FN-5524 for a version that
    this program does not know, IntegrityError FN-6202 for such a suite."""
    if _exactly(read, len(MAGIC)) != MAGIC:
        raise IntegrityError("FN-6501")
    size = int.from_bytes(_exactly(read, 4), "big")
    if size > HEAD_BYTES_MAX:
        raise IntegrityError("FN-6501")
    try:
        head = pb.Volume.FromString(_exactly(read, size))
        h = pb.VolumeHeader.FromString(head.header)
    except DecodeError as error:
        raise IntegrityError("FN-6501") from error
    check_version(h.version)
    suite(h.suite)
    lengths = (len(head.commit), len(head.wrap), len(h.key_id))
    if not 1 <= h.volume <= VOLUMES_MAX or lengths != (stream.COMMIT_BYTES, stream.WRAP_BYTES, KEY_ID_BYTES):
        raise IntegrityError("FN-6501")
    header = Header(h.domain, h.sender, h.incarnation, h.recipient, h.id, h.made_ms, h.key_id, h.volume)
    return Head(_named(header), head.header, head.commit, head.wrap, len(MAGIC) + 4 + size)


def check_version(version: int, ours: int = VERSION) -> None:
    """Raises PeerError FN-5524."""
    if version != ours:
        raise PeerError("FN-5524", theirs=version, ours=ours)


def _named(header: Header) -> Header:
    named = all(NODE_NAME.fullmatch(one) for one in (header.sender, header.recipient))
    named = named and DOMAIN_NAME.fullmatch(header.domain) is not None
    if not named or len(header.id) != ID_BYTES or header.made_ms > MADE_MS_MAX:
        raise IntegrityError("FN-6501")
    return header


class Volume:
    """Reads one volume from its beginning: `head`, then `sealed` frames, then the manifest, if it ends with one.
    `read` gives so many bytes, fewer at the end of the file only."""

    def __init__(self, read: Read) -> None:
        self._read, self._hasher, self._size = read, SUITE_1.hasher(), 0
        self.head = read_head(self._counted)
        self.manifest: Manifest | None = None

    def _counted(self, size: int) -> bytes:
        data = self._read(size)
        self._hasher.update(data)
        self._size += len(data)
        return data

    @property
    def sum(self) -> Sum:
        """Of what was read so far; of the volume, once `sealed` has ended."""
        return Sum(self._size, self._hasher.digest())

    def sealed(self) -> Iterator[tuple[bytes, bool]]:
        """(sealed frame, whether it is the last). Raises IntegrityError FN-6501: cut, or no volume."""
        last = False
        while not last:
            length = int.from_bytes(_exactly(self._counted, 4), "big")
            last, size = bool(length & _LAST), length & (_LAST - 1)
            if not stream.TAG_BYTES < size <= SEALED_FRAME_BYTES_MAX:
                raise IntegrityError("FN-6501")
            yield _exactly(self._counted, size), last
        self.manifest = self._end()

    def _end(self) -> Manifest | None:
        mark = self._read(4)
        if not mark:
            return None
        size = int.from_bytes(_exactly(self._read, 4), "big")
        if mark != bytes(4) or size > MANIFEST_BYTES_MAX:
            raise IntegrityError("FN-6501")
        found = parse_manifest(_exactly(self._read, size))
        if self._read(1):
            raise IntegrityError("FN-6501")
        return found

    def skip(self) -> Manifest | None:
        """Read to the end without opening anything. Raises as `sealed` does."""
        for _ in self.sealed():
            pass
        return self.manifest

    def open(self, content_key: bytes) -> Iterator[bytes]:
        """The frames. Raises IntegrityError FN-6501, FN-6204."""
        opener = stream.Opener(self.head.raw, self.head.commit, content_key)
        for sealed, last in self.sealed():
            yield opener.open(sealed, last=last)


def manifest_of(piece: bytes) -> Manifest:
    """The manifest in the last piece that `pack` made."""
    return parse_manifest(piece[8:])


def parse_manifest(data: bytes) -> Manifest:
    """A SignedManifest. Raises IntegrityError FN-6501, PeerError FN-5524."""
    try:
        signed = pb.SignedManifest.FromString(data)
        m = pb.Manifest.FromString(signed.manifest)
    except DecodeError as error:
        raise IntegrityError("FN-6501") from error
    check_version(m.version)
    if not 1 <= len(m.volumes) <= VOLUMES_MAX or any(len(one.sha256) != 32 for one in m.volumes):
        raise IntegrityError("FN-6501")
    header = _named(Header(m.domain, m.sender, m.incarnation, m.recipient, m.id, m.made_ms, b""))
    return Manifest(header, tuple(Sum(v.size, v.sha256) for v in m.volumes), signed.manifest, signed.signature)
