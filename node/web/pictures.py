"""One picture of all nodes for all who look, kept while the console runs.

Rules
1. Whoever asks gets it as of now; but health.db is looked at `LOOK_MS` after the last time at the earliest, however
   many ask. Who got an older one because of that, while something has changed, is told to ask again (`next_ms`).
2. One at a time: what is handed out is read under the lock.

>>> # with picture_of(site) as picture: picture.states()
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fednode.node.mesh.picture import Picture
from fednode.node.mesh.watcher import bounds_of

if TYPE_CHECKING:
    from fednode.node.web.site import Site

LOOK_MS = 300


class _Kept:
    def __init__(self, site: Site) -> None:
        app = site.app
        self.lock = threading.Lock()
        self.picture = Picture(app.home.health_db, app.trust.node, bounds_of(app))
        self.looked_ms = -LOOK_MS

    def close(self) -> None:
        with self.lock:
            self.picture.close()


def warm(site: Site) -> None:
    """Make the picture before anybody asks: of 56,712 nodes it takes a third of a second. Raises StoreError."""
    with picture_of(site):
        pass


_KEPT: WeakKeyDictionary[Site, _Kept] = WeakKeyDictionary()
_MAKING = threading.Lock()


@contextlib.contextmanager
def picture_of(site: Site) -> Iterator[Picture]:
    """The picture, up to date, for as long as the block lasts. Raises StoreError."""
    with _MAKING:
        kept = _KEPT.get(site)
        if kept is None:
            kept = _KEPT[site] = _Kept(site)
            site.ends.append(kept.close)
    with kept.lock:
        now_ms = site.app.now_ms()
        if 0 <= now_ms - kept.looked_ms < LOOK_MS:  # a clock may go back
            kept.picture.waiting = kept.picture.moved()
        else:
            kept.picture.look(now_ms)
            kept.looked_ms = now_ms
        yield kept.picture
