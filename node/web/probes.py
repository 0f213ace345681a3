"""For load balancers and Prometheus: /healthz, /readyz, /metrics.

Rules
1. /healthz says that the event loop turns, and looks at nothing: whoever restarts a node because a disk is full makes
   nothing better.
2. /readyz is 503 with its reasons while a store cannot be read, the node is fenced, or the projection is far behind.
3. /metrics is for this machine, or for who shows the token (`http_metrics_token`). What came through a proxy is not
   from this machine, and neither is a page that a name of another's leads here. Behind a proxy it takes the token.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fednode.crypto.errors import FednodeError
from fednode.node import fence, sqlite
from fednode.node.messages import error_text
from fednode.node.web.metrics import CONTENT_TYPE
from fednode.sync.errors import PeerError, StoreError

if TYPE_CHECKING:
    from fednode.node.web.desk import Reader
    from fednode.node.web.site import Site

BEHIND_MAX = 2_000  # segments that the projection may be behind
PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip")
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


async def alive(request: Request) -> Response:
    """The process lives."""
    return JSONResponse({"alive": True})


async def ready(site: Site, request: Request) -> Response:
    """Whether this node can do its work."""
    try:
        found = await site.desk.ask(checks)
    except FednodeError as error:  # not even a store can be opened
        found = [{"name": "log", "code": error.code, "message": error_text(error, "en")[0]}]
    reasons = [one for one in found if one["code"]]
    return JSONResponse({"ready": not reasons, "checks": found}, 503 if reasons else 200)


def checks(reader: Reader) -> list[dict[str, Any]]:
    """What /readyz looks at: `name`, `code` ("" where it is well), `message`, and what was measured."""
    return [
        _check("log", lambda: {"lsn": reader.store.lsn}),
        _check("projection", lambda: _projection(reader)),
        _check("fence", lambda: _fence(reader)),
    ]


def _projection(reader: Reader) -> dict[str, Any]:
    behind = max(0, reader.store.lsn - reader.projector.cursor)
    if behind > BEHIND_MAX:
        raise StoreError("FN-7803", behind=behind, limit=BEHIND_MAX)
    return {"behind": behind}


def _fence(reader: Reader) -> dict[str, Any]:
    found = fence.standing(reader.store)
    if found is not None:
        raise PeerError("FN-5805", code=found.code)
    return {}


def _check(name: str, look: Any) -> dict[str, Any]:
    try:
        return {"name": name, "code": "", "message": "", **look()}
    except (FednodeError, sqlite.DatabaseError) as error:
        told = error if isinstance(error, FednodeError) else sqlite.trouble(error, name)
        return {"name": name, "code": told.code, "message": error_text(told, "en")[0]}


# ---------------------------------------------------------------- metrics


def may_scrape(site: Site, request: Request) -> bool:
    """Rule 3."""
    token = site.app.config.http_metrics_token
    given = request.headers.get("authorization", "")
    if token and given.startswith("Bearer "):
        return hmac.compare_digest(given.removeprefix("Bearer ").strip().encode(), token.strip())
    config = site.app.config
    if config.http_plain or config.http_proxies or any(name in request.headers for name in PROXIED):
        return False  # a proxy may well send what came from anywhere on as this machine's own, without a word
    host = request.headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in LOCAL_NAMES and is_loopback(request.client.host if request.client else "")


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, means this machine.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost", "0.0.0.0", "10.0.0.1", "")]
    [True, True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


async def scrape(site: Site, request: Request) -> Response:
    """What Prometheus reads."""
    if not may_scrape(site, request):
        message, hint = error_text(PeerError("FN-5804"), "en")
        response = PlainTextResponse(f"FN-5804: {message}; {hint}\n", 401)
        response.headers["www-authenticate"] = "Bearer"
        return response
    body = await site.desk.ask(site.metrics.page)
    return Response(body, media_type=CONTENT_TYPE)
