"""A word from one process to another: over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from fednode.node.poke import NAME, Listener, poke

WAIT_S = 60


class Ear:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.times, self._event = 0, asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._event.set()

    async def hears(self) -> int:
        """How often it has heard something, once there is something new."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), WAIT_S)
        self._event.clear()
        return self.times


async def test_a_poke_is_heard_and_several_at_once_are_one_word(tmp_path: Path) -> None:
    ear = Ear()
    listener = Listener(tmp_path, ear)
    assert poke(tmp_path)
    assert poke(tmp_path)
    assert await ear.hears() == 1
    assert poke(tmp_path)
    assert await ear.hears() == 2
    listener.close()
    assert not (tmp_path / NAME).exists()
    assert not poke(tmp_path)
