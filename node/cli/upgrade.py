"""store step-back: the way back from an upgrade that failed."""

from __future__ import annotations

import rich_click as click

from fednode.node.cli.frame import Group, Session, command, option
from fednode.node.home import Home


@click.group(cls=Group, help="help.store")
def store() -> None:
    """The store's upgrades."""


@command("help.store.step_back", "store.step_back")
@option("--dry-run", is_flag=True, words="option.dry_run")
def step_back(session: Session, dry_run: bool) -> None:
    """Put the store back to what this program can read."""
    from fednode.node import upgrading

    back = upgrading.step_back(Home.load(session.home), dry_run=dry_run)
    shown = ", ".join((*back.migrations, *back.made_again))
    if not dry_run:
        session.app().journal().note("store.step_back", migrations=list(back.migrations))
    key = "step_back.nothing" if not shown else "step_back.dry_run" if dry_run else "step_back.done"
    data = {"migrations": list(back.migrations), "made_again": list(back.made_again), "dry_run": dry_run}
    session.done(data, [session.words(key, migrations=shown)])


store.add_command(step_back, "step-back")
