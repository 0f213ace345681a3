#!/bin/sh
# fednode @VERSION@: looks whether this machine can run the program, then runs it. Exit code 78: this machine cannot.
here=$(dirname "$(readlink -f "$0")")

@CHECKS@
exec "$here/fednode.bin" "$@"
