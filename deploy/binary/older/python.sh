#!/bin/sh
# In the older root: OpenSSL and Python out of their sources, into /opt/python (scripts/_older_root.py has put them beside this file).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/openssl"
./Configure linux-x86_64 shared no-tests --prefix=/opt/python --libdir=lib --openssldir=/etc/ssl
make -j2 build_sw
make install_sw
cd "$here/python3.11"
# Debian builds pyexpat into the interpreter, and one of its patches counts on that
sed -i '1i #define Py_BUILD_CORE_MODULE 1' Modules/pyexpat.c
# sem_clockwait is of glibc 2.30; Python has another way
CFLAGS="-include $here/glibc_2_28.h" LDFLAGS=-Wl,-rpath,/opt/python/lib ac_cv_func_sem_clockwait=no \
  ./configure --prefix=/opt/python --enable-shared --with-openssl=/opt/python --with-openssl-rpath=auto --without-ensurepip
make -j2
make install
/opt/python/bin/python3.11 -c 'import bz2, ctypes, lzma, multiprocessing.synchronize, pyexpat, sqlite3, ssl, uuid, zlib' ||
  { echo "a module that the program needs was not built; the words above say why"; exit 1; }
