"""Which encoding a text file is in. Decided on all of its bytes, so that nothing surprises in the middle of an import.

Rules
1. A byte order mark decides. Without one: UTF-8 if the whole file is, else GB18030 if the whole file is and reads like
   Chinese, else refused (FN-3301).
2. A file that is UTF-8 for a while and then is not was damaged or pasted together: refused with the place (FN-3303),
   for GB18030 would read it as nonsense without an error.
3. An encoding that the caller names is checked in the same way (FN-3302 says where it fails and what would fit).
4. A line of more than LINE_BYTES_MAX is no table (FN-3308): it would have to be held in memory whole.

>>> _chinese("石家庄市长安区"), _chinese("Ã©Ã¨Ã¼ÃŸ")
(True, False)
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from fednode.sync.errors import Refused

CHUNK_BYTES = 1024 * 1024
LINE_BYTES_MAX = CHUNK_BYTES
CHINESE_SHARE_MIN = 0.85
UTF8_SEEN_MIN = 8  # this many good multi-byte characters before the first bad byte are no accident

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with BOM"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16 LE with BOM"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16 BE with BOM"),
)
_NAMES = {
    "utf-8": ("utf-8", "UTF-8"),
    "utf8": ("utf-8", "UTF-8"),
    "utf-8-sig": ("utf-8-sig", "UTF-8 with BOM"),
    "utf-16": ("utf-16", "UTF-16 with BOM"),
    "gb18030": ("gb18030", "GB18030"),
    "gbk": ("gb18030", "GB18030"),
    "gb2312": ("gb18030", "GB18030"),
    "cp936": ("gb18030", "GB18030"),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """`codec` for Python, `label` for people."""

    codec: str
    label: str


@dataclass(frozen=True, slots=True)
class _Fault:
    """Where a codec fails: offset of the byte, its line, how many multi-byte characters were good before it."""

    offset: int
    line: int
    good: int


def detect(path: Path, declared: str = "") -> Encoding:
    """The encoding of a file. Raises Refused FN-2312 (a name that is not known), FN-3301, FN-3302, FN-3303, FN-3308."""
    with path.open("rb") as file:
        head = file.read(CHUNK_BYTES)
    for bom, codec, label in _BOMS:
        if head.startswith(bom):
            fault = _fault(path, codec)
            if fault is not None:
                raise Refused("FN-3303", path=str(path), encoding=label, line=fault.line, offset=fault.offset)
            return Encoding(codec, label)
    if declared:
        return _declared(path, declared)
    if head.count(0) > len(head) // 100:
        raise Refused("FN-3301", path=str(path))
    return _undeclared(path)


def _undeclared(path: Path) -> Encoding:
    fault = _fault(path, "utf-8")
    if fault is None:
        return Encoding("utf-8", "UTF-8")
    if fault.good >= UTF8_SEEN_MIN:
        raise Refused("FN-3303", path=str(path), encoding="UTF-8", line=fault.line, offset=fault.offset)
    if _fault(path, "gb18030") is None and _reads_as_chinese(path):
        return Encoding("gb18030", "GB18030")
    raise Refused("FN-3301", path=str(path))


def _declared(path: Path, declared: str) -> Encoding:
    known = _NAMES.get(declared.lower())
    if known is None:
        raise Refused("FN-2312", encoding=declared, known="utf-8, gb18030, utf-16")
    codec, label = known
    fault = _fault(path, codec)
    if fault is None and (codec != "gb18030" or _fault(path, "utf-8") is not None or _is_ascii(path)):
        return Encoding(codec, label)
    try:
        fits = _undeclared(path).label
    except Refused:
        fits = "?"
    line, offset = (fault.line, fault.offset) if fault else (1, 0)
    raise Refused("FN-3302", path=str(path), encoding=label, line=line, offset=offset, fits=fits)


def _is_ascii(path: Path) -> bool:
    return _fault(path, "ascii") is None


def _fault(path: Path, codec: str) -> _Fault | None:
    """Decode the whole file, a chunk at a time; the first fault, or None."""
    # "utf-8-sig" would count offsets from behind the mark
    codec = codec.removesuffix("-sig")
    decoder = codecs.getincrementaldecoder(codec)("strict")
    offset, line, good = 0, 1, 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            if len(chunk) == CHUNK_BYTES and b"\n" not in chunk and b"\r" not in chunk:
                raise Refused("FN-3308", path=str(path), line=line, limit=LINE_BYTES_MAX)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                good += sum(not character.isascii() for character in before.decode(codec, "ignore"))
                return _Fault(offset - pending + error.start, line + before.count(b"\n"), good)
            if not chunk:
                return None
            if good < UTF8_SEEN_MIN and not text.isascii():
                good += sum(not character.isascii() for character in text)
            offset += len(chunk)
            line += chunk.count(b"\n")


def _reads_as_chinese(path: Path) -> bool:
    with path.open("rb") as file:
        return _chinese(file.read(64 * 1024).decode("gb18030", "ignore"))


def _chinese(text: str) -> bool:
    """Nearly all that is not ASCII belongs to the common characters: what another encoding reads as is not."""
    foreign = [character for character in text if not character.isascii()]
    common = sum(bool(character.encode("gb2312", "ignore")) for character in foreign)
    return bool(foreign) and common >= CHINESE_SHARE_MIN * len(foreign)
