"""What was refused for what this node did not know, and knows by now, is asked for again.

Rules
1. That is a segment of a node (FN-5411) or of a later life (FN-5412) that it had not heard of, one that such a one had
   sealed again (FN-5422), and one of a dataset that its catalog did not have (FN-5416). All else stays refused: a
   person may ask for it (`fednode refused --retry`).
2. It is asked for by forgetting how far the peer's feed is held: in the next greeting both compare what is held here
   (`node.refill`), and the peer sends what is lacking; so what followed in the same log (FN-6413) comes, too.
   What the parent had passed on of witnesses, and was by nobody that was known (FN-6414), it passes on again.
3. The evidence goes with that. What is refused once more is refused for another reason: nothing is asked for twice.
4. It is forgotten before a greeting alone: in a session the cursor would move on. Where a catalog or a later life is
   what has come, sessions with whoever sent it are ended, to greet anew; a node that was not known waits for that.
5. A stick has nothing to compare with: there a person asks (1).

>>> # if peer in due(store, trust, peer): forget(writer, peer)  # then greet
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fednode.node.store import Store
from fednode.node.transaction import EVIDENCE_ROWS_MAX
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync.change import LogName
from fednode.sync.errors import PeerError
from fednode.sync.strip import life_named

NO_NODE, NO_LIFE, NO_DATASET, NO_SEALER = "FN-5411", "FN-5412", "FN-5416", "FN-5422"
NOT_SIGNED = "FN-6414"


def due(store: Store, trust: Trust, peer: str = "") -> dict[str, list[int]]:
    """The numbers of what was refused of a peer, or of each, and would not be for the same reason now."""
    codes = (NO_NODE, NO_LIFE, NO_DATASET, NO_SEALER)
    rows = store.rows(
        f"""select id, peer, code, log, params from refused
            where {"peer = ? and" if peer else ""} code in (?, ?, ?, ?) order by id desc limit ?""",
        *((peer, *codes) if peer else codes),
        EVIDENCE_ROWS_MAX,
    )
    found: dict[str, list[int]] = {}
    for number, sender, code, log, params in rows:
        if _known_now(trust, code, log, msgspec.json.decode(params)):
            found.setdefault(sender, []).append(number)
    return found


def _known_now(trust: Trust, code: str, log: str, said: Mapping[str, str]) -> bool:
    """Whether what a segment of a log was refused for is known (rule 1). `said`: the parameters of the refusal."""
    try:
        name = LogName.parse(log)
    except PeerError:  # no segment's; or a peer refused it
        return False
    if code == NO_DATASET:
        return not name.is_open and trust.dataset(name.dataset) is not None
    if code == NO_SEALER:
        return life_named(said.get("sealer", ""), trust.directory) is not None
    # of an earlier life it is another matter: what comes late needs a cosignature
    later = code == NO_NODE or int(said.get("theirs", 0)) > int(said.get("ours", 0))
    return later and trust.directory.life(name.origin, name.incarnation) is not None


def forget(writer: Writer, peer: str) -> int:
    """Before a greeting: ask a peer again for what is due (rule 2). Of how much."""
    store = writer.store
    numbers = due(store, writer.trust, peer).get(peer, [])
    if not numbers:
        return 0
    signed = [
        number for (number,) in store.rows("select id from refused where peer = ? and code = ?", peer, NOT_SIGNED)
    ]
    with store.write() as tx:
        tx.forget_refused(peer, [*numbers, *signed])
        if signed:
            tx.execute("update peer set witnessed = null where node = ?", peer)
    return len(numbers)
