"""The daemon's jobs `alerts` and `coverage`: what `raising` looks for in a thread of its own, written by the engine's
writer.

Rules
1. Where there is no room on the disk nothing is looked for: what would be written is refused, and found again.
2. Trouble with alerts.db disturbs nothing else: the job fails, is noted, and runs again.

>>> # alerts = Alerts(app, engine); await alerts.look(); await alerts.survey()
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

from fednode.node.alerting import raising
from fednode.node.alerting.local import Local
from fednode.node.jobs import IDLE, survey

if TYPE_CHECKING:
    from fednode.node.alerting.raising import Plan
    from fednode.node.app import App
    from fednode.node.engine import Engine


class Alerts:
    """Of one engine."""

    def __init__(self, app: App, engine: Engine) -> None:
        self._app, self._engine = app, engine

    async def look(self) -> object:
        """Open and close alerts."""
        app = self._app
        if app.room.low:
            return IDLE
        plan = await asyncio.to_thread(self._planned)
        if plan.opens or plan.closes:
            await self._engine.writer.call(lambda writer: raising.carry_out(app, writer, plan))
            self._engine.moved()
        await asyncio.to_thread(self._settle, plan)
        return None

    def _planned(self) -> Plan:
        with closing(Local.open(self._app.home.alerts_db)) as local:
            return raising.look(self._app, local, serving=True)

    def _settle(self, plan: Plan) -> None:
        with closing(Local.open(self._app.home.alerts_db)) as local:
            raising.settle(local, plan)

    async def survey(self) -> object:
        """Look at the areas."""
        if self._app.room.low:
            return IDLE
        return await asyncio.to_thread(survey, self._app)
