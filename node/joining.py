"""Joining with nothing but a stick: the node asks, its parent answers, both on files.

Rules
1. The node makes its keys itself; they wait beside its home (`<home>.joining`, 0700) until the answer comes. Asking
   again uses the same keys, so that a lost stick costs nothing.
2. A request is public: keys and their proof of possession. With a token it also proves the token's secret, which never
   leaves (`sync.bundle.request_proof`).
3. The root is pinned before anything is believed: by the token, or by the fingerprint that the parent's operator reads
   out. Without a token the parent's operator compares the request's fingerprint in the same way.
4. The answer is a bundle like any other: the certificate comes in its opening, directory and catalog in its feed.

>>> # asked = ask(home, config, "130102001001", None, Path("/media/stick"), app.rng)
>>> # app, report = finish(home, config, [Path("/media/stick")], "1234 5678 9012 3456 7890")
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fednode.crypto import certs, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import bundle_out, bundles, stick, waiting
from fednode.node.app import App
from fednode.node.bundle_look import Look, Opened, look
from fednode.node.config import Config
from fednode.node.home import Home, NodeKeys
from fednode.node.store import Store
from fednode.node.waiting import Pending
from fednode.sync import bundle as bun
from fednode.sync import volume as vol
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, StoreError


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was written."""

    node: str
    file: str
    fingerprint: str
    token: bool


def root_fingerprint(root_sha256: bytes) -> str:
    """The root certificate's, to be read out."""
    return vol.digits(root_sha256)


def ask(path: Path, config: Config, node: str, token: Token | None, target: Path, rng: Callable[[int], bytes]) -> Asked:
    """Write a request to join. A node that is there already asks with its own keys, for a fresh certificate. Raises
    Refused FN-2101 (name), FN-3511 (token of another node), FN-3512 (asked before under another name), StoreError."""
    node = node or (token.node if token else "")
    if not certs.NODE_NAME.fullmatch(node) or node == certs.ROOT:
        raise Refused("FN-2101", node=node)
    if token is not None and token.node != node:
        raise Refused("FN-3511", node=node, invited=token.node)
    keys = _keys(path, config, Pending(node, token.root_sha256.hex() if token else ""), rng)
    der = issuing.make_request(node, keys.tls, keys.sign, keys.seal)
    digest = SUITE_1.hash(der)
    file = target / f"fednode-{digest[:8].hex()}.fnr"
    stick.write_small(file, bun.encode_request(der, token))
    return Asked(node, str(file), vol.digits(digest), token is not None)


def _keys(path: Path, config: Config, pending: Pending, rng: Callable[[int], bytes]) -> NodeKeys:
    """The node's own, those of a request that waits, or new ones."""
    if Home.exists(path):
        app = App.open(path, config)
        app.close()
        if app.trust.node != pending.node:
            raise StoreError("FN-7616", path=str(path))
        return app.keys
    Home.check_free(path)
    keys = waiting.keys(path, pending, config.passphrase) or NodeKeys.generate(rng)
    waiting.keep(path, pending, keys, config.passphrase)
    return keys


# ---------------------------------------------------------------- the parent


def invite_and_answer(
    app: App, request: Path, fingerprint: str, node: str, level: str, name: str, scope: tuple[str, ...], ttl_s: int
) -> bundle_out.Exported:
    """Answer a request that came without a token: invite and let in at once. `fingerprint`: as the node's operator read
    it out. Raises Refused FN-3509 (not that request), FN-3513 (no request for this node there), and what `App.invite`
    and `bundle_out.export` raise."""
    there, given = "", spaced(fingerprint)
    for path, der in _requests([request]):
        if issuing.parse_request(der).node != node:
            continue
        there = vol.digits(SUITE_1.hash(der))
        if there != given:  # somebody else's may lie beside it
            continue
        token = Token.decode(app.invite(node, level, name, scope, ttl_s))
        app.admit_request(app.new_writer(app.store), der, bun.request_proof(der, token))
        exported = bundle_out.export(app, node, path.parent)
        app.poke()
        return exported
    if there:
        raise Refused("FN-3509", given=given, fingerprint=there)
    raise Refused("FN-3513", path=str(request), node=node)


def _requests(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    """The requests that lie in some places, and are some."""
    for path in stick.scan(paths).requests:
        with contextlib.suppress(IntegrityError, PeerError):
            der, _ = bun.parse_request(stick.read_small(path, bun.REQUEST_BYTES_MAX))
            issuing.parse_request(der)
            yield path, der


def spaced(fingerprint: str) -> str:
    """A fingerprint as it is shown, however it was typed (full-width digits too)."""
    digits = "".join(str(unicodedata.decimal(one)) for one in fingerprint if one.isdecimal())
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


# ---------------------------------------------------------------- the answer


def finish(
    path: Path,
    config: Config,
    paths: Sequence[Path],
    root: str,
    *,
    rng: Callable[[int], bytes],
    clock: Callable[[], int],
    operator: str,
) -> tuple[App, bundles.Report]:
    """Take the place that the parent has given this node, and all that came with it. Raises Refused FN-3514 (nothing
    was asked for here), FN-3515 (no answer there), FN-3516 (the root must be compared first), PeerError FN-6110
    (another root), FN-6112 (not for these keys), IntegrityError. Of several answers the newest that holds counts."""
    again = Home.exists(path)
    pending = waiting.load(path)
    if again:
        app = App.open(path, config, rng=rng, clock=clock, operator=operator)
        keys, node, pinned = app.keys, app.trust.node, app.trust.root_sha256.hex()
    elif pending is not None:
        keys, node, pinned = Home(waiting.folder(path)).keys(config.passphrase), pending.node, pending.root
    else:
        raise Refused("FN-3514", path=str(path))
    mine = [part for part in stick.scan(paths).parts if part.head.header.recipient == node]
    looks = [one for one in look(mine) if one.header.key_id == SUITE_1.hash(keys.seal.public)[:8]]
    if not looks:
        raise Refused("FN-3515", path=", ".join(map(str, paths)), node=node)
    opened, identity = _answer(looks, pinned, root, node, keys)
    chain = opened.opening.chain
    if again:
        if bundles.take_chain(app, chain) is not None:
            app.home.write_addresses(opened.opening.addresses)
    else:
        Home.check_free(path)
        with Home.create(path) as home:
            home.write_keys(keys, config.passphrase)
            home.write_chain(chain)
            home.write_addresses(opened.opening.addresses)
            Store.create(home.log_db, store_id=rng(16), stash_key=keys.stash_key).close()
        waiting.drop(path)
        app = App.open(path, config, rng=rng, clock=clock, operator=operator)
    app.tell_joined(again=again)
    _forget_requests(paths, identity)
    return app, bundles.take_in(app, paths)


def _answer(looks: Sequence[Look], pinned: str, root: str, node: str, keys: NodeKeys) -> tuple[Opened, Identity]:
    """The newest answer that holds; where none does, what is wrong with the newest: anybody may put files there."""
    wrong: FednodeError | None = None
    for one in reversed(looks):
        try:
            opened = Opened(one, keys.seal.private)
            return opened, _proved(opened.opening.chain, pinned, root, opened, node, keys)
        except FednodeError as error:
            wrong = wrong or error
    raise wrong or Refused("FN-3515", path="", node=node)


def _proved(chain: tuple[bytes, ...], pinned: str, root: str, opened: Opened, node: str, keys: NodeKeys) -> Identity:
    found = SUITE_1.hash(chain[-1]) if chain else b""
    shown = root_fingerprint(found)
    if not pinned and not root:
        raise Refused("FN-3516", fingerprint=shown, parent=opened.manifest.header.sender)
    if (pinned and found.hex() != pinned) or (root and spaced(root) != shown):
        raise PeerError("FN-6110", found=found.hex(), pinned=pinned or spaced(root))
    identities = certs.check_chain(chain, found)
    identity, parent = identities[0], identities[min(1, len(identities) - 1)]
    mine = (node, keys.sign.public, keys.seal.public, keys.tls.public_der)
    if (identity.node, identity.sign_key, identity.seal_key, identity.tls_key) != mine:
        raise PeerError("FN-6112", node=identity.node)
    opened.manifest.check(parent.sign_key)
    if parent.node != opened.manifest.header.sender:
        raise PeerError("FN-6112", node=parent.node)
    return identity


def _forget_requests(paths: Sequence[Path], identity: Identity) -> None:
    """The request has been answered: it need not travel on."""
    for path, der in _requests(paths):
        if issuing.parse_request(der).sign_key == identity.sign_key:
            stick.remove(path)
