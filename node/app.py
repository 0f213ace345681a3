"""The composition root: puts a node together from its home, and does what operators ask of its identity.

Rules
1. Only here the real clock and real randomness are taken; everything else is given them.
2. `init_province` and `join` make a home, `open` only loads one.
3. Threads and processes have their own Store, Writer and Projector (`new_...`); they share the trust.
4. `now_ms` is the reference clock (`node.clocks`): the parent's, as it was last learnt; the province trusts its own.

>>> # app = App.open(Path("~/.fednode"), config)
>>> # app.records().put("org-registration", {...})
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

import fednode
from fednode.crypto import certs, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.errors import IntegrityError
from fednode.crypto.issuing import Grant
from fednode.crypto.keys import TlsKey
from fednode.crypto.suite import SUITE_1
from fednode.node import clocks, heap, poke, profile, waiting
from fednode.node.admission import STOOD_FOR, json_list
from fednode.node.clocks import Judge, Reference
from fednode.node.config import Config
from fednode.node.demotion import FOUND, REACHED_LAST, SUCCESSORS
from fednode.node.home import Home, NodeKeys, pem_of
from fednode.node.journal import DAEMON, Journal, Throttle
from fednode.node.projection import Projector
from fednode.node.room import MIB, Room
from fednode.node.store import Store
from fednode.node.tracing import OFF, Tracer
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.node.witness import witness_time
from fednode.node.writer import Writer
from fednode.sync import bundle, enrol
from fednode.sync.catalog import Catalog, check_succession
from fednode.sync.change import CATALOG, NODES, Change
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from fednode.sync.identity import LEVELS, node_payload, revocation_payload

if TYPE_CHECKING:
    from fednode.node.carrier import Credentials
    from fednode.node.records import Records
    from fednode.proto import fednode_pb2 as pb

ROOT_DAYS = 20 * 365
CERTIFICATE_DAYS = 365
TOKEN_TTL_S = 7 * 86400
SOFTWARE = f"fednode/{fednode.__version__}"


def real_clock() -> int:
    """This machine's clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def real_steady() -> int:
    """Milliseconds since this machine was started, suspended or not (where the system counts that): a clock that nobody
    sets."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


def boot_id() -> str:
    """Tells one start of this machine from another; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def random_bytes(size: int) -> bytes:
    """The operating system's."""
    return os.urandom(size)


def encoded(payload: dict[str, Any]) -> bytes:
    """The payload of a change of a system log."""
    return msgspec.json.encode(payload, order="deterministic")


class App:
    """One node, loaded. `clock`: this machine's, Unix milliseconds; `steady`: the one that nobody sets, with the real
    clock the real one; `rng`: secure random bytes. `operator`: who acts, for the audit."""

    software = SOFTWARE

    def __init__(
        self,
        home: Home,
        config: Config,
        keys: NodeKeys,
        store: Store,
        trust: Trust,
        clock: Callable[[], int] = real_clock,
        rng: Callable[[int], bytes] = os.urandom,
        operator: str = DAEMON,
        steady: Callable[[], int] | None = None,
    ) -> None:
        self.home, self.config, self.keys, self.store, self.trust = home, config, keys, store, trust
        self.clock, self.rng = clock, rng
        self.profile = profile.chosen(config.profile, profile.memory_bytes())
        store.suit(self.profile)
        self.room = store.room = Room(home.path, config.reserve_mib * MIB)
        self.operator, self.throttle = operator, Throttle(clock)
        self.tracer: Tracer = OFF  # the daemon's, where the settings want one
        if clock is real_clock:
            steady = real_steady
        self.reference: Reference = Reference.load(store, trust, lambda: self.clock(), steady, boot_id())
        self._credentials: tuple[object, Credentials] | None = None

    # ------------------------------------------------------------ loading

    @classmethod
    def open(
        cls,
        path: Path,
        config: Config,
        *,
        clock: Callable[[], int] = real_clock,
        rng: Callable[[int], bytes] = os.urandom,
        operator: str = DAEMON,
        settle: bool = True,
    ) -> Self:
        """Load a node; `settle`: with what a promotion that was cut off left to do. Raises StoreError FN-7618 (no node
        here) and others of the home and the store; IntegrityError when its chain does not hold; PeerError FN-6115 when
        the keys are not those of the certificate."""
        home = Home.load(path)
        if home.recovery.exists():
            raise StoreError("FN-7625", path=str(home.path))
        app = cls.load(home, config, clock=clock, rng=rng, operator=operator)
        if settle and (app.store.to_make_again() or app.store.meta(STOOD_FOR) is not None):
            from fednode.node import succession

            succession.settle(app)
        return app

    @classmethod
    def load(
        cls,
        home: Home,
        config: Config,
        *,
        clock: Callable[[], int] = real_clock,
        rng: Callable[[int], bytes] = os.urandom,
        operator: str = DAEMON,
    ) -> Self:
        """`open` for a home that was looked at."""
        if not profile.chosen(config.profile, profile.memory_bytes()).arenas:  # a small one gives back what it frees
            heap.keep_warm()
        keys = home.keys(config.passphrase)
        chain = home.chain()
        me = certs.check_chain(chain, SUITE_1.hash(chain[-1]))[0]
        if me.sign_key != keys.sign.public or me.tls_key != keys.tls.public_der:
            raise IntegrityError("FN-6115", node=me.node, path=str(home.path))
        Room(home.path, config.reserve_mib * MIB).make_way()  # opening a database needs a little room, too
        store = Store.open(home.log_db, stash_key=keys.stash_key)
        return cls(home, config, keys, store, Trust.load(store, chain, me.node), clock, rng, operator)

    def close(self) -> None:
        self.store.close()

    def now_ms(self) -> int:
        """The reference clock, Unix milliseconds."""
        return self.reference.now_ms()

    @property
    def now_s(self) -> int:
        return self.now_ms() // 1000

    def new_store(self) -> Store:
        """A store of one's own, for another thread."""
        store = Store.open(self.home.log_db, stash_key=self.keys.stash_key)
        store.room = self.room
        store.suit(self.profile)
        return store

    def new_writer(self, store: Store | None = None) -> Writer:
        writer = Writer(store or self.new_store(), self.trust, self.keys, self.now_ms, self.rng)
        writer.on_refusals = self.journal(writer).refused
        writer.rewrapping.on_given = self.journal(writer).given
        writer.on_late = lambda lsns: self._late_writes(writer, lsns)
        return writer

    def _late_writes(self, writer: Writer, lsns: list[int]) -> None:
        from fednode.node import succession

        succession.late_writes(self, writer, lsns)

    def new_projector(self, store: Store | None = None) -> Projector:
        return Projector(self.home.state_db, store or self.new_store(), self.trust)

    def records(self, store: Store | None = None) -> Records:
        """The service for records, on this thread's store, or on one that another thread has opened."""
        from fednode.node.records import Records

        writer = self.new_writer(store or self.store)
        return Records(writer, self.new_projector(writer.store), self.trust, self.journal(writer))

    def journal(self, writer: Writer | None = None) -> Journal:
        """Where acts and events are written, with this thread's writer; without one, a writer on this thread's
        store."""
        writer = writer or self.new_writer(self.store)
        return Journal(writer, self.now_ms, self.operator, self.software, self.throttle)

    def poke(self) -> bool:
        """Tell the daemon of this home, if there is one, that the store has grown."""
        return poke.poke(self.home.run_dir)

    # ------------------------------------------------------------ making a node

    @classmethod
    def init_province(
        cls,
        path: Path,
        config: Config,
        *,
        node: str,
        name: str,
        level: str = LEVELS[0],
        domain: str,
        scope: tuple[str, ...] = (),
        levels: tuple[str, ...] = LEVELS,
        clock: Callable[[], int] = real_clock,
        rng: Callable[[int], bytes] = os.urandom,
        operator: str = DAEMON,
    ) -> App:
        """Found a trust domain: a root, and the node at its top. Raises Refused FN-21xx for names that are none,
        StoreError FN-7616 when there is a node already."""
        scope = scope or _own_area(node)
        _check_names(node, name, level, domain, scope, levels)
        now_s = clock() // 1000
        keys, root_key = NodeKeys.generate(rng), TlsKey.generate()
        root = issuing.make_root(domain, scope, levels, root_key, now_s=now_s, days=ROOT_DAYS, serial=_serial(rng))
        request = issuing.parse_request(issuing.make_request(node, keys.tls, keys.sign, keys.seal))
        grant = Grant(name, level, scope, 1, ROOT_DAYS, _serial(rng))
        own = issuing.issue(request, grant, certs.parse(root), root_key, levels, now_s=now_s)
        with Home.create(path) as home:
            home.write_keys(keys, config.passphrase, root_key)
            home.write_chain((own, root))
            store = Store.create(home.log_db, store_id=rng(16), stash_key=keys.stash_key)
            trust = Trust.load(store, (own, root), node)
            writer = Writer(store, trust, keys, clock, rng)
            journal = Journal(writer, clock, operator, cls.software)
            writer.local(
                NODES,
                trust.area,
                [Change(node.encode(), encoded(node_payload(own)))],
                lambda tx: journal.within(tx, "init", domain=domain, level=level, root=trust.root_sha256.hex()),
            )
            store.close()
        return cls.open(path, config, clock=clock, rng=rng, operator=operator)

    @classmethod
    async def join(
        cls,
        path: Path,
        config: Config,
        token: Token,
        *,
        addresses: tuple[str, ...] = (),
        clock: Callable[[], int] = real_clock,
        rng: Callable[[int], bytes] = os.urandom,
        operator: str = DAEMON,
    ) -> Self:
        """Join with a token; an existing home of the same node and domain gets a fresh certificate and keeps its store.
        Raises what `enrol.joining` raises, Unavailable when no address answers, StoreError FN-7616."""
        if Home.exists(path):
            app = cls.open(path, config, clock=clock, rng=rng, operator=operator)
            replaced = await app._rejoin(token, addresses)
            waiting.drop(path)  # a join that ended just before its end left its keys there
            if not replaced:
                return app
            app.close()
            return cls.open(path, config, clock=clock, rng=rng, operator=operator)
        Home.clean_up(path)
        Home.check_free(path)
        pending = waiting.Pending(token.node, token.root_sha256.hex())
        keys = waiting.keys(path, pending, config.passphrase) or NodeKeys.generate(rng)

        def keep() -> None:
            waiting.keep(path, pending, keys, config.passphrase)

        try:
            joined = await _converse(token, keys, addresses, config, clock(), keep)
        except (PeerError, Refused, IntegrityError):
            waiting.drop(path)
            raise
        with Home.create(path) as home:
            home.write_keys(keys, config.passphrase)
            home.write_chain(joined.chain)
            home.write_addresses(joined.addresses)
            store = Store.create(home.log_db, store_id=rng(16), stash_key=keys.stash_key)
            with store.write() as tx:  # what it writes before its first exchange is not stamped years off
                tx.set_meta(clocks.OFFSET, joined.skew_ms)
            store.close()
        waiting.drop(path)
        app = cls.open(path, config, clock=clock, rng=rng, operator=operator)
        app.tell_joined(again=False)
        return app

    async def _rejoin(self, token: Token, addresses: tuple[str, ...]) -> bool:
        """A fresh certificate for a node that keeps its home. Whether it is another node's now: its successor's
        standby's, which the successor's own certificate proves, whether or not this one was fenced yet (the province
        meets nobody above who would)."""
        if self.trust.root_sha256 != token.root_sha256:
            raise StoreError("FN-7616", path=str(self.home.path))
        replaced = self.trust.node != token.node
        me = self.trust.me

        def judge(parent: Identity) -> None:
            if replaced and (parent.node != me.node or parent.incarnation <= me.incarnation):
                raise StoreError("FN-7616", path=str(self.home.path))

        joined = await _converse(token, self.keys, addresses, self.config, self.clock(), lambda: None, judge)
        delta_ms = self.clock() + joined.skew_ms - self.now_ms()
        if self.reference.learn(delta_ms, unsure=False):
            with self.store.write() as tx:
                self.reference.keep(tx)
        if replaced:
            self._become_standby(joined)
            return True
        self.install_chain(joined.chain)
        self.home.write_addresses(joined.addresses)
        self.tell_joined(again=True)
        return False

    def _become_standby(self, joined: enrol.Joined) -> None:
        """The old primary's home as its successor's standby. Raises StoreError FN-7616 for any other node's token."""
        from fednode.node import demotion

        if joined.identity.stands_for != self.trust.node:
            raise StoreError("FN-7616", path=str(self.home.path))
        self.home.write_addresses(joined.addresses)
        self.home.write_chain(joined.chain)
        self.trust = Trust.load(self.store, joined.chain, joined.identity.node)
        demotion.begin(self)
        self.tell_joined(again=True)

    def tell_joined(self, *, again: bool) -> None:
        """An event of it."""
        parent = self.trust.parent
        root = self.trust.root_sha256.hex()
        self.journal().note("join", parent=parent.node if parent else "", root=root, again=again)

    # ------------------------------------------------------------ the parent

    def credentials(self) -> Credentials:
        """For TLS: key, certificates, the root (PEM), as last certified."""
        from fednode.node.carrier import Credentials

        directory = self.trust.directory
        chain = directory.chain(self.trust.node)
        # a child's certificate may be of an earlier life of this node
        issuers = tuple(life.der for one in directory.path(self.trust.node) for life in directory.lives(one.node))
        if self._credentials is None or self._credentials[0] != (chain, issuers):
            pems = [pem_of(one) for one in (chain[:1], chain[:-1], issuers, chain[-1:])]
            self._credentials = ((chain, issuers), Credentials(self.keys.tls.to_pem(None), *pems))
        return self._credentials[1]

    def parent_addresses(self, store: Store | None = None) -> tuple[str, ...]:
        """Where to dial the parent: where it was found last, then as the settings say, or as it said itself; then where
        its standbys are; at last what the node above it has told (`node.whereabouts`). `store`: of the thread that
        asks, where that is not this one's."""
        given = self.config.parent_addresses or self.home.addresses()
        last, standbys, told = (json_list((store or self.store).meta(key)) for key in (REACHED_LAST, SUCCESSORS, FOUND))
        return tuple(dict.fromkeys((*last, *given, *standbys, *told)))

    def parent_dns(self) -> str:
        """The DNS name in the parent's certificate."""
        parent = self.trust.parent
        if parent is None:
            raise StoreError("FN-7613", node=self.trust.node)
        return parent.dns

    def check_tls_clock(self) -> None:
        """That TLS, which goes by this machine's own clock, takes the certificates on the way to the parent. Raises
        Unavailable FN-4518: some are of release 0.1, and the clock is outside of their dates."""
        chain, wall_s = self.trust.directory.chain(self.trust.node), self.clock() // 1000
        if (found := certs.outside_tls_dates(chain, wall_s)) is not None:
            start, end = certs.tls_dates(found)
            held: dict[str, Any] = {
                "here": certs.iso(wall_s),
                "node": certs.parse(found).node,
                "valid_from": certs.iso(start),
                "valid_to": certs.iso(end),
            }
            raise Unavailable("FN-4518", **held)

    def judge(self) -> Judge:
        """Who says whether certificates hold, now."""
        directory = self.trust.directory
        return self.reference.judge((*directory.path(self.trust.node), directory.root))

    def renewal_request(self) -> bytes:
        """A certificate request with this node's present keys."""
        return issuing.make_request(self.trust.node, self.keys.tls, self.keys.sign, self.keys.seal)

    def install_chain(self, chain: tuple[bytes, ...], *, dated: bool = True) -> Identity:
        """Put a fresh certificate in force. Raises IntegrityError, PeerError FN-6112 when it is not this node's,
        FN-5130 or FN-5131 when it does not hold now (`dated`: whether that is judged)."""
        identities = certs.check_chain(chain, self.trust.root_sha256)
        if dated:
            self.judge().check(identities)
        me = identities[0]
        if me.node != self.trust.node or me.sign_key != self.keys.sign.public or me.tls_key != self.keys.tls.public_der:
            raise PeerError("FN-6112", node=me.node)
        self.home.write_chain(chain)
        self.trust.adopt(chain)
        return me

    # ------------------------------------------------------------ the children

    def invite(self, node: str, level: str, name: str, scope: tuple[str, ...] = (), ttl_s: int = TOKEN_TTL_S) -> str:
        """A token for a new child. Raises Refused FN-21xx, FN-510x."""
        scope = scope or _own_area(node)
        if not scope:
            raise Refused("FN-2103", area=node)
        self.trust.refresh(self.store)
        enrol.check_invitation(self.trust.me, self.trust.directory.levels, node, level, scope)
        known = self.trust.directory.get(node)
        if known is not None and known.issuer != self.trust.node and not self.trust.directory.is_revoked(node):
            raise Refused("FN-5109", node=node, parent=known.issuer)
        return self._invite(node, level, name, scope, ttl_s)

    def invite_standby(self, name: str = "", node: str = "", ttl_s: int = TOKEN_TTL_S) -> str:
        """A token for a standby of this node; it is called `<this node>-s<number>` when no id is given. Raises Refused
        FN-2101, FN-5105, FN-5116, FN-5109 when the id is another's."""
        me, directory = self.trust.me, self.trust.directory
        self.trust.refresh(self.store)
        if not node:
            taken = {one.node for one in self.store.invitations()} | {one.node for one in directory.all()}
            node = next(f"{me.node}-s{number}" for number in count(1) if f"{me.node}-s{number}" not in taken)
        enrol.check_standby_invitation(me, node)
        known = directory.get(node)
        if known is not None and known.stands_for != me.node:
            raise Refused("FN-5109", node=node, parent=known.issuer)
        token = self._invite(node, me.level, name or me.name, me.scope, ttl_s)
        self.poke()  # a village opens its ports now
        return token

    def _invite(self, node: str, level: str, name: str, scope: tuple[str, ...], ttl_s: int) -> str:
        expires_s = self.now_s + ttl_s
        token = Token(self.trust.root_sha256, self.rng(enrol.SECRET_BYTES), node, expires_s, self.enrol_addresses())
        with self.store.write() as tx:
            tx.add_invite(token.hash, token.stick_key.public, node, name, level, ",".join(scope), expires_s)
            self.journal().within(tx, "invite", node=node, level=level, scope=",".join(scope), expires_s=expires_s)
        return token.encode()

    def enrol_addresses(self) -> tuple[str, ...]:
        """Where those who join find this node."""
        return tuple(self.config.advertise_enrol) or _advertised(self.config.enrol_listen)

    @property
    def serves(self) -> bool:
        """Whether anybody may dial this node: it may have children, or has invited a standby."""
        return self.trust.may_have_children or (self.trust.me.may_issue and bool(self.store.invitations()))

    def exchange_addresses(self) -> tuple[str, ...]:
        """Where children find this node."""
        return tuple(self.config.advertise) or _advertised(self.config.listen)

    def enrol(self, writer: Writer, request: pb.JoinRequest) -> pb.JoinReply:
        """Answer a JoinRequest: check the token, certify, log it. Raises PeerError FN-510x."""
        from fednode.proto import fednode_pb2 as messages

        hashed = enrol.token_hash(request.secret)
        asked = issuing.parse_request(request.request)
        if asked.node != request.node:
            raise PeerError("FN-5104", node=asked.node, invited=request.node)
        node = self.admit(writer, hashed, asked)
        return messages.JoinReply(
            chain=self.trust.directory.chain(node), addresses=self.exchange_addresses(), now_ms=self.now_ms()
        )

    def admit_request(self, writer: Writer, request: bytes, proof: bytes) -> str:
        """Let a node in that asks by stick: `proof` shows that it has a token of this node's. Its id; "" for a request
        that was answered, and whose maker has been heard of since. Raises PeerError FN-510x, IntegrityError FN-6106."""
        asked = issuing.parse_request(request)
        there = "select token_hash, stick_key, used_key from invite where node = ? and stick_key is not null"
        for hashed, public, used_key in writer.store.rows(there, asked.node):
            if bundle.proves(public, self.trust.root_sha256, request, proof):
                peer = writer.store.peer(asked.node)
                if used_key == asked.sign_key and peer is not None and peer.have.lsn:
                    return ""
                return self.admit(writer, hashed, asked)
        raise PeerError("FN-5101", node=asked.node)

    def admit(self, writer: Writer, hashed: bytes, asked: issuing.Request) -> str:
        """Let a node in whose token has this hash; its id. Raises PeerError FN-510x."""
        trust, store = self.trust, writer.store
        trust.refresh(store)
        self._check_clock()
        found = enrol.check_use(store.invitation(hashed), asked.node, asked.sign_key, self.now_s)
        known = trust.directory.get(found.node)
        if found.used_key is None or known is None or known.sign_key != asked.sign_key:
            revoked = trust.directory.is_revoked(found.node)
            incarnation = enrol.next_incarnation(known, asked.sign_key, revoked)
            der = self.certify(asked, found.name, found.level, found.scope, incarnation)
            change = Change(found.node.encode(), encoded(node_payload(der)))

            def use(tx: Transaction) -> None:
                tx.use_invite(hashed, self.now_s, asked.sign_key)
                told: dict[str, Any] = {"node": found.node, "level": found.level, "incarnation": incarnation}
                self.journal(writer).within(tx, "enrol", **told)

            writer.local(NODES, trust.area, [change], use)
        return found.node

    def honour(self, writer: Writer, shown: Identity) -> None:
        """Take in a successor to whom this node has granted its place in advance (`node.granting`)."""
        from fednode.node import granting

        granting.honour(self, writer, shown)

    def _check_clock(self) -> None:
        """That this node can know whether a token or a certificate holds."""
        if not self.judge().believed:
            raise PeerError("FN-5132", node=self.trust.node, now=certs.iso(self.now_s))

    def grant(self, name: str, level: str, scope: tuple[str, ...], incarnation: int) -> Grant:
        """What is decided about a certificate for somebody below (at the province's standby: for the province)."""
        me = self.trust.me
        standby = level == me.level and not me.stands_for  # everybody else below is of a lower level
        return Grant(name, level, scope, incarnation, CERTIFICATE_DAYS, _serial(self.rng), standby)

    def certify(
        self, request: issuing.Request, name: str, level: str, scope: tuple[str, ...], incarnation: int
    ) -> bytes:
        """A certificate by this node (DER)."""
        self._check_clock()
        grant = self.grant(name, level, scope, incarnation)
        levels = self.trust.directory.levels
        return issuing.issue(request, grant, self.trust.me, self.keys.tls, levels, now_s=self.now_s)

    def renew(self, writer: Writer, peer: Identity, request: bytes, life: int = 0) -> tuple[bytes, ...]:
        """A fresh certificate for a child that asks over the exchange. `life`: the incarnation that it leaves for a new
        one; who asks again for what it did not hear gets the same. Raises PeerError FN-5114."""
        known = self.trust.directory.get(peer.node)
        asked = enrol.check_renewal(known, request)
        if known is None or self.trust.directory.is_revoked(peer.node):
            raise PeerError("FN-5511", node=peer.node)
        if life and known.incarnation > life:
            return self.trust.directory.chain(peer.node)
        incarnation = known.incarnation + 1 if life else known.incarnation
        der = self.certify(asked, known.name, known.level, known.scope, incarnation)
        journal = self.journal(writer)
        change = Change(peer.node.encode(), encoded(node_payload(der)))
        told: dict[str, Any] = {"node": peer.node, "incarnation": incarnation}
        writer.local(NODES, self.trust.area, [change], lambda tx: journal.within(tx, "certify", **told))
        return self.trust.directory.chain(peer.node)

    def revocable(self, node: str) -> Identity:
        """A node that this one may revoke. Raises Refused FN-3110 (unknown), FN-5115 (not below this node)."""
        self.trust.refresh(self.store)
        identity = self.trust.directory.get(node)
        if identity is None:
            raise Refused("FN-3110", node=node)
        if self.trust.node not in [one.node for one in self.trust.directory.path(node)[:-1]]:
            raise Refused("FN-5115", node=node, me=self.trust.node)
        return identity

    def revoke(self, node: str, reason: str) -> Identity:
        """Revoke a node below this one; the word spreads by itself. Raises what `revocable` raises."""
        identity = self.revocable(node)
        change = self.revocation(node, identity.incarnation, reason)
        writer = self.new_writer(self.store)
        journal = self.journal(writer)
        told: dict[str, Any] = {"node": node, "incarnation": identity.incarnation}
        writer.local(NODES, self.trust.area, [change], lambda tx: journal.within(tx, "revoke", **told))
        self.poke()
        return identity

    def revocation(self, node: str, incarnation: int, reason: str) -> Change:
        """The change that revokes a life of a node: as of now, and not before anything that this node has cosigned,
        though its clock may be behind that. What it took of the node before stands everywhere (gate 10)."""
        at_ms = witness_time(self.store, self.now_ms()) * 1000
        payload = revocation_payload(node, incarnation, at_ms, reason)
        return Change(f"revoked/{node}/{incarnation}".encode(), encoded(payload))

    # ------------------------------------------------------------ the catalog

    def check_catalog(self, catalog: Catalog) -> None:
        """Whether this node may put it in force. Raises Refused FN-5201 anywhere but at the province, FN-32xx when it
        may not follow the one in force."""
        self.trust.refresh(self.store)
        if self.trust.parent is not None:
            raise Refused("FN-5201", node=self.trust.node)
        now = self.trust.catalog
        if now is not None:
            if catalog.version <= now.version and catalog != now:
                raise Refused("FN-3225", theirs=catalog.version, ours=now.version)
            check_succession(now, catalog)

    def publish_catalog(self, catalog: Catalog) -> None:
        """Put a catalog in force; it flows down by itself. The one in force again changes nothing. Raises what
        `check_catalog` raises."""
        self.check_catalog(catalog)
        if catalog == self.trust.catalog:
            return
        document = catalog.to_json()
        writer = self.new_writer(self.store)
        journal = self.journal(writer)
        told: dict[str, Any] = {"version": catalog.version, "sha256": SUITE_1.hash(document).hex()}
        change = Change(b"catalog", document)
        writer.local(CATALOG, self.trust.area, [change], lambda tx: journal.within(tx, "catalog.publish", **told))
        self.poke()


async def _converse(
    token: Token,
    keys: NodeKeys,
    addresses: tuple[str, ...],
    config: Config,
    wall_ms: int,
    keep: Callable[[], None],
    judge: Callable[[Identity], None] = lambda _parent: None,
) -> enrol.Joined:
    """Carry a `joining` to its end over gRPC. `keep` is called before anything secret is sent."""
    from fednode.node import carrier
    from fednode.proto import fednode_pb2 as messages

    last: Exception = Unavailable("FN-4506", parent=token.node)
    for address in addresses or token.addresses:
        conversation = enrol.joining(token, enrol.Keys(keys.sign, keys.seal, keys.tls), wall_ms, judge)
        try:
            asked = next(conversation)
            while True:
                if isinstance(asked, enrol.AskChain):
                    asked = conversation.send(await carrier.fetch_chain(address, wall_ms // 1000))
                    continue
                request = messages.JoinRequest(
                    node=token.node,
                    secret=asked.secret,
                    request=asked.request,
                    software=SOFTWARE,
                    addresses=config.advertise,
                )
                keep()
                reply = await carrier.join(address, asked.root, asked.dns, request)
                seen = enrol.JoinSeen(
                    tuple(reply.chain), tuple(reply.addresses), reply.refused, dict(reply.params), reply.now_ms
                )
                asked = conversation.send(seen)
        except StopIteration as end:
            joined: enrol.Joined = end.value
            return joined
        except Unavailable as error:
            last = error
    raise last


def _check_names(
    node: str, name: str, level: str, domain: str, scope: tuple[str, ...], levels: tuple[str, ...]
) -> None:
    if not certs.NODE_NAME.fullmatch(node) or node == certs.ROOT:
        raise Refused("FN-2101", node=node)
    if level != levels[0]:
        raise Refused("FN-2104", level=level, top=levels[0])
    if not certs.DOMAIN_NAME.fullmatch(domain):
        raise Refused("FN-2105", domain=domain)
    if len(name) > certs.TITLE_MAX:
        raise Refused("FN-2106", limit=certs.TITLE_MAX)
    for area in scope or ("",):
        if not certs.AREA.fullmatch(area):
            raise Refused("FN-2103", area=area)


def _own_area(node: str) -> tuple[str, ...]:
    """The scope of a node that is given none: its id, where that is an area code."""
    return (node,) if certs.AREA.fullmatch(node) else ()


def _serial(rng: Callable[[int], bytes]) -> int:
    return (int.from_bytes(rng(16), "big") >> 1) | 1


def _advertised(listen: str) -> tuple[str, ...]:
    """What to tell others when only a listening address is known: the machine's name in place of a wildcard."""
    import socket

    host, _, port = listen.rpartition(":")
    if host in ("", "0.0.0.0", "[::]", "*"):  # noqa: S104 - compared, not bound
        host = socket.getfqdn()
    return (f"{host}:{port}",)
