"""All checks of `fednode doctor`, in their order. Numbers and ids stay for good: a check that goes leaves its number
empty, a new one takes the next.

>>> [check.id for check in CHECKS][:4]
['disk', 'memory', 'program', 'home']
"""

from __future__ import annotations

from fednode.node.doctor import dwelling, machine, network
from fednode.node.doctor.finding import Check
from fednode.node.doctor.scene import Scene

CHECKS: tuple[Check[Scene], ...] = (
    Check(1, "disk", 7, machine.disk),
    Check(2, "memory", 7, machine.memory),
    Check(3, "program", 7, machine.program),
    Check(4, "home", 7, dwelling.dwelling),
    Check(5, "settings", 2, dwelling.settings),
    Check(6, "permissions", 7, dwelling.permissions, ("home", "settings")),
    Check(7, "keys", 7, dwelling.keys, ("home", "settings")),
    Check(8, "certificate", 5, dwelling.certificate, ("keys",)),
    Check(9, "store", 6, dwelling.store, ("program", "keys")),
    Check(10, "tables", 7, dwelling.tables, ("store",)),
    Check(11, "standing", 6, dwelling.standing, ("store",)),
    Check(12, "clock", 7, machine.clock),
    Check(13, "daemon", 7, dwelling.daemon, ("home",)),
    Check(14, "ports", 7, network.ports, ("store",)),
    Check(15, "names", 4, network.names, ("store",)),
    Check(16, "parent", 4, network.reach, ("store",)),
    Check(17, "identity", 5, network.identity, ("parent", "certificate")),
    Check(18, "versions", 5, machine.peers_program, ("store",)),
    Check(19, "sync", 4, network.exchanged, ("store",)),
    Check(20, "backlog", 4, network.backlog, ("store",)),
)
