#!/bin/sh
# fednode, for whoever is at the machine: root acts as the service's user, in the service's home (/etc/fednode/install.conf: data=), so that every
# file there is that user's; and may read and write where root may (a stick that the desktop has mounted, a file in somebody's home). Others have
# homes of their own.
if [ "$(id -u)" = 0 ] && [ -z "${FEDNODE_HOME:-}" ] && id fednode >/dev/null 2>&1; then
  data=/var/lib/fednode
  if [ -r /etc/fednode/install.conf ]; then
    while IFS='=' read -r name value; do [ "$name" != data ] || data=$value; done </etc/fednode/install.conf
  fi
  export FEDNODE_HOME="$data/node"
  exec setpriv --reuid=fednode --regid=fednode --init-groups --inh-caps=+dac_override --ambient-caps=+dac_override -- @PROGRAM@ "$@"
fi
exec @PROGRAM@ "$@"
