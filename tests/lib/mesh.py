"""Real nodes in one process: real homes, real SQLite files, real gRPC with mutual TLS on loopback.

async with Mesh(tmp_path) as mesh:
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    await mesh.until(lambda: city.app.trust.catalog_version == 1)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from fednode.node import daemon, shipped
from fednode.node.app import App, real_clock
from fednode.node.config import Config
from fednode.sync.change import Change
from fednode.sync.enrol import Token
from ports import free_port

WAIT_S = 120.0


def configuration(**more: Any) -> Config:
    """A node's settings on fresh ports of the loopback."""
    listen, enrol = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    given: dict[str, Any] = {"listen": listen, "enrol_listen": enrol, "advertise": (listen,)}
    return Config(**{**given, "advertise_enrol": (enrol,), "reserve_mib": 1, **more})


@dataclass
class Running:
    """A node, and its daemon while it runs."""

    app: App
    task: asyncio.Task[None] | None = None
    stop: Callable[[], None] = field(default=lambda: None)

    def write(self, key: str, record: dict[str, Any], *, dataset: str = "admin-licence", area: str = "") -> None:
        """Append one change to this node's log, as another process would, and tell its daemon."""
        payload = json.dumps(record, sort_keys=True).encode()
        writer = self.app.new_writer()
        writer.local(dataset, area or self.app.trust.area, [Change(key.encode(), payload)])
        writer.store.close()
        self.app.poke()

    def records(self) -> dict[str, Any]:
        """Key -> record, of all datasets of the catalog."""
        projector = self.app.new_projector()
        try:
            projector.catch_up()
            rows = projector.connection.execute(
                """select key, payload from record where op = 1
                   and dataset not in (select id from dataset where name like 'sys.%')"""
            ).fetchall()
            return {key: json.loads(payload) for key, payload in rows}
        finally:
            projector.close()
            projector.store.close()

    def records_in_log(self) -> int:
        """Changes of records in the store, whatever the projection says."""
        return sum(size for _, name, size in self.app.store.logs() if not name.is_system)

    def pending(self) -> int:
        """Changes that the parent does not hold."""
        parent = self.app.trust.parent
        peer = self.app.store.peer(parent.node) if parent else None
        return self.app.store.backlog_up(peer.acked if peer else 0).changes


class Mesh:
    """Nodes that are stopped at the end."""

    def __init__(self, folder: Path, clock: Callable[[], int] = real_clock) -> None:
        self.folder, self.clock = folder, clock
        self.running: list[Running] = []

    async def __aenter__(self) -> Mesh:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        for node in reversed(self.running):
            await self.halt(node)
            node.app.close()

    async def found(self, node: str = "13", *, publish: bool = True, **more: Any) -> Running:
        """A province with the shipped catalog, running."""
        app = App.init_province(
            self.folder / node, configuration(**more), node=node, name="河北省", domain="hebei", clock=self.clock
        )
        if publish:
            app.publish_catalog(shipped.catalog())
        return await self.start(app)

    async def child(self, parent: Running, node: str, level: str, **more: Any) -> Running:
        """Invite, join, run."""
        token = Token.decode(parent.app.invite(node, level, node))
        app = await App.join(self.folder / node, configuration(**more), token, clock=self.clock)
        return await self.start(app)

    async def start(self, app: App) -> Running:
        """Run a node's daemon until `halt`."""
        node = Running(app)
        await self.run(node)
        self.running.append(node)
        return node

    async def run(self, node: Running) -> None:
        """Start a node's daemon (again)."""
        ready = asyncio.Event()

        def stopper(stop: Callable[[], None]) -> None:
            node.stop = stop

        def became(app: App) -> None:
            node.app = app

        node.task = asyncio.create_task(daemon.serve(node.app, lambda _port, _enrol: ready.set(), stopper, became))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, node.task}, return_when=asyncio.FIRST_COMPLETED)
        if node.task.done():
            waiting.cancel()
            node.task.result()

    async def halt(self, node: Running) -> None:
        """Stop a node's daemon cleanly."""
        if node.task is not None:
            node.stop()
            await node.task
            node.task = None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; the nodes' own events drive it, this only looks."""
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_S
        while not holds():
            if loop.time() > end:
                raise AssertionError(f"not within {WAIT_S:.0f} s")
            tick = loop.create_future()
            loop.call_later(0.02, tick.set_result, None)
            await tick
            for node in self.running:
                node.app.trust.refresh(node.app.store)
