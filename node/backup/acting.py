"""What operators and the daemon do with backups: one at a time, by the settings or where they say otherwise.

>>> # made = back_up(app)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fednode.node.backup.making import Made, Maker
from fednode.node.backup.places import Place, place_of
from fednode.sync.backup import decode_key
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.app import App


def back_up(app: App, target: str = "", *, anew: bool = False, stop: Callable[[], bool] = lambda: False) -> Made:
    """Back this node up. `target`: where, instead of as the settings say; `stop`: see `Maker`. Raises Refused FN-2740
    (no place), FN-2742 (no recovery key), and what `Maker.run` raises."""
    place = place_named(app, target)
    if not app.config.backup_key:
        raise Refused("FN-2742")
    return Maker(app, place, decode_key(app.config.backup_key), anew=anew, stop=stop).run()


def place_named(app: App, target: str = "") -> Place:
    """The place of this node's backups. Raises Refused FN-2740."""
    return place_of(target or app.config.backup_to, app.config)
