"""init, invite, invites, join, revoke, nodes: who belongs to the trust domain."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import rich_click as click

from fednode.crypto import certs
from fednode.node import clocks
from fednode.node.cli.frame import Session, command, option, table
from fednode.node.files import Draft
from fednode.node.home import Home
from fednode.node.status import identity
from fednode.node.units import human_ms
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.app import App

_TTL = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


def seconds_of(value: str) -> int:
    """Seconds of "30m", "12h", "7d". Raises Refused FN-2707."""
    match = _TTL.fullmatch(value)
    if match is None:
        raise Refused("FN-2707", value=value)
    return int(match[1]) * _UNIT_S[match[2]]


def _identity(app: Any) -> dict[str, Any]:
    me = app.trust.me
    return {**identity(me), "root_sha256": app.trust.root_sha256.hex(), "valid_to_s": me.not_after}


@command("help.init", "init")
@option("--id", "node", required=True, words="option.id", metavar="CODE")
@option("--level", default="province", words="option.level", show_default=True)
@option("--name", required=True, words="option.name")
@option("--domain", default="hebei", words="option.domain", show_default=True)
@option("--scope", multiple=True, words="option.scope", metavar="CODE")
def init(session: Session, node: str, level: str, name: str, domain: str, scope: tuple[str, ...]) -> None:
    """Found a trust domain."""
    from fednode.node.app import App

    named: dict[str, Any] = {"node": node, "name": name, "level": level, "domain": domain, "scope": scope}
    with closing(App.init_province(session.home, session.config()[0], **named, operator=session.operator)) as app:
        found = _identity(app)
    lines = [
        session.words("init.done", home=app.home.path, **_flat(session, found)),
        session.words("init.root", root=found["root_sha256"]),
        session.words("init.next"),
    ]
    session.done({"node": found, "home": str(app.home.path)}, lines)


def _flat(session: Session, found: dict[str, Any]) -> dict[str, Any]:
    level = session.level(found["level"])
    return {"level": level, **{key: found[key] for key in ("id", "name", "domain")}}


@command("help.invite", "invite")
@click.argument("node")
@option("--level", required=True, words="option.level")
@option("--name", required=True, words="option.name")
@option("--scope", multiple=True, words="option.scope", metavar="CODE")
@option("--expires", default="7d", show_default=True, words="option.expires", metavar="7d")
@option("--token-file", words="option.token_out", metavar="FILE")
@option("--answer", words="option.answer", metavar="STICK")
@option("--fingerprint", words="option.fingerprint", metavar="DIGITS")
def invite(
    session: Session,
    node: str,
    level: str,
    name: str,
    scope: tuple[str, ...],
    expires: str,
    token_file: str | None,
    answer: str | None,
    fingerprint: str | None,
) -> None:
    """Print a token for a new child, or answer the request that it sent by stick."""
    ttl_s = seconds_of(expires)
    if bool(answer) != bool(fingerprint) or (answer and token_file):
        raise Refused("FN-2730")
    app = session.app()
    if answer and fingerprint:
        from fednode.node.cli.bundle import answered

        answered(session, app, answer, fingerprint, node, level, name, scope, ttl_s)
        return
    token = given_out(token_file, lambda: app.invite(node, level, name, scope, ttl_s))
    shown = [token_file] if token_file else [token]
    session.note("invite.done", node=node, name=name, time=human_ms(ttl_s * 1000, session.lang))
    session.done(given(session, app, node, token, token_file, ttl_s), shown)


def given(session: Session, app: App, node: str, token: str, token_file: str | None, ttl_s: int) -> dict[str, Any]:
    """What an invitation's document says. Warns of a token that tells its holder to dial his own machine."""
    addresses = app.enrol_addresses()
    if all(_own_machine(one) for one in addresses):
        session.note("invite.loopback", addresses=", ".join(addresses))
    else:
        session.note("invite.dials", addresses=", ".join(addresses))
    shown = None if token_file else token
    found = {"node": node, "token": shown, "token_file": token_file, "expires_in_s": ttl_s}
    return found | {"addresses": list(addresses)}


def _own_machine(address: str) -> bool:
    """Whether host:port means, to whoever dials it, his own machine."""
    host = address.rpartition(":")[0].strip("[]").lower()
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("localhost.") or host.endswith(".localhost")


def given_out(token_file: str | None, invite: Callable[[], str]) -> str:
    """The token that `invite` makes, written to a new file where one is named."""
    if not token_file:
        return invite()
    with _new_file(Path(token_file)) as file:  # a token that cannot be written is lost: the file comes first
        token = invite()
        file.write(token + "\n")
    return token


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A file that only its owner may read, and that was not there before; gone again when something fails."""
    draft = Draft(path, 0o600, exclusive=True)
    try:
        file = io.TextIOWrapper(draft.file, encoding="ascii", write_through=True)
        yield file
        file.flush()
        draft.commit()
    except BaseException:
        draft.discard()
        raise


@command("help.invites")
def invites(session: Session) -> None:
    """Tokens that were given out."""
    app = session.app()
    found: list[dict[str, Any]] = [
        {
            "node": one.node,
            "name": one.name,
            "level": one.level,
            "scope": list(one.scope),
            "expires_s": one.expires_s,
            "used": one.used_key is not None,
            "expired": one.used_key is None and one.expires_s < app.now_s,
        }
        for one in app.store.invitations()
    ]
    states = [
        session.words("invites.used" if one["used"] else "invites.expired" if one["expired"] else "invites.open")
        for one in found
    ]
    rows = [
        (one["node"], session.level(one["level"]), one["name"], state) for one, state in zip(found, states, strict=True)
    ]
    session.done(
        {"invites": found}, table(rows, [session.words(f"head.{key}") for key in ("id", "level", "name", "state")])
    )


@command("help.join", "join")
@click.argument("token", required=False)
@option("--token-file", words="option.token_in", metavar="FILE")
@option("--address", "addresses", multiple=True, words="option.address", metavar="HOST:PORT")
@option("--request", is_flag=True, words="option.request")
@option("-o", "--output", words="option.stick", metavar="STICK")
@option("--node", words="option.joining", metavar="NODE")
@option("--grant", words="option.grant", metavar="STICK")
@option("--root", words="option.root_digits", metavar="DIGITS")
def join(
    session: Session,
    token: str | None,
    token_file: str | None,
    addresses: tuple[str, ...],
    request: bool,
    output: str | None,
    node: str | None,
    grant: str | None,
    root: str | None,
) -> None:
    """Join a trust domain with a token; without a link in two steps, by stick: --request, then --grant."""
    from fednode.node.app import App
    from fednode.sync.enrol import Token

    if request or grant:
        from fednode.node.cli import bundle

        if (request and (not output or grant or not (token or token_file or node))) or (
            grant and (token or token_file)
        ):
            raise Refused("FN-2731")
        if grant:
            bundle.granted(session, grant, root or "")
            return
        text = token or (Path(token_file).read_text(encoding="utf-8", errors="replace") if token_file else "")
        bundle.asked(session, node or "", Token.decode(text) if text else None, output or "")
        return
    if bool(token) == bool(token_file):
        raise Refused("FN-2708")
    given = token or Path(token_file or "").read_text(encoding="utf-8", errors="replace")
    fresh = not Home.exists(session.home)
    if not fresh:
        session.app()  # a node that joins again has a store: a refusal goes into its audit
    config, operator, asked = session.config()[0], session.operator, Token.decode(given)
    joining = App.join(session.home, config, asked, addresses=addresses, operator=operator)
    # who comes back as another node is nobody's daemon meanwhile
    other = not fresh and session.app().trust.node != asked.node
    with Home.load(session.home).lock() if other else nullcontext():
        app = asyncio.run(joining)
    with closing(app):
        _joined(session, app, fresh)


def _joined(session: Session, app: Any, fresh: bool) -> None:
    """Say what has become of it."""
    found = _identity(app)
    parent = app.trust.parent
    former = app.trust.me.incarnation - 1 if fresh else 0  # lives of which nothing is here
    lines = [
        session.words("join.done", home=app.home.path, parent=parent.name if parent else "", **_flat(session, found)),
        session.words("join.former", node=found["id"]) if former else session.words("join.next"),
    ]
    offset_ms = app.reference.offset_ms
    if abs(offset_ms) > clocks.WARN_MS:
        session.note("join.clock", **clock_words(app, session.lang))
    data = {"node": found, "home": str(app.home.path), "parent": parent.node if parent else None}
    session.done({**data, "clock_offset_ms": offset_ms, "former_lives": former}, lines)


def clock_words(app: Any, lang: str) -> dict[str, str]:
    """What to say of a clock that is off."""
    now_s, here_s = app.now_s, app.clock() // 1000
    told = certs.iso(now_s)
    age = human_ms(abs(app.reference.offset_ms), lang)
    return {"age": age, "here": certs.iso(here_s), "parent": told, "set": told.replace("T", " ").rstrip("Z")}


@command("help.revoke", "revoke")
@click.argument("node")
@option("--reason", required=True, words="option.reason")
@option("--yes", is_flag=True, words="option.yes")
@option("--dry-run", is_flag=True, words="option.dry_run")
def revoke(session: Session, node: str, reason: str, yes: bool, dry_run: bool) -> None:
    """Revoke a node below this one."""
    app = session.app()
    identity = app.revocable(node)
    if not dry_run:
        session.confirm(node, yes)
        identity = app.revoke(node, reason)
    key = "revoke.dry_run" if dry_run else "revoke.done"
    session.done(
        {"node": node, "incarnation": identity.incarnation, "dry_run": dry_run},
        [session.words(key, node=node, name=identity.name)],
    )


@command("help.nodes")
def nodes(session: Session) -> None:
    """The nodes that this node knows."""
    app = session.app()
    directory = app.trust.directory
    found: list[dict[str, Any]] = []
    for one in directory.all():
        revocation = directory.revocation(one.node)
        found.append(
            {
                "id": one.node,
                "level": one.level,
                "name": one.name,
                "parent": directory.parent_of(one.node),
                "scope": list(one.scope),
                "incarnation": one.incarnation,
                "valid_to_s": one.not_after,
                "revoked": revocation is not None,
                "revoked_reason": revocation.reason if revocation else None,
            }
        )
    rows = [
        (
            one["id"],
            session.level(one["level"]),
            one["name"],
            one["parent"] or "",
            session.words("nodes.revoked" if one["revoked"] else "nodes.in_force"),
        )
        for one in found
    ]
    heads = [session.words(f"head.{key}") for key in ("id", "level", "name", "parent", "state")]
    session.done({"nodes": found}, table(rows, heads))
