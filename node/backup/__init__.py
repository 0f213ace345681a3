"""Backups of a node's store: where they lie, how they are made, verified, and put back. The bytes are
`fednode.sync.backup`'s."""
