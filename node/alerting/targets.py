"""Where alerts are told: webhooks (an HTTP POST, signed) and mailboxes (SMTP), and one attempt at each.

Rules
1. A webhook is signed as Standard Webhooks says (standardwebhooks.com): `webhook-signature: v1,BASE64` of the
   HMAC-SHA256 of `id.timestamp.body` under the secret; an old or repeated one shows by its timestamp and id.
2. TLS is always verified, by the system's roots or those of `[alerts] ca`. Without TLS a webhook may be on this machine
   alone, and nobody signs in to a mail server.
3. An attempt ends within `TIMEOUT_S` of silence. Redirects are not followed. An answer of 2xx is success; a 4xx is the
   receiver's refusal of this one (`Told.theirs`), all else the target's trouble.
4. A target is shown without what may be a secret: of an address the host alone.

>>> key_of(b"whsec_AQID"), key_of(b"abc")
(b'\\x01\\x02\\x03', b'abc')
>>> signature(b"abc", "msg_1", 1780000000, b"{}")
'v1,oPG3w9j4zIZMssuKYmhNh13razuNLmHMIk4tRI4YWHs='
>>> webhook("https://oapi.example.cn/robot/send?access_token=x").name
'webhook oapi.example.cn 2b70c3'
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import urlsplit

import fednode
from fednode.node.config import Config

TIMEOUT_S = 20.0
ANSWER_BYTES = 200
LATER = frozenset((408, 425, 429))  # of 4xx: come again
STARTTLS, TLS = "starttls", "tls"
PORTS = {STARTTLS: 587, TLS: 465, "none": 25}
SECRET_PREFIX = b"whsec_"
REASON_MAX = 200


@dataclass(frozen=True, slots=True)
class Target:
    """`name`: as it is shown and kept; `url` or `mailbox`."""

    name: str
    url: str = ""
    mailbox: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """How an attempt ended. `theirs`: the receiver will not have this one, whatever it thinks of others."""

    ok: bool
    reason: str = ""
    theirs: bool = False
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent: the document for machines, and words for people."""

    id: str
    body: bytes
    subject: str
    text: str


def webhook(url: str) -> Target:
    """The target of an address."""
    mark = hashlib.sha256(url.encode()).hexdigest()[:6]
    return Target(f"webhook {urlsplit(url).netloc} {mark}", url=url)


def targets(config: Config) -> Iterator[Target]:
    """As the settings say."""
    yield from map(webhook, dict.fromkeys(config.alerts_webhooks))
    if config.alerts_smtp:
        yield from (Target(f"mail {one}", mailbox=one) for one in dict.fromkeys(config.alerts_mail_to))


def key_of(secret: bytes) -> bytes:
    """The key that a secret says: base64 after `whsec_`, else its own bytes."""
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            return secret
    return secret


def signature(key: bytes, id_: str, at_s: int, body: bytes) -> str:
    """Rule 1."""
    mac = hmac.new(key, f"{id_}.{at_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def _context(config: Config) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=config.alerts_ca or None)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:REASON_MAX]


# ---------------------------------------------------------------- webhooks


def post(target: Target, letter: Letter, config: Config, now_s: int) -> Told:
    """One attempt at a webhook."""
    there = urlsplit(target.url)
    headers = {
        "content-type": "application/json",
        "user-agent": f"fednode/{fednode.__version__}",
        "webhook-id": letter.id,
        "webhook-timestamp": str(now_s),
    }
    if config.alerts_webhook_secret:
        key = key_of(config.alerts_webhook_secret)
        headers["webhook-signature"] = signature(key, letter.id, now_s, letter.body)
    connection: http.client.HTTPConnection | None = None
    try:
        host, port = there.hostname or "", there.port
        if there.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=_context(config))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        connection.request(
            "POST", f"{there.path or '/'}{'?' if there.query else ''}{there.query}", letter.body, headers
        )
        answer = connection.getresponse()
        words = answer.read(ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Told(ok=False, reason=_short(error))
    finally:
        if connection is not None:
            connection.close()
    after = answer.headers.get("retry-after", "")
    retry_s = int(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0
    ok = 200 <= answer.status < 300
    theirs = 400 <= answer.status < 500 and answer.status not in LATER
    return Told(ok, "" if ok else f"HTTP {answer.status} {words}"[:REASON_MAX], theirs, retry_s)


# ---------------------------------------------------------------- mail


def message(target: Target, letter: Letter, config: Config, now_s: int) -> EmailMessage:
    """A letter as a mail."""
    mail = EmailMessage()
    sender = config.alerts_mail_from or f"fednode@{config.alerts_smtp.rpartition(':')[0] or config.alerts_smtp}"
    mail["From"], mail["To"] = sender, target.mailbox
    mail["Subject"] = " ".join(letter.subject.split())
    mail["Date"] = formatdate(now_s)
    mail["Message-ID"] = f"<{letter.id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter.text)
    return mail


def _server(config: Config) -> smtplib.SMTP:
    """A connection to the mail server, behind TLS where the settings do not say `none`."""
    security = config.alerts_smtp_security
    host, _, port = config.alerts_smtp.rpartition(":")
    where = (host or config.alerts_smtp, int(port) if host else PORTS[security])
    if security == TLS:
        return smtplib.SMTP_SSL(*where, timeout=TIMEOUT_S, context=_context(config))
    server = smtplib.SMTP(*where, timeout=TIMEOUT_S)
    try:
        if security == STARTTLS:
            server.starttls(context=_context(config))
    except BaseException:
        server.close()
        raise
    return server


def send(target: Target, letter: Letter, config: Config, now_s: int) -> Told:
    """One attempt at a mailbox."""
    server: smtplib.SMTP | None = None
    try:
        mail = message(target, letter, config, now_s)
        server = _server(config)
        if config.alerts_smtp_user and config.alerts_smtp_security != "none":
            server.login(config.alerts_smtp_user, (config.alerts_smtp_password or b"").decode())
        server.send_message(mail)
        server.quit()
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()), (0, b""))[0]
        return Told(ok=False, reason=_short(error), theirs=code >= 500)
    except smtplib.SMTPDataError as error:
        return Told(ok=False, reason=_short(error), theirs=error.smtp_code >= 500)
    except (OSError, smtplib.SMTPException, ValueError, UnicodeError) as error:
        return Told(ok=False, reason=_short(error))
    finally:
        if server is not None:
            server.close()  # a QUIT after a broken handshake would wait for its answer
    return Told(ok=True)


def attempt(target: Target, letter: Letter, config: Config, now_s: int) -> Told:
    """One attempt. Never raises for anything that a network or a server can do."""
    return post(target, letter, config, now_s) if target.url else send(target, letter, config, now_s)
