#!/bin/sh
# fednode, for whoever is at the machine: root acts as the service's user, in the service's home. Others have homes of their own.
if [ "$(id -u)" = 0 ] && [ -z "${FEDNODE_HOME:-}" ] && id fednode >/dev/null 2>&1; then
  export FEDNODE_HOME=/var/lib/fednode/node
  PATH=$PATH:/usr/sbin:/sbin
  cd / && exec runuser -u fednode -- @PROGRAM@ "$@"
fi
exec @PROGRAM@ "$@"
