"""A standby in a mesh: made, filled, compared with its primary.

standby = await standby_of(mesh, county); write_some(county, 3, 1); await mesh.until(lambda: held_by(standby, county))
"""

from __future__ import annotations

from fednode.node import erasures, succession
from fednode.node.app import App
from fednode.sync.enrol import Token
from mesh import Mesh, Running, configuration
from sample_data import records

DATASET = "admin-licence"


async def standby_of(mesh: Mesh, primary: Running, **more: object) -> Running:
    """Invite, join, run."""
    token = Token.decode(primary.app.invite_standby())
    app = await App.join(mesh.folder / token.node, configuration(**more), token, clock=mesh.clock)
    return await mesh.start(app)


def write_some(node: Running, count: int, seed: int, area: str = "") -> None:
    """Valid licences."""
    for number, record in enumerate(records(DATASET, count, seed=seed)):
        node.write(f"{node.app.trust.node}|{seed}|{number}", dict(record), area=area)


def logs(node: Running) -> dict[str, tuple[int, bytes]]:
    """Name -> (size, root) of everything that is not the standby's own."""
    store = node.app.store
    return {
        str(name): (size, store.log_state(name).root)
        for _, name, size in store.logs()
        if name.origin != node.app.trust.node or not node.app.trust.me.stands_for
    }


def held_by(standby: Running, primary: Running) -> bool:
    """Whether a standby holds all that its primary does."""
    there, here = logs(primary), logs(standby)
    return all(here.get(name) == held for name, held in there.items() if f"/{standby.app.trust.node}/" not in name)


async def county_with_villages(mesh: Mesh) -> tuple[Running, Running, Running]:
    """A city, its county, and a township of that."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county")
    township = await mesh.child(county, "130102001", "township")
    await mesh.until(lambda: township.app.trust.catalog_version == 1)
    return city, county, township


async def with_standby(mesh: Mesh) -> tuple[Running, Running, Running, Running]:
    """A city, its county, a township below, and the county's standby, which the city lets succeed; all have met."""
    city, county, township = await county_with_villages(mesh)
    standby = await standby_of(mesh, county)
    await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
    await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("130102")))
    succession.allow(city.app, "130102-s1")
    await mesh.until(lambda: standby.app.trust.directory.is_heir(standby.app.trust.me))
    await mesh.until(lambda: standby.app.config.listen in township.app.parent_addresses())
    return city, county, township, standby


async def promote(mesh: Mesh, standby: Running) -> Running:
    """`fednode promote` on a standby, its daemon stopped, then its daemon again, as its primary."""
    await mesh.halt(standby)
    chain, addresses = await succession.ask(standby.app)
    succession.take(standby.app, chain, addresses)
    standby.app.close()
    standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
    await mesh.run(standby)
    return standby


def waiting(node: Running) -> list[str]:
    """Who has not confirmed the one erase of a node."""
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        (found,) = erasures.own_erasures(projector.store, node.app.trust, erasures.receipts(projector))
        return [one.node for one in found.waiting]
    finally:
        projector.close()
        projector.store.close()
