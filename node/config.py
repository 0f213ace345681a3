"""Configuration: `config.toml` in the home, environment, flags. One typed value, and where each part of it came from.

Rules
1. Precedence: flag, environment (`FEDNODE_LISTEN`, `FEDNODE_LOG_LEVEL`, ...), file, default. A `_FILE` variant names a
   file that holds the value (secrets). An empty variable is one that is not set.
2. Lists are TOML arrays in the file, comma-separated in the environment.
3. Windows, limits and spans of time are texts that `timetable` can read. A table of `[[sync.limits]]` with from, to,
   limit and, if need be, days is the same as one such text.
4. An unknown key, or a value of the wrong kind, is refused with the name that was perhaps meant. Nothing in the file is
   ignored in silence. Variables that begin like ours may be anyone's: refused when nearly one of ours, else left alone.

>>> config, origins = load(Path("/nonexistent"), {"FEDNODE_LISTEN": "127.0.0.1:7000"}, {})
>>> config.listen, origins["listen"], config.enrol_listen, origins["enrol_listen"]
('127.0.0.1:7000', 'environment FEDNODE_LISTEN', '0.0.0.0:7444', 'default')
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fednode.node import toml
from fednode.node.ackgate import ALONE, HOLD
from fednode.node.alerting.rules import LEVELS, parse_rule
from fednode.node.mesh.bounds import parse_bound
from fednode.node.profile import AUTO, NORMAL_NAME, SMALL_NAME
from fednode.node.timetable import parse_duration, parse_limit, parse_rate, parse_span, parse_zone
from fednode.sync.errors import Refused, StoreError

FILE = "config.toml"
PREFIX = "FEDNODE_"
# Read by the command line itself, before there is a home: not settings of the file.
OTHER_VARIABLES = frozenset(("FEDNODE_HOME", "FEDNODE_OPERATOR", "FEDNODE_PYTHON", "FEDNODE_RECOVERY_PASSPHRASE_FILE"))
NEAR = 0.8  # how like one of ours a variable's name is that must be a slip of the pen


@dataclass(frozen=True, slots=True)
class Config:
    """What a node's administrator decides. Addresses are host:port; `advertise...` are what others are told to dial."""

    listen: str = "0.0.0.0:7443"
    enrol_listen: str = "0.0.0.0:7444"
    advertise: tuple[str, ...] = ()
    advertise_enrol: tuple[str, ...] = ()
    parent_addresses: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = "text"
    lang: str = ""
    scrub_days: int = 7
    reserve_mib: int = 32
    profile: str = AUTO
    health_interval: str = "1m"
    health_stale: tuple[str, ...] = ("26h", "city 15m", "county 1h")
    health_behind: tuple[str, ...] = ("26h", "city 30m", "county 2h")
    health_behind_changes: int = 10_000
    alerts_every: str = "1m"
    alerts_rules: tuple[str, ...] = ()
    alerts_coverage: str = "1d"
    alerts_notify: str = "warning"
    alerts_webhooks: tuple[str, ...] = ()
    alerts_webhook_secret: bytes | None = None
    alerts_mail_to: tuple[str, ...] = ()
    alerts_mail_from: str = ""
    alerts_smtp: str = ""
    alerts_smtp_security: str = "starttls"
    alerts_smtp_user: str = ""
    alerts_smtp_password: bytes | None = None
    alerts_ca: str = ""
    sync_windows: tuple[str, ...] = ()
    sync_zone: str = ""
    sync_limit: str = ""
    sync_limits: tuple[str, ...] = ()
    sync_urgent: bool = False
    serve_sessions: int = 2000
    serve_quantum: str = "1m"
    ack: str = "own"
    ack_wait: str = "10s"
    ack_away: str = "hold"
    jobs_scrub: str = "1m"
    jobs_renewal: str = "1h"
    jobs_retention: str = "10m"
    jobs_cleaning: str = "1d"
    jobs_drill: str = "1h"
    drill_days: int = 183
    jobs_backup: str = "1d"
    jobs_jitter: int = 10
    backup_to: str = ""
    backup_key: str = ""
    backup_keep: int = 14
    backup_endpoint: str = ""
    backup_region: str = "us-east-1"
    backup_access_key: str = ""
    backup_secret_key: bytes | None = None
    http_listen: str = ""
    http_certificate: str = ""
    http_key: str = ""
    http_plain: bool = False
    http_proxies: tuple[str, ...] = ()
    http_idle: str = "30m"
    http_session: str = "12h"
    http_metrics_token: bytes | None = None
    trace_endpoint: str = ""
    trace_sample: float = 1.0
    passphrase: bytes | None = None


def _endpoint(text: str) -> None:
    """Where an S3-compatible storage is; empty: where Amazon's is."""
    if text and not re.fullmatch(r"https?://[^\s/]+/?", text):
        raise ValueError(text)


def _ip_address(text: str) -> None:
    """An address of a proxy."""
    ipaddress.ip_address(text)


def _recovery_key(text: str) -> bytes:
    """The recovery key that is meant; none where the text is empty."""
    from fednode.sync.backup import decode_key

    return decode_key(text) if text else b""


def _webhook(text: str) -> None:
    """An address for POST; without TLS on this machine alone."""
    found = urlsplit(text)
    _ = found.port  # raises ValueError for what is none
    loopback = found.hostname in ("localhost", "127.0.0.1", "::1")
    if not found.hostname or "@" in found.netloc or not text.isascii() or re.search(r"\s", text):
        raise ValueError(text)
    if found.scheme != "https" and not (found.scheme == "http" and loopback):
        raise ValueError(text)


def _collector(text: str) -> None:
    """Where traces are posted to (OTLP over HTTP); empty: nowhere."""
    found = urlsplit(text)
    _ = found.port  # raises ValueError for what is none
    if text and (found.scheme not in ("http", "https") or not found.hostname or "@" in found.netloc):
        raise ValueError(text)
    if not text.isascii() or re.search(r"\s", text):
        raise ValueError(text)


def _server(text: str) -> None:
    """host or host:port; empty: none."""
    if text and not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?", text):
        raise ValueError(text)


def _mailbox(text: str) -> None:
    """A mail address; empty: none."""
    if text and not re.fullmatch(r"[^\s@<>,;:\"()\\]+@[^\s@<>,;:\"()\\]+", text):
        raise ValueError(text)


CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("text", "json"),
    "lang": ("", "en", "zh"),
    "profile": (AUTO, NORMAL_NAME, SMALL_NAME),
    "ack": ("own", "standby"),
    "ack_away": (HOLD, ALONE),
    "alerts_notify": LEVELS,
    "alerts_smtp_security": ("starttls", "tls", "none"),
}
ADDRESS_LISTS = frozenset(("advertise", "advertise_enrol", "parent_addresses"))
ALERT_LISTS = frozenset(("alerts_rules", "alerts_webhooks", "alerts_mail_to"))
LISTS = ADDRESS_LISTS | {"sync_windows", "sync_limits", "health_stale", "health_behind", "http_proxies"} | ALERT_LISTS
ADDRESSES = ADDRESS_LISTS | {"listen", "enrol_listen", "http_listen"}
MAY_BE_EMPTY = frozenset(("http_listen",))
NUMBERS = {  # least, greatest
    "scrub_days": (0, 365),
    "reserve_mib": (0, 65_536),
    "jobs_jitter": (0, 50),
    "drill_days": (0, 3660),
    "serve_sessions": (1, 6000),
    "backup_keep": (1, 1000),
    "health_behind_changes": (0, 100_000_000),
}
RATIOS = frozenset(("trace_sample",))  # 0 to 1
SWITCHES = frozenset(("sync_urgent", "http_plain"))
# What reads a text, or raises ValueError; and how one looks.
_SPAN_OF_TIME: tuple[Callable[[str], Any], str] = (parse_duration, "30s, 10m, 1h, 7d")
FORMS: dict[str, tuple[Callable[[str], Any], str]] = {
    "sync_windows": (parse_span, "02:00-03:30, mon-fri 22:00-02:00"),
    "sync_limit": (parse_rate, "32k, 1.5M (bits per second, 2.4k at least; 0: none)"),
    "sync_limits": (parse_limit, "mon-fri 08:00-18:00 32k"),
    "sync_zone": (parse_zone, "Asia/Shanghai, +08:00"),
    **dict.fromkeys(
        ("jobs_scrub", "jobs_renewal", "jobs_retention", "jobs_cleaning", "jobs_backup", "jobs_drill"), _SPAN_OF_TIME
    ),
    "backup_endpoint": (_endpoint, "https://s3.example.org"),
    "backup_key": (_recovery_key, "fnrecover1.... (`fednode backup key` prints it)"),
    **dict.fromkeys(("serve_quantum", "ack_wait", "health_interval", "http_idle", "http_session"), _SPAN_OF_TIME),
    **dict.fromkeys(("alerts_every", "alerts_coverage"), _SPAN_OF_TIME),
    "alerts_webhooks": (_webhook, "https://hooks.example.org/path (http:// for this machine alone)"),
    "trace_endpoint": (_collector, "http://127.0.0.1:4318/v1/traces"),
    "alerts_smtp": (_server, "smtp.example.org:587"),
    **dict.fromkeys(("alerts_mail_to", "alerts_mail_from"), (_mailbox, "ops@example.org")),
    "alerts_rules": (parse_rule, "disk critical 5%, clock off, certificate 30d (see `fednode alerts rules`)"),
    "http_proxies": (_ip_address, "10.0.0.5"),
    **dict.fromkeys(("health_stale", "health_behind"), (parse_bound, "26h, county 1h")),
}
SECRETS = frozenset(
    ("passphrase", "backup_secret_key", "http_metrics_token", "alerts_webhook_secret", "alerts_smtp_password")
)
MASKED = frozenset(("alerts_webhooks",))  # addresses that may carry a token: shown up to the host
NAMES = tuple(field.name for field in fields(Config))
VARIABLES = frozenset(PREFIX + name.upper() + end for name in NAMES for end in ("", "_FILE"))
_ADDRESS = re.compile(r"(?:[^\s:\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([0-9]{1,5})")


def load(
    home: Path, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> tuple[Config, dict[str, str]]:
    """The configuration, and for each name where it came from. Raises Refused FN-2601 (unknown name), FN-2602 (value),
    FN-2603 (not TOML), StoreError FN-7619 (unreadable)."""
    values: dict[str, Any] = {}
    origins = dict.fromkeys(NAMES, "default")
    path = home.expanduser() / FILE
    for name, value in _file(path).items():
        values[name] = _value(name, value, str(path))
        origins[name] = f"file {path}"
    _misspelt(environ)
    for name in NAMES:
        variable = PREFIX + name.upper()
        if environ.get(variable):
            values[name] = _value(name, environ[variable], variable)
            origins[name] = f"environment {variable}"
        elif environ.get(variable + "_FILE"):
            values[name] = _value(name, _secret(Path(environ[variable + "_FILE"])), variable + "_FILE")
            origins[name] = f"environment {variable}_FILE"
    for name, value in (flags or {}).items():
        if value is not None and value != ():
            option = "--" + name.replace("_", "-")
            values[name] = _value(name, value, option)
            origins[name] = f"flag {option}"
    return Config(**values), origins


def _file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("FN-7619", path=str(path), reason=str(error)[:200]) from error
    try:
        found = toml.loads(text)
    except ValueError as error:
        raise Refused("FN-2603", path=str(path), reason=str(error)[:200]) from error
    flat: dict[str, Any] = {}
    for name, value in found.items():
        # [log] level = "info" is the same as log_level = "info"
        flat |= {f"{name}_{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    for name in flat:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            raise Refused("FN-2601", name=name, path=str(path), near=near[0] if near else ", ".join(NAMES))
    return flat


def _misspelt(environ: Mapping[str, str]) -> None:
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in VARIABLES | OTHER_VARIABLES:
            near = difflib.get_close_matches(variable, VARIABLES, 1, NEAR)
            if near:
                raise Refused("FN-2601", name=variable, path="environment", near=near[0])


def _secret(path: Path) -> str:
    try:
        value = path.expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("FN-7619", path=str(path), reason=str(error)[:200]) from error
    if not value:  # taken as it is, it would mean: no passphrase
        raise StoreError("FN-7619", path=str(path), reason="empty")
    return value


def _value(name: str, value: Any, where: str) -> Any:
    shown = "***" if name in SECRETS | MASKED else str(value)[:100]
    choices = ", ".join(CHOICES.get(name, ())) or "-".join(map(str, NUMBERS.get(name, ())))
    choices = FORMS[name][1] if name in FORMS else "true, false" if name in SWITCHES else choices
    choices = "0.0-1.0" if name in RATIOS else choices
    refused = Refused("FN-2602", name=name, value=shown, where=where, choices=choices)
    if name in NUMBERS:
        least, greatest = NUMBERS[name]
        text = str(value) if type(value) in (int, str) else ""
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= greatest:
            raise refused
        return int(text)
    if name in RATIOS:
        text = str(value) if type(value) in (int, float, str) else ""
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or float(text) > 1:
            raise refused
        return float(text)
    if name in SWITCHES:
        switch = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(switch, bool):
            raise refused
        return switch
    if name in LISTS:
        items = value.split(",") if isinstance(value, str) else value
        if name == "sync_limits" and isinstance(items, list | tuple):
            items = [_limit_text(one) for one in items]
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise refused
        value = tuple(item.strip() for item in items if item.strip())
    elif not isinstance(value, str):
        raise refused
    if name in SECRETS:
        return value.encode()
    if name in CHOICES and value not in CHOICES[name]:
        raise refused
    if name in FORMS:
        try:
            for one in value if name in LISTS else (value,):
                FORMS[name][0](one)
        except ValueError as error:
            raise refused from error
    if name in ADDRESSES and not (name in MAY_BE_EMPTY and not value):
        for address in value if name in LISTS else (value,):
            if not is_address(address):
                raise refused
    return value


def is_address(text: str) -> bool:
    """Whether a text is a host and a port."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match[1]) <= 65535


def _limit_text(table: Any) -> Any:
    """One of `[[sync.limits]]` as a text; what is none is left as it is."""
    if not isinstance(table, dict) or not {"from", "to", "limit"} <= table.keys() <= {"days", "from", "to", "limit"}:
        return table
    if not all(isinstance(one, str) for one in table.values()):
        return table
    return f"{table.get('days', '')} {table['from']}-{table['to']} {table['limit']}".strip()


def _shown(name: str, value: Any) -> Any:
    """A value that is no secret."""
    if name in MASKED:
        return [re.sub(r"^(\w+://[^/?#]*)[/?#].+", r"\1/***", one) for one in value]
    return list(value) if isinstance(value, tuple) else value


def shown(config: Config) -> dict[str, Any]:
    """The configuration for people and for --json: secrets are masked."""
    values = {name: getattr(config, name) for name in NAMES}
    return {
        name: ("***" if value else None) if name in SECRETS else _shown(name, value) for name, value in values.items()
    }
