"""Protocol versions: how N talks with N-1 in both directions, and what the one before that is told.

Rules
1. Both Hellos carry the lowest and the highest version that their sender speaks. A session speaks the lower of the two
   highest (`agree`). `SPOKEN` is this program's range: this version, and the one before it.
2. Where there is none in common, the older side is told which package to install: FN-5505 at the newer side, FN-5518
   at the older one, whichever of them found it. The Bye carries FN-5505, which version 1 knows.
3. Fields may be added to any message at any time, as long as it is right to ignore them: whoever does not know one
   does. One that must be understood goes only to a session that speaks its version (`side.HURRY_SINCE`).
4. Frames may be added, with a version. A kind that must be understood has a field number below `HINTS_FROM` and goes
   only to a peer whose session speaks that version (`SINCE`); whoever gets one that it does not know ends the session
   (FN-5503). A hint has a number from `HINTS_FROM` up: whoever does not know it counts it and goes on, from version 2
   on. Nothing waits for the answer to a hint. To a session of version 1 nothing new is sent.
5. A new version: `SPOKEN` moves by one, `RELEASES` names the first release that speaks it, its sessions are recorded in
   tests/sync/vectors, those of the version before stay and are replayed. docs/formats.md says what it changes.

>>> agree(Versions(1, 2), Versions(2, 3), "fednode/0.3.0")
2
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fednode.sync.errors import PeerError

PACKAGE = "fednode"
RELEASES = {1: "0.1.0", 2: "0.2.0"}  # the first release that speaks a version
HINTS_FROM = 1024
WIDE_DATES = 2  # from this version on a parent certifies as `fednode.crypto.certs`, rule 6, says
TOO_OLD, TOO_OLD_HERE = "FN-5505", "FN-5518"
_SOFTWARE = re.compile(r"fednode/([0-9]+(?:\.[0-9]+){1,3})(?:[^0-9.].*)?")
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_INSTALL = re.compile(r"[a-z][a-z0-9-]{0,30}>=[0-9][0-9.]{0,20}")


@dataclass(frozen=True, slots=True)
class Versions:
    """The lowest and the highest protocol version that a program speaks."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


SPOKEN = Versions(1, 2)


def release(version: int) -> str:
    """What to install to speak a version, as pip writes it: the newest that is known here, where the version is not."""
    return f"{PACKAGE}>={RELEASES.get(version, RELEASES[max(RELEASES)])}"


def agree(ours: Versions, theirs: Versions, software: str) -> int:
    """The version of a session. `software`: the peer's, as its Hello names it. Raises PeerError FN-5505 when the peer
    is too old, FN-5518 when this side is."""
    version = min(ours.high, theirs.high)
    if version >= max(ours.low, theirs.low):
        return version
    if theirs.high < ours.low:
        raise PeerError(TOO_OLD, theirs=str(theirs), ours=str(ours), install=release(ours.high))
    named = _SOFTWARE.fullmatch(software)
    install = f"{PACKAGE}>={named[1]}" if named else release(theirs.high)
    raise PeerError(TOO_OLD_HERE, theirs=str(theirs), ours=str(ours), install=install)


def told(params: Mapping[str, str]) -> PeerError | None:
    """What the peer's FN-5505 means on this side; `params`: those of its Bye, where `theirs` is this side. None when it
    did not say (version 1), or says what makes no sense."""
    ours, theirs = _RANGE.fullmatch(params.get("theirs", "")), _RANGE.fullmatch(params.get("ours", ""))
    install = params.get("install", "")
    if not ours or not theirs or not _INSTALL.fullmatch(install):
        return None
    code = TOO_OLD if int(theirs[2]) < int(ours[1]) else TOO_OLD_HERE
    return PeerError(code, theirs=theirs[0], ours=ours[0], install=install)
