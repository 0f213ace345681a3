"""A mesh of two in the dark: what a drill promotes, and a child of it. It cannot touch the real mesh.

Rules
1. Its certificates hang on a root that is made for the drill and forgotten with it. Real nodes refuse them, and its own
   two refuse real ones: that is TLS's to decide, not a setting's.
2. It listens on the loopback, and dials nothing else: every address that a copied store knows is taken out of the copy,
   and `Shadow.parent_addresses` gives loopback addresses only.
3. Of the production keys it has the one that opens what is sealed to the node, in memory: what it signs with, and what
   it proves itself with, is made for the drill.
4. It works on copies, in a folder of its own. It sends no backup, and pokes no daemon.
5. The child that it plays stands in for one of the node's own: it holds what every child holds, the directory and the
   catalog, and gets the rest over a real exchange.

>>> loopback("127.0.0.1:7443"), loopback("[::1]:7443"), loopback("10.0.0.1:7443"), loopback("localhost.example:1")
(True, True, False, False)
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fednode.crypto import certs, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.issuing import Grant
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.node import admission, demotion, fence, switchover
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.home import Home, NodeKeys
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync.change import CATALOG, NODES, LogName
from fednode.sync.enrol import Token

DAYS = 2
TITLE = "DRILL"
MADE_UP = "drill-child"
FORGOTTEN = (
    *(demotion.REACHED_LAST, demotion.SUCCESSORS, demotion.FOUND),
    *(demotion.LATE_UPTO, demotion.HANDING, demotion.COMES_BACK),
    *(demotion.ISSUERS, admission.STOOD_FOR, admission.RESTORED_STORE, admission.RESTORED_LSN, admission.GATHERS),
    *(switchover.ORDER, fence.META),
)


def loopback(address: str) -> bool:
    """Whether an address is this machine's alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def settings() -> Config:
    """Two ports of the loopback that nobody uses, and nothing else."""
    listen, enrol = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    given: dict[str, Any] = {"listen": listen, "enrol_listen": enrol, "advertise": (listen,)}
    return Config(**given, advertise_enrol=(enrol,), scrub_days=0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Shadow(App):
    """A node of the drill."""

    software = f"{App.software} drill"

    def parent_addresses(self, store: Store | None = None) -> tuple[str, ...]:
        return tuple(one for one in super().parent_addresses(store) if loopback(one))

    def poke(self) -> bool:
        return False


def chain_for(
    path: list[Identity], root: Identity, seal: SealKey, rng: Callable[[int], bytes], now_s: int
) -> tuple[tuple[bytes, ...], NodeKeys]:
    """Certificates for a node and all above it, each in the incarnation after its own, on a root of the drill's; own
    first, root last. And the node's keys, of which one is `seal`. `path`: from the province down, as they are."""
    root_key, levels = TlsKey.generate(), root.levels
    made = [issuing.make_root(root.domain, root.scope, levels, root_key, now_s=now_s, days=DAYS, serial=_serial(rng))]
    issuer, key = certs.parse(made[0]), root_key
    keys = NodeKeys.generate(rng)
    for one in path:
        keys = NodeKeys(SigningKey.from_seed(rng(32)), seal, TlsKey.generate())
        asked = issuing.parse_request(issuing.make_request(one.node, keys.tls, keys.sign, seal))
        title = f"{TITLE} {one.name}"[: certs.TITLE_MAX]
        grant = Grant(title, one.level, one.scope, one.incarnation + 1, DAYS, _serial(rng))
        made.append(issuing.issue(asked, grant, issuer, key, levels, now_s=now_s))
        issuer, key = certs.parse(made[-1]), keys.tls
    return tuple(reversed(made)), keys


def _serial(rng: Callable[[int], bytes]) -> int:
    return (int.from_bytes(rng(16), "big") >> 1) | 1


def parent(folder: Path, real: Trust, seal: SealKey, clock: Callable[[], int], rng: Callable[[int], bytes]) -> Shadow:
    """The node that the drill promotes, on the copied `log.db` and `state.db` of a folder. `real`: what the copy
    believes, and who it is; `seal`: the production key that opens it (rule 3)."""
    me = real.me
    name = me.stands_for or me.node
    made, keys = chain_for(real.directory.path(name), real.directory.root, seal, rng, clock() // 1000)
    home = Home(folder)
    home.run_dir.mkdir(mode=0o700, exist_ok=True)
    home.write_chain(made)
    store = Store.open(home.log_db, stash_key=keys.stash_key)
    with store.write() as tx:
        for key in FORGOTTEN:
            tx.set_meta(key, None)
        tx.execute("delete from meta where key like ?", f"{admission.REACHED_AT}%")
        tx.execute("delete from partial")
        if me.stands_for:
            tx.set_meta(admission.STOOD_FOR, me.node)
    return Shadow(home, settings(), keys, store, Trust.load(store, made, name), clock, rng)


@dataclass(frozen=True, slots=True)
class Part:
    """Whom the shadow child plays. `real`: there is such a child."""

    node: str
    level: str
    scope: tuple[str, ...]
    real: bool


def part(trust: Trust) -> Part | None:
    """The first child that is in good standing; one that is made up, where there is none; None where nobody may join
    below this node."""
    me, directory = trust.me, trust.directory
    for one in directory.children_of(me.node):
        if not one.stands_for and not directory.is_revoked(one.node):
            return Part(one.node, one.level, one.scope, True)
    rank = directory.rank(me.level)
    if not me.may_issue or rank + 1 >= len(directory.levels):
        return None
    return Part(MADE_UP, directory.levels[rank + 1], me.scope, False)


async def child(folder: Path, of: Shadow, plays: Part) -> Shadow:
    """A child of the shadow parent, whose daemon runs: it joins by a token, as any node does, and holds what it would
    (rule 5)."""
    token = Token.decode(of.invite(plays.node, plays.level, f"{TITLE} {plays.node}", plays.scope))
    made = await Shadow.join(folder, settings(), token, clock=of.clock, rng=of.rng)
    above = [one.node for one in of.trust.directory.path(of.trust.node)]
    _give_system_logs(of.store, made.store, above)
    made.trust.refresh(made.store)
    return made


def _give_system_logs(source: Store, target: Store, above: list[str]) -> None:
    """The directory and the catalog, as this child has had them for years."""
    marks = ", ".join("?" * len(above))
    logs = source.rows(
        f"""select id, name, origin, incarnation, dataset, audience, size, root, frontier, last_hlc from log
            where dataset in (?, ?) and audience = '' and origin in ({marks}) and size > 0""",
        *(NODES, CATALOG, *above),
    )
    with target.write() as tx:
        for log_id, name, *rest, last_hlc in logs:
            tx.execute(
                "insert or ignore into log values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '')", name, *rest, last_hlc
            )
            here = target.log_id(LogName.parse(name))
            segments = source.rows(
                """select first, count, last_hlc, sha256, first_time, first_signature, data from segment
                   where log_id = ? order by first""",
                log_id,
            )
            for first, count, last, sha256, time_s, signature, data in segments:
                tx.execute(
                    "insert or ignore into segment values (?, ?, ?, ?, ?, ?, null, ?, ?, null, null, ?)",
                    *(tx.next_lsn(), here, first, count, last, sha256, time_s, signature, data),
                )
            tx.set_meta("hlc", max(int(target.meta("hlc", 0)), last_hlc))
        tx.set_meta("system_lsn", target.lsn)
