"""Every target there is, by name."""

from __future__ import annotations

from fuzz import (
    crypto_targets,
    exchange_target,
    file_targets,
    node_targets,
    peer_targets,
    state_targets,
    sync_targets,
    web_targets,
)
from fuzz.target import Target

TARGETS: tuple[Target, ...] = (
    *crypto_targets.TARGETS,
    *sync_targets.TARGETS,
    *file_targets.TARGETS,
    *node_targets.TARGETS,
    *peer_targets.TARGETS,
    *state_targets.TARGETS,
    *web_targets.TARGETS,
    *exchange_target.TARGETS,
)
