#!/bin/sh
# fednode @VERSION@ in one file: these lines, and the archive behind them. It unpacks itself once, into a private folder, and is started
# from there from then on: in the same process, so that whoever started it (systemd) hears from the one that was started.
#
# Where: FEDNODE_UNPACK_DIR/fednode, else for root /var/cache/fednode, else XDG_CACHE_HOME/fednode, else ~/.cache/fednode. Never /tmp unasked.
# Rules
# 1. The folder is its user's alone (owner, 0700, no link), or nothing is run out of it.
# 2. What is unpacked gets its place, in one step, once every file in it has the digest that this file names. Half of it is never run.
# 3. A start looks whether the files are as they were then: names, sizes, owners, inodes, times of change; the digest of that is the seal.
#    Where they are not, all are read anew; what is not whole is not run, and unpacked again.
# Exit codes: 3 this file is damaged; 7 the folder cannot be had, or used; 78 this machine cannot run the program.

@CHECKS@
ARCHIVE=@ARCHIVE@ # its digest
OFFSET=@OFFSET@ # where it begins in this file
DIGEST=@DIGEST@ # of SHA256SUMS in it, which has the digest of every other file in it
COUNT=@COUNT@ # of these
ROOM_KIB=@ROOM_KIB@
self=$(readlink -f "$0")
uid=$(id -u)
OTHER="其他位置：FEDNODE_UNPACK_DIR=/目录" OTHERS="Another place: FEDNODE_UNPACK_DIR=/folder"

if [ -n "${FEDNODE_UNPACK_DIR:-}" ]; then around=$FEDNODE_UNPACK_DIR/fednode
elif [ "$uid" = 0 ]; then around=/var/cache/fednode
elif [ -n "${XDG_CACHE_HOME:-}" ]; then around=$XDG_CACHE_HOME/fednode
else
  home=${HOME:-$(getent passwd "$uid" | cut -d : -f 6)}
  around=${home:+$home/.cache/fednode}
fi
case "$around" in
  /*) ;;
  *) refuse 7 "不知道解包到哪里（“$around”不是完整路径）。$OTHER" "no folder to unpack into (\"$around\" is no full path). $OTHERS" ;;
esac
target=$around/$DIGEST

is_private() { # rule 1
  case "$(stat -c %u:%f "$1" 2>/dev/null)" in "$uid:41c0" | "$uid:45c0") ;; *) return 1 ;; esac
}
is_whole() { # rule 2
  [ -d "$1" ] && (
    cd "$1" && [ "$(sha256sum <SHA256SUMS | cut -c 1-64)" = $DIGEST ] && sha256sum --strict --quiet -c SHA256SUMS &&
      [ "$(find . ! -type d ! -path ./SHA256SUMS | wc -l)" = $COUNT ]
  ) >/dev/null 2>&1
}
as_it_is() { # rule 3; where ls cannot tell there is no seal, and every start reads every file
  facts=$(LC_ALL=C ls -AilnR --time=ctime --time-style=full-iso "$target" 2>/dev/null) || return
  printf '%s\n' "$facts" | grep -v '^total ' | sha256sum
}
is_sealed() { [ -e "$around/seal-$DIGEST" ] && now=$(as_it_is) && [ "$now" = "$(cat "$around/seal-$DIGEST")" ]; }
archive() { tail -c "+$((OFFSET + 1))" "$self"; }

unpack() {
  free=$(df -Pk "$around" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
  [ "$free" -ge $ROOM_KIB ] || refuse 7 "$around 所在磁盘只剩 $((free / 1024)) MiB，需要 $((ROOM_KIB / 1024)) MiB。请清理磁盘。$OTHER" \
    "there are only $((free / 1024)) MiB left at $around, and $((ROOM_KIB / 1024)) MiB are needed: make room. $OTHERS"
  [ ! -t 2 ] || printf 'fednode: %s\n' "第一次启动，正在解包 / unpacking, this once" >&2
  trap 'rm -rf "$around"/.incoming.*' EXIT
  trap 'exit 130' INT TERM HUP
  [ "$(archive | sha256sum | cut -c 1-64)" = $ARCHIVE ] || refuse 3 "$self 已损坏。请重新复制，并用 SHA256SUMS 核对。" \
    "$self is damaged: copy it again, and check it against SHA256SUMS."
  rm -rf "$around"/.incoming.*
  incoming=$(mktemp -d "$around/.incoming.XXXXXX") || exit 7
  archive | gzip -dc 2>/dev/null | tar -xf - -C "$incoming" --strip-components=1 --no-same-owner --no-same-permissions 2>/dev/null
  is_whole "$incoming" || refuse 7 "解包到 $around 没有成功：磁盘满了或坏了。$OTHER" \
    "unpacking into $around failed: the disk is full, or bad. $OTHERS"
  sync -f "$incoming" 2>/dev/null || sync
  rm -rf "$target"
  mv -T "$incoming" "$target" || exit 7
  # This one and the one before stay; older ones go, but what some process runs
  running=$(ls -l /proc/[0-9]*/exe 2>/dev/null)
  ls -t "$around" | grep -E '^[0-9a-f]{64}$' | tail -n +3 | while read -r old; do
    case "$running" in *"/$old/"*) ;; *) rm -rf "${around:?}/$old" "$around/seal-$old" ;; esac
  done
}

prepare() ( # one at a time
  umask 077
  exec 9>"$around/lock"
  if command -v flock >/dev/null; then flock 9; fi
  ! is_sealed || exit 0
  is_whole "$target" || unpack
  if as_it_is >"$around/seal.$$"; then mv "$around/seal.$$" "$around/seal-$DIGEST"; else rm -f "$around/seal.$$" "$around/seal-$DIGEST"; fi
)

if ! is_private "$around" || ! is_sealed; then
  for tool in cut df find getent grep gzip id ls mktemp mv readlink sha256sum stat sync tail tar tr wc; do
    command -v "$tool" >/dev/null || refuse 7 "这台机器没有 $tool 命令。" "this machine has no $tool."
  done
  mkdir -p "$(dirname "$around")" 2>/dev/null && mkdir -m 0700 "$around" 2>/dev/null
  [ -d "$around" ] || refuse 7 "建不了 $around（只读、已满或无权限）。$OTHER" "cannot make $around (read-only, full, or not permitted). $OTHERS"
  is_private "$around" || refuse 7 "$around 不是您一个人的（所有者和权限 $(stat -c '%U %a' "$around")，应为 0700）。$OTHER" \
    "$around is not yours alone (owner and mode are $(stat -c '%U %a' "$around"), and should be yours and 700). $OTHERS"
  if touch "$around/lock" 2>/dev/null; then
    prepare || exit
  else # read-only: good enough where it has been unpacked already
    is_whole "$target" || refuse 7 "写不进 $around（只读、已满或无权限）。$OTHER" "cannot write to $around (read-only, full, or not permitted). $OTHERS"
  fi
fi
[ -x "$target/fednode.bin" ] || refuse 7 "$around 所在磁盘不允许运行程序（noexec）。$OTHER" \
  "the disk of $around does not permit to run programs (noexec). $OTHERS"
exec "$target/fednode.bin" "$@"
exit
