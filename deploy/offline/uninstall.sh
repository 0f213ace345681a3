#!/bin/sh
# Takes fednode off this machine. The data stay: keys and records are in the folder that is named at the end.
#   sudo ./uninstall.sh [--delete-data]     --delete-data asks for the node's number, and deletes them for good
set -u
OPT=/opt/fednode UNIT=/etc/systemd/system/fednode.service COMMAND=/usr/local/bin/fednode CONF=/etc/fednode/install.conf
lang=zh data=/var/lib/fednode
[ "$(id -u)" = 0 ] || { echo "需要管理员权限：sudo ./uninstall.sh / this needs root: sudo ./uninstall.sh" >&2; exit 5; }
if [ -r "$CONF" ]; then
  while IFS='=' read -r name value; do
    case "$name" in lang) lang=$value ;; data) data=$value ;; esac
  done <"$CONF"
fi
say() { if [ "$lang" = en ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi; }
delete=no
case "${1:-}" in
  --delete-data) delete=yes ;;
  '') ;;
  *) say "用法：sudo ./uninstall.sh [--delete-data]" "usage: sudo ./uninstall.sh [--delete-data]" >&2; exit 2 ;;
esac
if [ $delete = yes ] && [ -e "$data/node/chain.pem" ]; then # asked while the program can still say who this is
  node=$(FEDNODE_HOME="$data/node" "$OPT/current/fednode" status --json 2>/dev/null | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
  say "将永久删除节点 ${node:-?} 的密钥和记录。请输入节点编号（${node:-delete}）确认：" \
    "This deletes the keys and records of node ${node:-?} for good. Type ${node:-delete} to confirm:"
  read -r given || given=
  [ "$given" = "${node:-delete}" ] || { say "没有删除任何东西" "nothing was deleted"; exit 2; }
fi
if command -v systemctl >/dev/null; then systemctl disable --now fednode >/dev/null 2>&1; fi
rm -f "$UNIT" "$COMMAND" "$CONF"
rm -rf "$OPT"
if command -v systemctl >/dev/null; then systemctl daemon-reload; fi
if [ $delete = yes ]; then
  rm -rf "$data/node" "$data/.cache/fednode"
  userdel fednode >/dev/null 2>&1
  say "fednode 已卸载，数据已删除" "fednode is gone, and so are the data"
else
  say "fednode 已卸载。数据保留在 $data（密钥和记录）；再次安装会接着使用" \
    "fednode is gone. The data stay in $data (keys, records); an installation goes on with them"
fi
