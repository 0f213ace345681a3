#!/bin/sh
# One node in a container. What it is comes from the environment, and matters at the first start alone:
#   NODE_ID, NODE_NAME    found a domain with this node on top of it (the demonstration's province), and publish the shipped catalog
#   TOKEN                 a file: wait for it, and join with it
#   (none of them)        wait until somebody has joined: kubectl exec, fednode init or fednode join
#   CHILD, CHILD_LEVEL, CHILD_NAME, TOKENS   for the demonstration: invite this child into the folder TOKENS
# All of fednode's own settings are FEDNODE_... (docs/cli.md).
set -eu
joined() { [ -e "$FEDNODE_HOME/chain.pem" ]; }
if ! joined; then
  if [ -n "${NODE_ID:-}" ]; then
    fednode init --id "$NODE_ID" --name "$NODE_NAME"
    fednode catalog publish --shipped
  elif [ -n "${TOKEN:-}" ]; then
    echo "waiting for $TOKEN" >&2
    until [ -s "$TOKEN" ]; do sleep 1; done
    until fednode join --token-file "$TOKEN" || joined; do sleep 5; done # the parent may be on its way up
  else
    echo "nobody has joined here yet: fednode init, or fednode join" >&2
    until joined; do sleep 5; done
  fi
fi
if [ -n "${CHILD:-}" ] && [ ! -e "$TOKENS/$CHILD" ]; then
  fednode invite "$CHILD" --level "$CHILD_LEVEL" --name "$CHILD_NAME" --token-file "$TOKENS/$CHILD"
fi
exec fednode run
