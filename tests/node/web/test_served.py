"""What is served beside the pages: health, metrics, TLS, assets; and that the words, the dashboard and the docs fit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from console import ANY_PORT, Visitor
from fednode.crypto.errors import FednodeError
from fednode.node.config import load
from fednode.node.fence import META
from fednode.node.home import Home, pem_of
from fednode.node.mesh.bounds import STATES
from fednode.node.messages import catalogue
from fednode.node.web.metrics import COUNTERS, GAUGES
from fednode.node.web.roles import ROLES
from fednode.node.web.server import Server, url_of
from fednode.node.web.words import SHAPES
from mesh import Mesh, configuration
from source import ROOT

if TYPE_CHECKING:
    from fednode.node.engine import Engine

WEB = ROOT / "node/web"
TOKEN = "s3cret-token"


async def test_health_and_metrics_of_a_node_in_a_mesh(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        settings = {"http_listen": ANY_PORT, "http_metrics_token": TOKEN.encode()}
        city = await mesh.child(province, "1301", "city", **settings)
        county = await mesh.child(city, "130102", "county")
        await mesh.until(lambda: county.app.trust.catalog_version == 1)
        await mesh.until(lambda: (found := city.app.store.peer("13")) is not None and bool(found.last_ms))
        async with Visitor(city) as visitor:
            assert (await visitor.get("/healthz")).json() == {"alive": True}
            ready = (await visitor.get("/readyz")).json()
            assert (ready["ready"], [one["name"] for one in ready["checks"]]) == (True, ["log", "projection", "fence"])
            page = await visitor.until("/metrics", 'fednode_mesh_nodes{level="county",state="ok"} 1.0')
            _check_the_page(page)
            _check_the_dashboard(page)
            for headers, status in (
                ({"host": "evil.example"}, 401),
                ({"x-forwarded-for": "10.0.0.1"}, 401),
                ({"host": "evil.example", "authorization": f"Bearer {TOKEN}"}, 200),
                ({"authorization": "Bearer wrong"}, 401),
            ):
                assert (await visitor.get("/metrics", headers=headers)).status_code == status, headers
            with city.app.store.write() as tx:
                tx.set_meta(META, json.dumps({"code": "FN-5412", "at_ms": 1, "heads": []}))
            answer = await visitor.get("/readyz")
            codes = [one["code"] for one in answer.json()["checks"]]
            assert (answer.status_code, codes) == (503, ["", "", "FN-5805"])
            assert "fednode_fenced 1.0" in (await visitor.get("/metrics")).text


def _names(page: str) -> set[str]:
    return {line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE ")}


def _check_the_page(page: str) -> None:
    """Every metric that is declared is there (but those of standbys, which this node has not), and no other."""
    names = {name for name in _names(page) if name.startswith("fednode_")}
    declared = set(GAUGES) | {f"{name}_total" for name in COUNTERS}
    assert declared - names == {"fednode_standby_lag_changes"}
    assert names <= declared
    counted = re.findall(r'fednode_mesh_nodes\{level="(\w+)",state="ok"\} (\S+)', page)
    assert counted == [("city", "1.0"), ("county", "1.0")]
    assert page.count("fednode_mesh_nodes{") == 2 * len(STATES)
    assert 'fednode_sessions_open{peer="parent"} 1.0' in page
    docs = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    assert {name for name in declared if f"`{name}`" not in docs} == set()


def _check_the_dashboard(page: str) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/fednode.json").read_text(encoding="utf-8"))
    used: set[str] = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            used |= set(re.findall(r"\b(?:fednode|process)_[a-z_]+", target["expr"]))
    assert used - _names(page) <= {"fednode_standby_lag_changes"}
    assert "fednode_mesh_nodes" in used


async def test_tls_with_the_node_s_own_certificate(tmp_path: Path) -> None:
    """On every address but the loopback's; here it is asked for by naming the certificate."""
    async with Mesh(tmp_path) as mesh:
        home = tmp_path / "13"
        own = {"http_certificate": str(home / "chain.pem"), "http_key": str(home / "keys/tls.pem")}
        node = await mesh.found(publish=False, http_listen=ANY_PORT, **own)
        assert url_of(node.app.home).startswith("https://")
        root = ssl.create_default_context(cadata=pem_of(node.app.home.chain()[-1:]).decode())
        root.check_hostname = False
        async with Visitor(node, verify=root) as alice:
            await alice.join("viewer")
            cookie = (await alice.sign_in("alice")).headers.get("set-cookie", "")
            assert alice.http.cookies["__Host-fednode-session"]
            assert "Secure" in cookie or not cookie
            assert (await alice.get("/node")).status_code == 200


async def test_a_certificate_that_was_renewed_is_shown_without_a_stop(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found(publish=False)
        await mesh.found("14", publish=False)
        served, key, homes = tmp_path / "c.pem", tmp_path / "k.pem", [tmp_path / name for name in ("13", "14")]

        def put(home: Path) -> str:
            key.write_bytes((home / "keys/tls.pem").read_bytes())
            served.write_bytes((home / "chain.pem").read_bytes())
            return served.read_text().partition("-----END")[0]

        first = put(homes[0])
        config = replace(node.app.config, http_listen=ANY_PORT, http_certificate=str(served), http_key=str(key))
        node.app.config = config
        server = Server(node.app, cast("Engine", SimpleNamespace(sessions=set())))
        await server.start()
        try:
            place = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            assert (await asyncio.to_thread(ssl.get_server_certificate, place)).startswith(first)
            served.write_bytes((homes[1] / "chain.pem").read_bytes())  # its key is on its way
            server.look()
            assert (await asyncio.to_thread(ssl.get_server_certificate, place)).startswith(first)
            second = put(homes[1])
            server.look()
            assert (await asyncio.to_thread(ssl.get_server_certificate, place)).startswith(second)
            served.write_bytes(b"half of a file")
            server.look()
            assert (await asyncio.to_thread(ssl.get_server_certificate, place)).startswith(second), "the last good one"
        finally:
            await server.stop()


async def test_an_address_for_all_is_tls_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found(publish=False, http_listen="0.0.0.0:0")
        assert url_of(node.app.home).startswith("https://")
    async with Mesh(tmp_path / "plain") as mesh:
        proxies = ("127.0.0.1",)
        node = await mesh.found(publish=False, http_listen="0.0.0.0:0", http_plain=True, http_proxies=proxies)
        url = url_of(node.app.home)
        assert url.startswith("http://")
        async with httpx.AsyncClient(base_url=url.replace("0.0.0.0", "127.0.0.1"), trust_env=False) as client:
            answer = await client.get("/signin", headers={"x-forwarded-for": "10.9.9.9", "x-forwarded-proto": "https"})
            assert "__Host-fednode-form" in answer.cookies, "the browser is told that it came over TLS"
            local = await client.get("/metrics", headers={"host": "localhost"})
            assert local.status_code == 401, "what a proxy sends on looks like this machine's own"


async def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with Mesh(tmp_path) as mesh:
            with pytest.raises(FednodeError) as refused:
                await mesh.found(publish=False, http_listen=address)
    assert (refused.value.code, refused.value.params["address"]) == ("FN-7801", address)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"http_certificate": "/nonexistent.pem"}, "FN-2805"),
        ({"http_certificate": "/nonexistent.pem", "http_key": "/nonexistent.key"}, "FN-7802"),
    ],
)
async def test_a_certificate_that_cannot_be_used_is_said_so(
    tmp_path: Path, settings: dict[str, str], code: str
) -> None:
    async with Mesh(tmp_path) as mesh:
        with pytest.raises(FednodeError) as refused:
            await mesh.found(publish=False, http_listen=ANY_PORT, **settings)
    assert refused.value.code == code


def test_settings(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t\n")
    environ = {"FEDNODE_HTTP_METRICS_TOKEN_FILE": str(token), "FEDNODE_HTTP_PROXIES": "10.0.0.5,::1"}
    (tmp_path / "config.toml").write_text('[http]\nlisten = "127.0.0.1:8080"\nplain = true\n')
    config, _ = load(tmp_path, environ, {})
    assert (config.http_listen, config.http_plain, config.http_metrics_token) == ("127.0.0.1:8080", True, b"t")
    assert config.http_proxies == ("10.0.0.5", "::1")
    with pytest.raises(FednodeError):
        load(tmp_path, {"FEDNODE_HTTP_PROXIES": "proxy.example"}, {})
    assert configuration().http_listen == "", "a node has no console unless it is told to"


@pytest.mark.parametrize("folder", ["node/web/static/vendor", "tests/vendor"])
def test_what_others_wrote_is_as_it_was_published(folder: str) -> None:
    listed = {}
    for line in (ROOT / folder / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    found = {str(path.relative_to(ROOT / folder)): path for path in (ROOT / folder).glob("*/**/*") if path.is_file()}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == listed
    for name in {Path(name).parts[0] for name in listed}:
        assert (ROOT / folder / name / "LICENSE").is_file(), f"{name} has no licence"
        assert f"`{name}`" in (ROOT / folder / "README.md").read_text(encoding="utf-8")


def test_templates_and_navigation_have_words_and_name_nothing_from_elsewhere() -> None:
    keys = set()
    for path in (WEB / "templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        keys |= set(re.findall(r"""\bw\(\s*["']([a-z_.]+)["']\s*[,)]""", text))
        assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text), path.name
        assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=", text), (
            f"{path.name}: the CSP forbids it"
        )
    keys |= {f"web.role.{role}" for role in ROLES} | {f"web.theme.{theme}" for theme in ("auto", "light", "dark")}
    assert keys - set(catalogue()) == set()
    assert set(SHAPES) == set(STATES)
    assert len(set(SHAPES.values())) == len(STATES), "each state has a shape of its own"


def test_no_home_no_console() -> None:
    assert url_of(Home(Path("/nonexistent"))) == ""
