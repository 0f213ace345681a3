#!/bin/sh
# Installs fednode from this folder (a USB stick), or upgrades it. No internet, no Python.
#
#   sudo ./install.sh                     asks three questions
#   sudo ./install.sh --answers FILE      lines "lang = zh", "token = PATH" (or none), "data = /var/lib/fednode"
#
# Rules
# 1. Nothing is changed before every file of the stick has its checksum, and the program has said that it can run here.
# 2. Versions lie side by side in /opt/fednode; `current` names the one that runs. An upgrade that is not ready within READY_S
#    seconds is stepped back to the version before, with the store as it was.
# 3. Everything can be run again: what is there already is left as it is.
# Exit codes: 0 done; 2 how it was called; 3 the stick is damaged or not ours; 4 joined nobody; 5 not root; 7 something on this machine;
# 8 the new version did not come up, and the one before runs again; 9 installed, and `fednode doctor` found something.
set -u
umask 022
STICK=$(cd "$(dirname "$0")" && pwd)
OPT=/opt/fednode
UNIT=/etc/systemd/system/fednode.service
COMMAND=/usr/local/bin/fednode
TRUSTED=/etc/fednode/release.pub
READY_S=${READY_S:-900}
ROOM_KIB=250000
lang='' token='' data='' answers='' incoming='' handed=''

case "${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}" in zh*) lang=zh ;; esac

# ---------------------------------------------------------------- words

t() { if [ "$lang" = en ]; then printf '%s' "$2"; else printf '%s' "$1"; fi; }
say() { printf '%s\n' "$(t "$1" "$2")"; }
paint() { if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then printf '\033[%sm%s\033[0m\n' "$1" "$2"; else printf '%s\n' "$2"; fi; }
step() { paint 1 "== $(t "$1" "$2")"; }
fail() { # code, zh, en, what to do zh, en
  paint '1;31' "$(t "没有完成：$2" "not done: $3")" >&2
  if [ $# -ge 5 ]; then printf '%s\n' "$(t "怎么办：$4" "what to do: $5")" >&2; fi
  exit "$1"
}
tidy() { # what an installation that is cut short leaves, the token above all
  [ -z "$incoming" ] || rm -rf "$incoming"
  [ -z "$handed" ] || rm -rf "$handed"
}
trap tidy EXIT
trap 'exit 130' INT TERM HUP

# ---------------------------------------------------------------- the call

while [ $# -gt 0 ]; do
  case "$1" in
    --answers) [ $# -ge 2 ] || fail 2 "--answers 后面要有文件名" "--answers wants a file"; answers=$2; shift ;;
    --lang) [ $# -ge 2 ] || fail 2 "--lang 后面要有 zh 或 en" "--lang wants zh or en"; lang=$2; shift ;;
    *) fail 2 "不认识的参数 $1" "unknown argument $1" "sudo ./install.sh，或 sudo ./install.sh --answers 文件" \
      "sudo ./install.sh, or sudo ./install.sh --answers FILE" ;;
  esac
  shift
done
[ "$(id -u)" = 0 ] || fail 5 "需要管理员权限" "this needs root" "请输入：sudo ./install.sh" "type: sudo ./install.sh"
for tool in sha256sum tar gzip useradd runuser setpriv readlink df timeout; do
  command -v "$tool" >/dev/null || fail 7 "这台机器没有 $tool 命令" "this machine has no $tool" \
    "安装软件包 coreutils、tar、gzip、passwd、util-linux" "install coreutils, tar, gzip, passwd, util-linux"
done
if [ -n "$answers" ]; then
  [ -r "$answers" ] || fail 2 "读不到 $answers" "cannot read $answers"
  while IFS='=' read -r name value || [ -n "$name" ]; do
    name=$(printf '%s' "$name" | tr -d ' \t\r') value=$(printf '%s' "$value" | sed 's/^[ \t]*//; s/[ \t\r]*$//')
    case "$name" in
      lang) lang=$value ;;
      token) token=$value ;;
      data) data=$value ;;
      '' | '#'*) ;;
      *) fail 2 "$answers 里有不认识的 $name" "$answers: unknown $name" "只有 lang、token、data" "there are lang, token, data" ;;
    esac
  done <"$answers"
  : "${lang:=zh}" "${token:=none}" "${data:=/var/lib/fednode}"
fi

# ---------------------------------------------------------------- the stick

verify() {
  step "检查 U 盘上的文件" "checking the files on the stick"
  cd "$STICK" || exit 7
  [ -r SHA256SUMS ] || fail 3 "缺少 SHA256SUMS" "SHA256SUMS is missing" "请重新制作 U 盘" "make the stick again"
  bad=$(sha256sum --strict -c SHA256SUMS 2>/dev/null | grep -v ': OK$')
  sha256sum --strict --quiet -c SHA256SUMS >/dev/null 2>&1 || fail 3 "文件损坏：${bad:-SHA256SUMS}" "damaged: ${bad:-SHA256SUMS}" \
    "重新复制 U 盘，或换一个 U 盘" "copy the stick again, or take another one"
  for file in "$0" "$STICK"/fednode-*.tar.gz; do # what is run or unpacked must be in the list
    grep -q "  $(basename "$file")\$" SHA256SUMS || fail 3 "SHA256SUMS 里没有 $(basename "$file")" "$(basename "$file") is not in SHA256SUMS" \
      "U 盘上多了或改了文件，请重新制作" "the stick has files that are not its own: make it again"
  done
  key=fednode-release.pub
  [ ! -e "$TRUSTED" ] || key=$TRUSTED
  if [ ! -e SHA256SUMS.sig ]; then
    [ ! -e "$TRUSTED" ] || fail 3 "这个 U 盘没有签名，而已安装的版本有" "this stick is not signed, and what is installed was" \
      "向发放者索取签名的 U 盘；确实要用时先删除 $TRUSTED" "ask for a signed stick; to take this one all the same delete $TRUSTED first"
    say "没有发布签名" "there is no release signature"
  elif command -v openssl >/dev/null; then
    openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig >/dev/null 2>&1 || fail 3 \
      "签名不对" "the signature does not hold" "不要使用这个 U 盘，请联系发放者" "do not use this stick; call whoever gave it out"
    say "签名正确（$key）" "the signature holds ($key)"
  else
    say "这台机器没有 openssl，签名未检查" "this machine has no openssl: the signature was not checked"
  fi
  sum=$(sha256sum <SHA256SUMS | cut -c 1-20 | sed 's/..../& /g')
  say "U 盘编号（与打印页核对）：$sum" "the stick's number (compare it with the printed page): $sum"
}

unpack() {
  step "检查这台机器" "checking this machine"
  set -- "$STICK"/fednode-*.tar.gz
  [ $# = 1 ] && [ -r "$1" ] || fail 3 "U 盘上应当正好有一个程序包" "the stick must have one package" "请重新制作 U 盘" "make the stick again"
  mkdir -p "$OPT" || exit 7
  free=$(df -Pk "$OPT" | awk 'END { print $4 }')
  [ "$free" -ge "$ROOM_KIB" ] || fail 7 "$OPT 所在磁盘只剩 $((free / 1024)) MiB，需要 $((ROOM_KIB / 1024)) MiB" \
    "there are only $((free / 1024)) MiB left at $OPT, and $((ROOM_KIB / 1024)) MiB are needed" "请清理磁盘" "make room on the disk"
  rm -rf "$OPT"/.incoming.*
  incoming=$OPT/.incoming.$$
  mkdir -m 0755 "$incoming" && tar -xzf "$1" -C "$incoming" --strip-components=1 --no-same-owner || fail 7 "解压失败" "could not unpack" \
    "请清理磁盘，或换一个 U 盘" "make room on the disk, or take another stick"
  version=$(cat "$incoming/VERSION") build=$(sha256sum "$1" | cut -c 1-64)
  printf '%s\n' "$build" >"$incoming/BUILD"
  # the program judges the machine itself; the launcher in front of it says when it is too old
  env -i PATH=/usr/bin:/bin LANG=C.UTF-8 "$incoming/fednode" --lang "${lang:-zh}" self-test >"$incoming.out" 2>&1
  code=$?
  judged=$(cat "$incoming.out")
  rm -f "$incoming.out"
  if [ $code != 0 ]; then
    printf '%s\n' "$judged"
    fail 7 "这台机器不能运行 fednode $version" "this machine cannot run fednode $version" "按上面的说明处理，然后再运行一次" "do what is said above, then run this again"
  fi
  target=$OPT/$version
  if [ -e "$target" ] && [ "$(cat "$target/BUILD" 2>/dev/null)" != "$build" ]; then target=$OPT/$version-$(printf '%s' "$build" | cut -c 1-8); fi
  if [ "$(cat "$target/BUILD" 2>/dev/null)" = "$build" ]; then
    rm -rf "$incoming"
  else
    rm -rf "$target"
    mv "$incoming" "$target" || fail 7 "写不进 $OPT" "cannot write to $OPT"
  fi
  incoming=''
  sync
}

# ---------------------------------------------------------------- the machine

point() { # current -> a version, in one step
  ln -sfn "$1" "$OPT/.current.$$" && mv -T "$OPT/.current.$$" "$OPT/current"
}
as_node() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 FEDNODE_HOME="$home" FEDNODE_LANG="$lang" ${SUDO_USER:+SUDO_USER="$SUDO_USER"} runuser -u fednode -- "$@"; }
managed() { command -v systemctl >/dev/null; }
bring_up() { # within so many seconds: started, and it has said that it is ready
  timeout "$1" systemctl restart fednode
}
lines_of_log() {
  if command -v journalctl >/dev/null; then journalctl -u fednode -n 20 --no-pager -o cat 2>/dev/null; fi
}

settle() { # user, folder, unit, command
  step "建立用户、目录和服务" "making the user, the folder, the service"
  id fednode >/dev/null 2>&1 || useradd --system --user-group --home-dir "$data" --no-create-home --shell /usr/sbin/nologin fednode ||
    fail 7 "建不了用户 fednode" "cannot make the user fednode"
  install -d -m 0700 -o fednode -g fednode "$data" || fail 7 "建不了 $data" "cannot make $data"
  mkdir -p /etc/fednode "$(dirname "$UNIT")" "$(dirname "$COMMAND")"
  printf 'lang=%s\ndata=%s\n' "$lang" "$data" >/etc/fednode/install.conf
  [ ! -e "$STICK/SHA256SUMS.sig" ] || [ -e "$TRUSTED" ] || cp "$STICK/fednode-release.pub" "$TRUSTED"
  sed "s#/usr/bin/fednode#$OPT/current/fednode#; s#/var/lib/fednode/node#$home#g" "$STICK/fednode.service" |
    sed "s#FEDNODE_LOG_FORMAT=json#& FEDNODE_LANG=$lang#" >"$UNIT.new"
  if [ "$data" != /var/lib/fednode ]; then
    sed -i "s#^StateDirectory=.*#ReadWritePaths=$data#; /^StateDirectoryMode=/d" "$UNIT.new"
    case "$data" in /home/* | /root/*) sed -i "s#^ProtectHome=yes#ProtectHome=no#" "$UNIT.new" ;; esac
  fi
  mv "$UNIT.new" "$UNIT"
  sed "s#@PROGRAM@#$OPT/current/fednode#" "$STICK/fednode.sh" >"$COMMAND.new"
  chmod 0755 "$COMMAND.new" && mv "$COMMAND.new" "$COMMAND"
  if managed; then systemctl daemon-reload && systemctl enable fednode >/dev/null 2>&1; fi
}

ask() { # prompt zh, en, default
  printf '%s [%s] ' "$(t "$1" "$2")" "$3" >&2
  read -r reply || fail 2 "没有回答" "no answer" "在终端里运行，或用 --answers 文件" "run it in a terminal, or use --answers FILE"
  printf '%s' "${reply:-$3}"
}
lang_stands() {
  case "$lang" in zh | en) ;; *) printf '%s\n' "请输入 zh 或 en / type zh or en" >&2; lang=''; return 1 ;; esac
}
token_stands() { # none, the token itself, or a file that has it; a name alone is a file on the stick
  case "$token" in
    none | fednode1.*) return 0 ;;
    /*) ;;
    *) token=$STICK/${token#./} ;;
  esac
  if [ ! -f "$token" ] || [ ! -r "$token" ]; then say "读不到令牌 $token" "cannot read the token $token" >&2
  elif ! grep -q '^ *fednode1\.' "$token"; then say "$token 里没有令牌（应以 fednode1. 开头）" "there is no token in $token (one begins with fednode1.)" >&2
  else return 0; fi
  token=''
  return 1
}
data_stands() {
  case "$data" in
    /*[!A-Za-z0-9/._-]* | [!/]* | /) say "目录 $data 不能用：写完整路径，只用英文字母、数字和 . _ -" \
      "$data cannot be the folder: a full path of letters, digits and . _ -" >&2; data=''; return 1 ;;
  esac
}
questions() { # each until its answer can be right
  while [ -z "$lang" ]; do
    lang=$(ask "语言 / language: zh, en" "语言 / language: zh, en" zh) || exit
    lang_stands
  done
  while [ -z "$token" ]; do
    found=none
    [ ! -e "$STICK/token" ] || found=$STICK/token
    token=$(ask "令牌：令牌本身、文件名，或 none（以后再加入）" "join token: the token itself, a file, or none (join later)" "$found") || exit
    token_stands
  done
  while [ -z "$data" ]; do
    data=$(ask "数据放在哪个目录" "which folder for the data" /var/lib/fednode) || exit
    data_stands
  done
}

join() {
  step "加入网络" "joining"
  handed=$(mktemp -d /run/fednode-token.XXXXXX) || exit 7
  case "$token" in
    /*) cp "$token" "$handed/token" || exit 7 ;;
    *) printf '%s\n' "$token" >"$handed/token" ;;
  esac
  chmod 0400 "$handed/token" && chmod 0700 "$handed" && chown -R fednode:fednode "$handed"
  as_node "$OPT/current/fednode" join --token-file "$handed/token" || fail 4 "没有加入，原因见上" "it has not joined; why is said above" \
    "处理后再运行一次 sudo ./install.sh；没有网络时用 U 盘加入：fednode join --request（见手册）" \
    "mend it and run sudo ./install.sh again; without a link join by stick: fednode join --request (see the manual)"
  rm -rf "$handed"
  handed=''
}

# ---------------------------------------------------------------- up, and back

step_back() { # the version that ran before
  before=$1
  paint '1;31' "$(t "新版本 $version 没有起来，退回 $(basename "$before")" "the new version $version did not come up: stepping back to $(basename "$before")")"
  lines_of_log
  systemctl stop fednode
  if as_node "$before/fednode" store --help >/dev/null 2>&1; then
    as_node "$before/fednode" store step-back || fail 7 "数据库不能退回，原因见上；数据没有丢失" "the store cannot be stepped back, for the reason above; nothing is lost" \
      "不要删除任何东西，联系县里，并报告上面的文字" "delete nothing; call the county and read out the words above"
  fi
  point "$before"
  bring_up 900 || fail 7 "旧版本也没有起来" "the version before did not come up either" "运行 sudo fednode doctor，并报告它的结果" "run sudo fednode doctor and report what it says"
  rm -rf "$target"
  fail 8 "升级没有成功，$(basename "$before") 仍在运行，数据完好" "the upgrade failed; $(basename "$before") runs again, and nothing is lost" \
    "向发放者报告上面的文字" "report the words above to whoever gave out the stick"
}

green() {
  echo
  paint '1;32' "########################################################"
  paint '1;32' "  $(t "完成：fednode $version 在运行" "done: fednode $version is running")"
  paint '1;32' "########################################################"
  say "  数据：$home    程序：$target" "  data: $home    program: $target"
  say "  查看：sudo fednode status    检查：sudo fednode doctor" "  look: sudo fednode status    check: sudo fednode doctor"
  say "  手册：$STICK/manual" "  manual: $STICK/manual"
}

firewall() { # only who has nodes below is dialled
  if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then rule='sudo ufw allow 7443,7444/tcp'
  elif command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
    rule='sudo firewall-cmd --permanent --add-port=7443-7444/tcp && sudo firewall-cmd --reload'
  else return 0; fi
  say "  防火墙开着。只有当下级节点连接本机时才需要：$rule" "  There is a firewall. Only where nodes below connect to this machine: $rule"
}

examine() {
  as_node "$OPT/current/fednode" doctor
  code=$?
  if [ $code != 0 ]; then
    paint '1;33' "$(t "已安装并运行，但检查发现了上面的问题" "installed and running, and the check found what stands above")"
    say "按上面每一项的命令处理，然后运行：sudo fednode doctor" "do what stands there, then run: sudo fednode doctor"
    firewall
    exit 9
  fi
  green
  firewall
}

if [ -r /etc/fednode/install.conf ]; then
  while IFS='=' read -r name value; do
    case "$name" in lang) : "${lang:=$value}" ;; data) data=$value ;; esac
  done </etc/fednode/install.conf
fi
before=$(readlink "$OPT/current" 2>/dev/null || true)
verify
if [ -z "$before" ]; then questions; fi
: "${lang:=zh}" "${data:=/var/lib/fednode}" "${token:=none}"
home=$data/node
lang_stands && data_stands || fail 2 "答案不对，原因见上" "an answer is wrong; why is said above"
[ -e "$home/chain.pem" ] || token_stands || fail 4 "没有令牌，原因见上" "there is no token; why is said above" "检查文件名" "look at the name"
unpack
if [ -z "$before" ]; then point "$target"; fi
if [ "$before" = "$target" ] && [ -d "$(readlink "$OPT/previous" 2>/dev/null)" ]; then before=$(readlink "$OPT/previous"); fi # an upgrade that was cut short
settle
if [ ! -e "$home/chain.pem" ] && [ "$token" != none ]; then join; fi
if ! managed; then
  point "$target"
  say "这台机器没有 systemd。手动启动：runuser -u fednode -- $OPT/current/fednode --home $home run" \
    "this machine has no systemd. Start it by hand: runuser -u fednode -- $OPT/current/fednode --home $home run"
  exit 0
fi
if [ ! -e "$home/chain.pem" ]; then
  point "$target"
  paint '1;32' "$(t "已安装 fednode $version，尚未加入网络" "fednode $version is installed, and has not joined yet")"
  say "下一步：再运行 sudo ./install.sh --answers 文件（写明 token），或 sudo fednode join 令牌，然后 sudo systemctl start fednode" \
    "next: sudo fednode join TOKEN, then sudo systemctl start fednode"
  exit 0
fi
step "启动" "starting"
if [ -n "$before" ] && [ "$before" != "$target" ]; then
  ln -sfn "$before" "$OPT/previous"
  systemctl stop fednode
  point "$target"
  bring_up "$READY_S" || step_back "$before"
  for old in "$OPT"/[0-9]*; do # this one and the one before stay
    case "$old" in "$target" | "$before") ;; *) rm -rf "$old" ;; esac
  done
else
  bring_up "$READY_S" || { lines_of_log; fail 7 "服务没有起来" "the service did not come up" "运行 sudo fednode doctor，按它说的做" "run sudo fednode doctor and do what it says"; }
fi
examine
exit 0
