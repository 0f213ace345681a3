"""Sticks in the simulated world: exchanges that are carried, beside those over links. A stick may be lost, come late,
twice, or after ones that were written later; power may go while it is written or read. Who restores a backup throws
away the sticks that it has written since (seed 12; docs/architecture.md, known limits).

Real bundles, in files, by the code that the command line runs (`bundle_out.export`, `bundles.take_in`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node import bundle_out, bundles
from fednode.node.app import App
from fednode.node.home import Home
from fednode.node.journal import Journal
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.writer import Writer
from sim import ailments

if TYPE_CHECKING:
    from sim.world import SimNode, World

ON_THE_WAY_MS = ((500, 20_000), (500, 20_000), (20_000, 4 * 60 * 1000))  # soon, or late
BROUGHT = (0, 1, 1, 1, 2, 3)  # how often a stick is brought: some are lost


class QuietJournal(Journal):
    """Leaves out what HPKE's own randomness makes different in every run: a trace is to be the same."""

    def note(self, action: str, outcome: str = "done", *, code: str = "", **details: Any) -> None:
        details.pop("fingerprint", None)
        super().note(action, outcome, code=code, **details)


class SimApp(App):
    """A simulated node as the command line sees it."""

    def __init__(self, node: SimNode) -> None:
        home, rng = Home(node.folder), node.world.clock.rng.randbytes
        super().__init__(home, node.config, node.member.keys, node.store, node.trust, node.wall_ms, rng, "sim")
        self._node = node
        self.room = node.store.room = node.disk
        if node.shown != node.member.chain:
            home.write_chain(node.member.chain)
            node.shown = node.member.chain
        self.reference = node.reference

    software = "sim"

    def new_writer(self, store: Store | None = None) -> Writer:
        return self._node.writer

    def new_projector(self, store: Store | None = None) -> Projector:
        return Projector(self._node.folder / "state.db", store or self.new_store(), self.trust)

    def journal(self, writer: Writer | None = None) -> Journal:
        return QuietJournal(self._node.writer, self.now_ms, "sim", "sim", self.throttle)

    def poke(self) -> bool:
        return False

    def enrol_addresses(self) -> tuple[str, ...]:
        return ()

    def exchange_addresses(self) -> tuple[str, ...]:
        return ()

    def install_chain(self, chain: tuple[bytes, ...], *, dated: bool = True) -> Any:
        self._node.adopt(chain)
        return self.trust.me


def carry(world: World, child: SimNode, parent: SimNode, up: bool) -> None:
    """Somebody writes a stick at one of two neighbours and takes it to the other, sooner or later, or not at all."""
    sender, receiver = (child, parent) if up else (parent, child)
    if not sender.up or sender.restoring or sender.trust.directory.get(receiver.id) is None:
        return
    world.sticks += 1
    folder = world.folder / f"stick-{world.sticks}"
    try:
        written = sender.guarded(partial(bundle_out.export, SimApp(sender), receiver.id, folder))
    except FednodeError as error:
        world.note("no stick", sender.id, error.code)
        return
    world.note("stick", sender.id, receiver.id, written and (written.after, written.upto, written.segments))
    if written is None:
        return
    sender.moved()
    rng, written_by = world.clock.rng, {sender.id: world.rollbacks.get(sender.id, 0)}
    for _ in range(rng.choice(BROUGHT)):
        bring = partial(_bring, world, folder, receiver, sender, written_by)
        _on_its_way(world, rng.randint(*rng.choice(ON_THE_WAY_MS)) * world.stretch, bring)


def _on_its_way(world: World, for_ms: int, bring: Callable[[], None]) -> None:
    world.sticks_until_ms = max(world.sticks_until_ms, world.clock.now_ms + for_ms)
    world.clock.at(for_ms, bring)


def carry_for_whoever_is_cut_off(world: World, child: SimNode) -> None:
    """A stick up or down, for a node whose link is down now, if there is one; else for this one."""
    rng, parted = world.clock.rng, world.parted_now()
    node = world.nodes[rng.choice(parted)] if parted else child
    if node.member.parent:
        carry(world, node, world.nodes[node.member.parent], rng.random() < 0.6)


@contextmanager
def _remembered(world: World, node: SimNode) -> Iterator[None]:
    """What a stick acknowledges must be held in the end, as what a session does. Not by or for who restored a backup:
    an old stick may tell of what was there before."""
    writer: Any = node.writer
    real = writer.acknowledged

    def acknowledged(peer_id: int, outcomes: Any, witness: Identity, upto: int) -> None:
        for lsn, _, refused in outcomes:
            place = ailments.place(node, lsn)
            if place is None or refused or node.liar is not None:  # a liar deceives itself (--open 8, seed 1)
                continue
            if not world.restored & {witness.node, place[0].origin}:
                world.acked.add((witness.node, str(place[0]), place[1]))
        real(peer_id, outcomes, witness, upto)

    writer.acknowledged = acknowledged
    try:
        yield
    finally:
        del writer.acknowledged


def _bring(world: World, folder: Path, to: SimNode, back: SimNode | None, by: dict[str, int]) -> None:
    """A stick arrives; with the answer it goes back, sometimes. `by`: who wrote on it, and after how many rollbacks."""
    if not to.up or to.restoring or any(world.rollbacks.get(node, 0) != count for node, count in by.items()):
        return
    try:
        with _remembered(world, to):
            report = to.guarded(partial(bundles.take_in, SimApp(to), [folder]))
    except FednodeError as error:
        if error.code != "FN-3501":  # only the sender's own lie there by now
            world.refusals.append((to.id, to.id, error.code, str(error)))
        return
    if report is None:
        return
    for one in report.bundles:
        told = one.error.code if one.error is not None else ""
        world.note("brought", to.id, one.sender, told, one.segments, one.held, one.acked)
        world.brought += one.held
        if told and told not in (bundles.TOO_LATE, *ailments.OF_DISKS):  # it is to begin earlier, or is brought again
            world.refusals.append((to.id, one.sender, told, str(one.error)))
        for word, code in one.refused:
            world.refusals.append((to.id, one.sender, code, f"stick, by {word}"))
    to.watch_alarms()
    if to.up:
        to.moved()
    if back is not None and world.clock.chance(0.7):
        soon = world.clock.rng.choice(ON_THE_WAY_MS)
        answered_by = {**by, to.id: world.rollbacks.get(to.id, 0)}
        _on_its_way(world, world.clock.rng.randint(*soon), partial(_bring, world, folder, back, None, answered_by))
