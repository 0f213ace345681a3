"""fednode: one federated data-sharing node, the same program at every level from province to village.

The four rooms are top-level folders of the repository, joined here by relative symlinks so that every tool agrees on
their names: `fednode.proto` (the wire contract), `fednode.crypto` (what is proved and what is hidden), `fednode.sync`
(what moves), `fednode.node` (what runs). Imports run one way: node -> sync -> crypto. Always import `fednode.x`, never
the bare names.

>>> __version__
'0.2.0'
"""

__version__ = "0.2.0"
