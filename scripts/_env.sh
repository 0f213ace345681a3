# Sourced by the other scripts: goes to the checkout's root, makes .venv ready, and sets PYTHON to its interpreter.
#
# Works on a clean checkout of a machine that has only Python (>= 3.11) with venv, and an index for pip. Installs again only when
# setup.cfg, constraints.txt or pyproject.toml have changed since (a stamp in .venv), under a lock, so that two runs do not collide.
# FEDNODE_PYTHON names the interpreter to begin with; pip's own settings (PIP_INDEX_URL, PIP_NO_INDEX, PIP_FIND_LINKS) apply.

_die() {
  printf '%s\n' "$@" >&2
  exit 1
}

_find_python() {
  local candidate
  for candidate in ${FEDNODE_PYTHON:+"$FEDNODE_PYTHON"} python3.11 python3.12 python3.13 python3.14 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  _die "fednode needs Python 3.11 or newer, and found none on the PATH." \
    "Install it (Debian 12, Ubuntu 24.04: apt install python3 python3-venv; openEuler, Anolis: dnf install python3.11)" \
    "or name one: FEDNODE_PYTHON=/path/to/python3.11 $0"
}

_stamp() {
  cat setup.cfg constraints.txt pyproject.toml | cksum
  printf '%s\n' "$PWD" # a venv does not survive a move
}

_install() {
  local python
  if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(_find_python) || exit 1
    "$python" -c 'import venv, ensurepip' 2>/dev/null || _die "$python has no venv module." \
      "Debian and Ubuntu pack it apart: apt install python3-venv"
    echo "fednode: making .venv with $("$python" --version)" >&2
    "$python" -m venv --clear .venv >&2 || _die "could not make .venv"
  fi
  echo "fednode: installing the pinned dependencies (first run, or they changed)" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' >&2 || _die \
    "pip could not install the dependencies (its message is above)." \
    "Behind a proxy or a mirror set PIP_INDEX_URL; with no network set PIP_NO_INDEX=1 and PIP_FIND_LINKS=/folder/of/wheels."
  _stamp >.venv/fednode.stamp
}

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON=$PWD/.venv/bin/python

if [[ "$(cat .venv/fednode.stamp 2>/dev/null)" != "$(_stamp)" ]]; then
  # `|| exit`: a sourcing script with `set -e` off must not go on with half an environment.
  if command -v flock >/dev/null; then
    (
      flock 9
      # Another run may have done it while we waited.
      [[ "$(cat .venv/fednode.stamp 2>/dev/null)" == "$(_stamp)" ]] || _install
    ) 9>.venv.lock || exit 1
  else
    (_install) || exit 1
  fi
fi
export PYTHON
# Images for containers often say that Python is to keep no bytecode. Here the program is started a thousand times: it would be compiled as often.
unset PYTHONDONTWRITEBYTECODE
