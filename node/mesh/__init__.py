"""How the nodes of the mesh are: `bounds` when one is late, `table` what is known (health.db), `own` what this node
says of itself, `watcher` keeps it up to date and passes it on, `view` reads it."""
