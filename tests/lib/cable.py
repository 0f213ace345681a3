"""A line between two processes that can be cut and mended while both run.

cable = Cable(port_of_the_parent); child dials cable.port; cable.cut(); cable.mend(); cable.close()
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

PIECE_BYTES = 65_536


class Cable:
    """Passes bytes on to a port of this machine; while it is cut nobody is connected, and nobody gets through."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._whole = True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing passes."""
        with self._lock:
            self._whole = False
            ends, self._open = self._open, set()
        for one in ends:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._whole = True

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    self._join(near, socket.create_connection(("127.0.0.1", self._target)))
                except OSError:
                    near.close()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            if not self._whole:
                near.close()
                far.close()
                return
            self._open |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()
