"""Alerts that are told, to real HTTP, HTTPS and SMTP servers on the loopback: once, and after a restart, too."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fednode.crypto import canonical
from fednode.node import jobs
from fednode.node.alerting import acting, outbox
from fednode.node.alerting.outbox import GIVE_UP_MS, KEEP_MS
from fednode.node.alerting.targets import Letter, Target, Told, attempt, targets
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import Config, load, shown
from fednode.node.schedule import LETTER_FIRST_S, LETTER_MAX_S, letter_wait_s
from fednode.sync.change import ALERTS, Change
from fednode.sync.errors import Refused
from hook import Hook
from journals import actions
from mesh import Mesh
from timed import Clock

SECRET = b"whsec_" + base64.b64encode(b"k" * 24)
HOUR_MS = 3_600_000


# ---------------------------------------------------------------- servers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a certificate for the loopback, which no system trusts, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime(2020, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=36500))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = made.add_extension(names, critical=False).add_extension(x509.BasicConstraints(True, None), critical=True)
    paths = folder / "ca.pem", folder / "key.pem"
    paths[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(*form))
    return str(paths[0]), str(paths[1])


def server_tls(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


class Mailbox:
    """What an SMTP server took; mailboxes of `refuses` it does not know."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], EmailMessage]] = []
        self.signed_in: list[str] = []
        self.refuses: set[str] = set()

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuses:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        found = message_from_bytes(content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.got.append((list(envelope.rcpt_tos), found))
        return "250 OK"

    def sign_in(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, told: Any) -> AuthResult:
        ok = isinstance(told, LoginPassword) and (told.login, told.password) == (b"ops", b"pass word")
        self.signed_in += ["ops"] if ok else []
        return AuthResult(success=ok, handled=False)


@contextmanager
def post_office(mailbox: Mailbox, tls: ssl.SSLContext | None) -> Iterator[int]:
    """A mail server in a loop of its own; its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asked = tls is not None
    more: dict[str, Any] = {"tls_context": tls, "require_starttls": asked, "auth_required": asked}

    def session() -> SMTP:
        return SMTP(mailbox, loop=loop, hostname="localhost", authenticator=mailbox.sign_in, **more)

    async def begin() -> asyncio.Server:
        return await loop.create_server(session, "127.0.0.1", 0)

    async def end() -> None:
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# ---------------------------------------------------------------- a node


class Desk:
    """A province with an outbox; `wait_s` and the clock are the test's."""

    def __init__(self, path: Path, clock: Clock, config: Config) -> None:
        self.path, self.clock = path, clock
        if not path.exists():
            App.init_province(path, config, node="13", name="河北省", domain="hebei", clock=clock).close()
        self.app = App.open(path, config, clock=clock)
        self.wait_s = 60.0

    def alert(self, node: str = "1301", **params: Any) -> None:
        told = {"node": node, "log": "l", "first": 1, "size": 2, **params}
        assert self.app.journal().alert("FN-6420", node, told, ["head"])

    def deliver(self, later_ms: int = 0) -> dict[str, Any]:
        self.clock.ms += later_ms
        config = self.app.config
        return outbox.deliver(
            self.app, lambda to, what: attempt(to, what, config, self.app.now_s), lambda _attempt: self.wait_s
        )

    def reopen(self, **more: Any) -> None:
        config = replace(self.app.config, **more)
        self.app.close()
        self.app = App.open(self.path, config, clock=self.clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(tmp_path: Path, clock: Clock, hook: Hook) -> Iterator[Desk]:
    config = Config(reserve_mib=0, alerts_webhooks=(hook.url,), alerts_webhook_secret=SECRET)
    made = Desk(tmp_path / "13", clock, config)
    yield made
    made.app.close()


# ---------------------------------------------------------------- webhooks


def test_an_alert_is_posted_once_signed_and_so_is_its_end(desk: Desk, hook: Hook) -> None:
    desk.alert()
    assert desk.deliver() == {"new": 1, "sent": 1, "failed": 0, "waiting": 0}
    assert desk.deliver() == {"new": 0, "sent": 0, "failed": 0, "waiting": 0}
    ((headers, body),) = hook.got
    at = headers["webhook-timestamp"]
    assert int(at) == desk.clock.ms // 1000
    mac = hmac.new(b"k" * 24, f"{headers['webhook-id']}.{at}.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    told = json.loads(body)
    assert (told["version"], told["type"], told["id"]) == (1, "alert.opened", headers["webhook-id"])
    assert told["from"] == {"domain": "hebei", "node": "13", "name": "河北省"}
    data = told["data"]
    assert (data["rule"], data["level"], data["code"], data["node"]) == ("fork", "critical", "FN-6420", "1301")
    assert data["message"]["zh"] != data["message"]["en"]

    acting.ack(desk.app, data["key"], "on the way")
    assert desk.deliver()["new"] == 0
    desk.clock.ms += 1000
    acting.close(desk.app, data["id"], "mended")
    assert desk.deliver() == {"new": 2, "sent": 1, "failed": 0, "waiting": 0}
    closed = hook.documents()[1]
    assert (closed["type"], closed["data"]["key"], closed["data"]["reason"]) == ("alert.closed", data["key"], "mended")
    assert closed["id"] != told["id"]
    assert desk.deliver(KEEP_MS + 1)["new"] == 0
    assert desk.deliver()["new"] == 0
    assert len(hook.got) == 2


def test_golden_document(desk: Desk, hook: Hook) -> None:
    """What receivers rely on: version 1 (docs/monitoring.md)."""
    desk.alert()
    desk.deliver()
    assert hook.got[0][1] + b"\n" == (Path(__file__).parent / "vectors/webhook.json").read_bytes()


def test_what_could_not_be_told_before_a_restart_is_told_after_it(desk: Desk, hook: Hook) -> None:
    gone = "http://127.0.0.1:1/none"  # nobody listens there
    desk.reopen(alerts_webhooks=(gone, hook.url))
    hook.answer = lambda _: (503, {})
    desk.alert()
    desk.alert("1302")
    assert desk.deliver() == {"new": 4, "sent": 0, "failed": 2, "waiting": 4}
    assert len(hook.got) == 1, "the second waits with the first"
    hook.answer = lambda _: (200, {})
    desk.reopen()
    assert desk.deliver(59_999) == {"new": 0, "sent": 0, "failed": 0, "waiting": 4}
    found = desk.deliver(1)
    assert (found["sent"], found["waiting"]) == (2, 2)
    ids = [headers["webhook-id"] for headers, _ in hook.got]
    assert ids[0] == ids[1] != ids[2], "the same id each time"
    standing = outbox.standing(desk.app)
    assert [(one["target"].split()[:2], one["waiting"], one["attempts"]) for one in standing] == [
        (["webhook", "127.0.0.1:1"], 2, 2)
    ]
    desk.reopen(alerts_webhooks=(hook.url,))
    assert desk.deliver()["waiting"] == 0, "nobody waits for a target that the settings name no more"


def test_a_receiver_that_will_not_have_one_gets_the_others(desk: Desk, hook: Hook) -> None:
    hook.answer = lambda body: (422 if b'"node":"1301"' in body else 200, {})
    desk.alert("1301")
    desk.alert("1302")
    assert desk.deliver() == {"new": 2, "sent": 1, "failed": 1, "waiting": 1}
    assert desk.deliver(GIVE_UP_MS) == {"new": 0, "sent": 0, "failed": 1, "waiting": 0}
    assert actions(desk.app)[-1] == "alerts.undelivered"
    assert desk.deliver(GIVE_UP_MS)["failed"] == 0


def test_a_target_that_says_when_is_obeyed_and_redirects_are_not_followed(desk: Desk, hook: Hook) -> None:
    hook.answer = lambda _: (429, {"retry-after": "3600"})
    desk.alert()
    assert desk.deliver()["failed"] == 1
    assert desk.deliver(HOUR_MS - 1)["failed"] == 0
    hook.answer = lambda _: (302, {"location": hook.url})
    assert desk.deliver(1)["failed"] == 1
    assert len(hook.got) == 2


def test_quiet_acked_low_and_short_alerts_are_told_to_nobody(desk: Desk, hook: Hook) -> None:
    desk.reopen(alerts_rules=("fork notice",))
    desk.alert()
    assert desk.deliver()["new"] == 0
    desk.reopen(alerts_rules=())
    acting.silence(desk.app, "fork", desk.clock.ms + HOUR_MS, "")
    assert desk.deliver()["new"] == 0
    acting.unsilence(desk.app, "fork")
    hook.answer = lambda _: (503, {})
    assert desk.deliver()["waiting"] == 1
    acting.close(desk.app, "FN-6420/1301/l", "x")
    hook.answer = lambda _: (204, {})
    assert desk.deliver(HOUR_MS) == {"new": 1, "sent": 0, "failed": 0, "waiting": 0}
    desk.alert(size=3)  # new evidence opens it again
    assert desk.deliver()["sent"] == 1
    desk.clock.ms += 1000
    desk.alert(size=4)
    assert desk.deliver()["sent"] == 1


def test_what_a_hostile_child_writes_stops_nobody_elses(desk: Desk, hook: Hook) -> None:
    payload = {"state": "open", "code": "FN-6420\r\nBcc: x", "node": "\u202e13", "params": {"a": 1e300, "b": [None]}}
    payload |= {"at_ms": -1, "by": 7, "level": "loud", "rule": "\n"}
    desk.alert()
    writer = desk.app.new_writer(desk.app.store)
    with desk.app.store.write() as tx:
        keys = (b"FN-1/\x01\r\nx", b"FN-2")
        changes = [Change(key, canonical.dumps(one)) for key, one in zip(keys, (payload, {}), strict=True)]
        writer.append_system(tx, ALERTS, "13", changes)
    assert desk.deliver()["sent"] == 3
    letters = [outbox.letter(body) for _, body in hook.got]
    assert {json.loads(body)["data"]["node"] for _, body in hook.got} == {"1301", "\u202e13", ""}
    assert not any("\n" in one.subject or "\u202e" in one.subject for one in letters)


def test_tls_is_verified(desk: Desk, certificate: tuple[str, str]) -> None:
    hook = Hook(server_tls(certificate))
    try:
        desk.reopen(alerts_webhooks=(hook.url,))
        desk.alert()
        assert desk.deliver()["failed"] == 1
        assert "CERTIFICATE_VERIFY_FAILED" in outbox.standing(desk.app)[0]["error"]
        desk.reopen(alerts_ca=certificate[0])
        assert desk.deliver(HOUR_MS)["sent"] == 1
    finally:
        hook.close()
    assert len(hook.got) == 1


# ---------------------------------------------------------------- mail


def test_mail_over_starttls_with_a_password(desk: Desk, certificate: tuple[str, str]) -> None:
    mailbox = Mailbox()
    mailbox.refuses.add("gone@example.org")
    to = ("ops@example.org", "gone@example.org")
    told = {"alerts_webhooks": (), "alerts_mail_to": to, "alerts_mail_from": "fednode@example.org"}
    with post_office(mailbox, server_tls(certificate)) as port:
        desk.reopen(**told, alerts_smtp=f"127.0.0.1:{port}", alerts_smtp_user="ops", alerts_smtp_password=b"wrong")
        desk.alert()
        assert desk.deliver()["failed"] == 2, "a certificate that nobody trusts"
        desk.reopen(alerts_ca=certificate[0])
        assert desk.deliver(HOUR_MS)["failed"] == 2, "the wrong password"
        assert not mailbox.got
        desk.reopen(alerts_smtp_password=b"pass word")
        assert desk.deliver(HOUR_MS) == {"new": 0, "sent": 1, "failed": 1, "waiting": 1}
    ((recipients, mail),) = mailbox.got
    assert recipients == ["ops@example.org"]
    assert (mail["from"], mail["to"]) == ("fednode@example.org", "ops@example.org")
    assert mail["subject"].startswith("[fednode] 告警 严重 / Alert critical: FN-6420 1301")
    body = mail.get_body()
    assert body is not None
    assert "FN-6420/1301/l" in body.get_content()
    assert mail["message-id"].endswith("@example.org>")
    assert mailbox.signed_in == ["ops", "ops"]


def test_no_password_goes_out_without_tls(desk: Desk) -> None:
    mailbox = Mailbox()
    with post_office(mailbox, None) as port:
        desk.reopen(alerts_webhooks=(), alerts_mail_to=("ops@example.org",), alerts_smtp=f"127.0.0.1:{port}")
        desk.alert()
        desk.reopen(alerts_smtp_user="ops", alerts_smtp_password=b"pass word")
        assert desk.deliver()["failed"] == 1, "no STARTTLS there"
        desk.reopen(alerts_smtp_security="none")
        assert desk.deliver(HOUR_MS)["sent"] == 1
    assert not mailbox.signed_in


# ---------------------------------------------------------------- settings, trial, waits


def test_a_trial_goes_to_each_target_and_is_in_the_audit(desk: Desk, hook: Hook) -> None:
    desk.reopen(alerts_webhooks=(hook.url, "http://127.0.0.1:1/none"))
    found = outbox.trial(desk.app, lambda to, what: attempt(to, what, desk.app.config, desk.app.now_s))
    assert [told.ok for _, told in found] == [True, False]
    assert hook.documents()[0]["type"] == "alert.test"
    assert "河北省" in outbox.letter(hook.got[0][1]).text
    assert actions(desk.app)[-1] == "alerts.test"
    assert outbox.standing(desk.app) == []


def test_what_the_settings_may_say(tmp_path: Path) -> None:
    for name, value in (
        ("alerts_webhooks", "http://example.org/x"),
        ("alerts_webhooks", "https://user:pass@example.org/"),
        ("alerts_webhooks", "ftp://example.org"),
        ("alerts_webhooks", "https://example.org/a b"),
        ("alerts_mail_to", "ops"),
        ("alerts_mail_to", "a@b\r\nBcc: c@d"),
        ("alerts_smtp", "host:port"),
        ("alerts_notify", "loud"),
    ):
        with pytest.raises(Refused, match="FN-2602") as caught:
            load(tmp_path, {}, {name: value})
        assert "pass" not in str(caught.value)
    secret = tmp_path / "secret"
    secret.write_text("whsec_AQID\n", encoding="utf-8")
    environ = {"FEDNODE_ALERTS_WEBHOOK_SECRET_FILE": str(secret)}
    config, _ = load(tmp_path, environ, {"alerts_webhooks": "https://example.org/send?key=hidden"})
    assert config.alerts_webhook_secret == b"whsec_AQID"
    assert shown(config)["alerts_webhooks"] == ["https://example.org/***"]
    assert "hidden" not in "".join(one.name for one in targets(config))
    assert not jobs.exists(jobs.BY_NAME["notify"], _Has(Config()))  # type: ignore[arg-type]
    assert jobs.exists(jobs.BY_NAME["notify"], _Has(config))  # type: ignore[arg-type]


class _Has:
    """An app of which the settings are asked for, and nothing else."""

    def __init__(self, config: Config) -> None:
        self.config = config


def test_waits_grow_and_have_an_end() -> None:
    for tried in (1, 3, 8, 500):
        waits = [letter_wait_s(tried) for _ in range(50)]
        most = LETTER_FIRST_S + min(LETTER_MAX_S, LETTER_FIRST_S * 2 ** (tried - 1))
        assert all(LETTER_FIRST_S <= one <= most for one in waits)
    assert max(letter_wait_s(500) for _ in range(50)) > LETTER_FIRST_S * 4


def test_an_attempt_that_the_clock_put_far_away_is_made_again(desk: Desk) -> None:
    """A machine whose clock was years ahead when it was tried, and is put right."""
    desk.alert()
    made: list[Letter] = []

    def no(_target: Target, what: Letter) -> Told:
        made.append(what)
        return Told(ok=False, reason="x")

    outbox.deliver(desk.app, no, lambda _attempt: 60.0)
    desk.clock.ms -= GIVE_UP_MS * 2
    outbox.deliver(desk.app, no, lambda _attempt: 60.0)
    assert len(made) == 2


async def test_a_daemon_tells_by_itself_and_the_list_is_in_words(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found(publish=False)
        await mesh.halt(province)
        province.app.config = replace(province.app.config, alerts_webhooks=(hook.url,), alerts_every="1s")
        await mesh.run(province)
        writer = province.app.new_writer()
        province.app.journal(writer).alert("FN-6420", "13", {"node": "13", "log": "l", "first": 1, "size": 2}, ["head"])
        writer.store.close()
        await mesh.until(lambda: [one["type"] for one in hook.documents()] == ["alert.opened"])
        await mesh.halt(province)
        for lang, words in (
            ("zh", ("严重 未处理 1", "发现者 13", "证据 1 份")),
            ("en", ("critical open 1", "seen by 13")),
        ):
            capsys.readouterr()
            assert invoke(["--home", str(tmp_path / "13"), "--lang", lang, "alerts"], {"LANG": "C.UTF-8"}) == 0
            shown_ = capsys.readouterr().out
            assert [word for word in words if word not in shown_] == []
