# Whether this machine can run the program: without this a machine that is too old would only say "version `GLIBC_@GLIBC@' not found".
CANNOT=78
refuse() { # code, zh, en
  printf 'fednode: %s\n         %s\n' "$2" "$3" >&2
  exit "$1"
}

machine=$(uname -m)
[ "$machine" = @MACHINE@ ] || refuse $CANNOT "本程序只能在 @MACHINE@ 上运行，这台机器是 $machine。请索取适合它的安装包。" \
  "this program is for @MACHINE@ and this machine is $machine. Ask for the package that fits it."
[ -e @LOADER@ ] || refuse $CANNOT "这台机器没有 GNU C 库（@LOADER@），可能是 Alpine。请使用 Debian、Ubuntu、openEuler 等系统。" \
  "this machine has no GNU C library (@LOADER@); is it Alpine? Use Debian, Ubuntu, openEuler or the like."
have=$(getconf GNU_LIBC_VERSION 2>/dev/null) || have=$(ldd --version 2>/dev/null | head -n 1)
have=${have##* }
major=${have%%.*} minor=${have#*.} minor=${minor%%[!0-9]*}
case "$major.$minor" in
  *[!0-9.]* | .* | *.) ;; # nobody says which: let the loader judge
  *)
    [ "$major" -gt @GLIBC_MAJOR@ ] || { [ "$major" -eq @GLIBC_MAJOR@ ] && [ "$minor" -ge @GLIBC_MINOR@ ]; } || refuse $CANNOT \
      "系统太旧：GNU C 库是 $have，本程序需要 @GLIBC@ 或更新。请先升级操作系统（例如 Debian 12、Ubuntu 22.04）。" \
      "the system is too old: its GNU C library is $have, and this program needs @GLIBC@ or newer. Upgrade the operating system first (Debian 12, Ubuntu 22.04)."
    ;;
esac
for library in libstdc++.so.6 libgcc_s.so.1; do
  for folder in /usr/lib/@MACHINE@-linux-gnu /lib/@MACHINE@-linux-gnu /usr/lib64 /lib64 /usr/lib /lib; do
    [ ! -e "$folder/$library" ] || continue 2
  done
  refuse $CANNOT "缺少系统库 $library。Debian、Ubuntu：apt install libstdc++6；openEuler：dnf install libstdc++。" \
    "the system library $library is missing. Debian, Ubuntu: apt install libstdc++6; openEuler: dnf install libstdc++."
done
