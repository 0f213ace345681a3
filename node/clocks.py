"""What time it is, as far as a node can know: on machines whose clock may be years off, jump, or stand still.

Rules
1. The province trusts its own clock. Every other node goes by its parent's, learnt in the parent's Hello (`learn`).
2. A time that was learnt goes on by the machine's steady clock (since boot, suspended or not), which nobody sets: the
   wall clock may jump or stand still and changes nothing. It holds for every process until the machine boots again
   (`Anchor`). After a boot, and where there is no steady clock, it is the wall clock put right by the last known
   offset.
3. `sure`: the time was learnt in this boot, from a parent that was sure itself (`Hello.unsure`). A node that is sure
   does not take the time of a parent that is not.
4. Before it is sure, a node takes no time for true that lies before what it has seen certified above it
   (`Directory.floor_s`), and what cannot be undone waits until the parent has been heard to be that far in time
   (`certain_ms`).
5. Certificates are judged by `Judge`: a clock that is sure, or at least lies inside the node's own certificate, says
   whether they hold; any other clock says nothing, and only the floor can show that a certificate has ended. The floor
   is the later of the two in any case, so no clock that is set back makes an old certificate good again.
6. What a session waits for is counted by the steady clock (`timer`): a wall clock that jumps or stands still makes no
   silence, and hides none.

>>> wall, steady = [1_000], [50]
>>> time = Reference(lambda: wall[0], lambda: steady[0], boot="b")
>>> time.now_ms(), time.sure
(1000, False)
>>> news = time.learn(500, unsure=False); wall[0] = 9_000_000; steady[0] += 7
>>> time.now_ms(), time.sure, time.anchor
(1507, True, Anchor(boot='b', steady_ms=50, now_ms=1500))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.sync.clock import WALL_MS_MAX
from fednode.sync.errors import PeerError

OFFSET, ANCHOR, HEARD = "clock_offset_ms", "clock_anchor", "clock_heard_ms"  # meta
WARN_MS = 5 * 60 * 1000  # off by more: the operator is told
ENDED, NOT_YET = "FN-5130", "FN-5131"


class Anchor(msgspec.Struct, frozen=True):
    """A time that was learnt: at `steady_ms` of the boot `boot` it was `now_ms`."""

    boot: str
    steady_ms: int
    now_ms: int


class Reference:
    """The reference clock. `wall`: this machine's, Unix milliseconds; `steady`: milliseconds since the boot that `boot`
    names, None where there is none; `province`: its own clock is the reference; `floor_s`: see rule 4."""

    def __init__(
        self,
        wall: Callable[[], int],
        steady: Callable[[], int] | None = None,
        *,
        boot: str = "",
        province: bool = False,
        offset_ms: int = 0,
        anchor: Anchor | None = None,
        floor_s: Callable[[], int] = lambda: 0,
        heard_ms: int = 0,
    ) -> None:
        self._wall, self._steady, self._boot, self._province = wall, steady, boot, province
        self._floor_s, self._offset_ms, self._heard_ms = floor_s, offset_ms, heard_ms
        self._learnt = False
        self._passed = (0, steady() if steady is not None else 0)  # a time that has come, and when (steady)
        usable = anchor is not None and steady is not None and boot and anchor.boot == boot
        self.anchor = anchor if usable and anchor and steady and anchor.steady_ms <= steady() else None

    @classmethod
    def load(
        cls, store: Store, trust: Trust, wall: Callable[[], int], steady: Callable[[], int] | None, boot: str
    ) -> Reference:
        """As the node's store remembers it."""
        kept = store.meta(ANCHOR)
        anchor = msgspec.json.decode(kept, type=Anchor) if kept else None
        return cls(
            wall,
            steady,
            boot=boot,
            province=trust.parent is None,
            offset_ms=int(store.meta(OFFSET, 0)),
            anchor=anchor,
            floor_s=lambda: trust.directory.floor_s(trust.node),
            heard_ms=int(store.meta(HEARD, 0)),
        )

    def keep(self, tx: Transaction) -> None:
        """Store what was learnt."""
        tx.set_meta(OFFSET, self.offset_ms)
        tx.set_meta(HEARD, self._heard_ms)
        if self.anchor is not None:
            tx.set_meta(ANCHOR, msgspec.json.encode(self.anchor))

    # ------------------------------------------------------------ reading

    @property
    def sure(self) -> bool:
        """Rule 3."""
        return self._province or self._learnt or self.anchor is not None

    def now_ms(self) -> int:
        """Unix milliseconds."""
        anchor = self.anchor  # read once: another thread may learn
        if anchor is not None and self._steady is not None:
            return anchor.now_ms + self._steady() - anchor.steady_ms
        now_ms = min(max(self._wall() + self._offset_ms, 0), WALL_MS_MAX)
        if self.sure:
            return now_ms
        return max(now_ms, self._passed_ms())

    def _passed_ms(self) -> int:
        """The latest time that has come by what is certified above (rule 4), and what has run since that was seen."""
        floor_ms, steady_ms = self._floor_s() * 1000, self._steady() if self._steady is not None else 0
        seen_ms, at_ms = self._passed
        passed_ms = seen_ms + steady_ms - at_ms
        if floor_ms > passed_ms:
            passed_ms, self._passed = floor_ms, (floor_ms, steady_ms)
        return passed_ms

    @property
    def offset_ms(self) -> int:
        """How far this machine's clock is off: milliseconds to add to it."""
        return self._offset_ms if self.anchor is None else self.now_ms() - self._wall()

    def certain_ms(self) -> int:
        """A time that has certainly come: for what cannot be undone (rule 4)."""
        return self.now_ms() if self.sure else min(self.now_ms(), max(self._floor_s() * 1000, self._heard_ms))

    def timer(self) -> Callable[[], int]:
        """A clock for the timers of one session: it begins at `now_ms` and goes on by the steady clock (without one by
        the wall clock), whatever is learnt or set meanwhile."""
        ticks = self._steady or self._wall
        ahead_ms = self.now_ms() - ticks()
        return lambda: ahead_ms + ticks()

    # ------------------------------------------------------------ learning

    def learn(self, delta_ms: int, *, unsure: bool) -> bool:
        """The parent's clock is `delta_ms` ahead of this one. `unsure`: by its own account. Whether it is news: the
        province does not learn, and nobody who is sure learns from who is not."""
        if self._province or (unsure and self.sure):
            return False
        now_ms, was_sure = self.now_ms() + delta_ms, self.sure
        self._offset_ms = now_ms - self._wall()
        if not unsure:
            self._learnt, self._heard_ms = True, now_ms
            if self._steady is not None and self._boot:
                self.anchor = Anchor(self._boot, self._steady(), now_ms)
        return bool(delta_ms) or was_sure != self.sure

    def hear(self, remote_ms: int) -> None:
        """The parent wrote this down at that time, by a clock that it was sure of (a bundle)."""
        self._heard_ms = max(self._heard_ms, remote_ms)

    # ------------------------------------------------------------ judging

    def judge(self, own: Sequence[Identity]) -> Judge:
        """Who says whether certificates hold. `own`: this node's chain."""
        now_s = self.now_ms() // 1000
        believed = self.sure or all(one.not_before <= now_s <= one.not_after for one in own)
        return Judge(now_s, self._floor_s(), believed)


@dataclass(frozen=True, slots=True)
class Judge:
    """A time to judge certificates by (rule 5): Unix seconds, the floor, and whether the clock is to be believed."""

    now_s: int
    floor_s: int = 0
    believed: bool = True

    def check(self, chain: Sequence[Identity]) -> None:
        """That all of these hold. Raises PeerError FN-5130 (one has ended), FN-5131 (one does not hold yet)."""
        late = max(self.now_s, self.floor_s) if self.believed else self.floor_s
        for one in chain:
            if late > one.not_after:
                raise PeerError(ENDED, node=one.node, valid_to=certs.iso(one.not_after), now=certs.iso(late))
            if self.believed and self.now_s < one.not_before:
                raise PeerError(NOT_YET, node=one.node, valid_from=certs.iso(one.not_before), now=certs.iso(self.now_s))
