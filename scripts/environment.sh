#!/bin/sh
# Make .venv hold exactly what requirements/$1.txt locks (dev or bench), and mailwright itself.
#
# Touches neither pip nor the network when nothing changed since the last time: the stamps in .venv name
# the locks it was made from. "bench" is a superset of "dev", so dev is content with it.
set -eu
cd "$(dirname "$0")/.."

want=$1
python=${PYTHON:-python3}
venv=.venv
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV 2>/dev/null || :
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() { printf 'make: %s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*"; }

command -v "$python" >/dev/null 2>&1 ||
    fail "there is no \"$python\" here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "\"$python\" does not run. Name another: make PYTHON=/path/to/python3"
case $version in
    3.1[1-9] | 3.[2-9][0-9]) ;;
    *) fail "mailwright needs Python 3.11 or newer and \"$python\" is $version. Name another: make PYTHON=/path/to/python3.11" ;;
esac

# One at a time: two makes at once would both fill the same .venv.
if command -v flock >/dev/null 2>&1; then
    exec 9<requirements
    flock 9
fi

digest() { # of the files named, of the interpreter and of where we are: scripts in a venv hold its path
    { pwd; printf '%s\n' "$version"; cat "$@"; } | "$python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}
holds() { [ -r "$venv/stamp-$1" ] && [ "$(cat "$venv/stamp-$1")" = "$2" ]; }

lock=$(digest "requirements/$want.txt")
project=$(digest pyproject.toml)
if holds "$want" "$lock" && holds project "$project" && [ -x "$venv/bin/python" ]; then
    exit 0
fi

make_venv() { "$python" -m venv --clear "$venv" >"$1" 2>&1; }
install_venv() { # a bare Debian has Python without venv
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 ||
        fail "\"$python\" cannot make virtual environments; as root run: apt-get install python$version-venv"
    say "Installing python$version-venv ..."
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq install --no-install-recommends -y "python$version-venv" ||
        { apt-get -qq update && apt-get -qq install --no-install-recommends -y "python$version-venv"; }; } \
        >"$1" 2>&1 || { tail -n 3 "$1" >&2; fail "apt-get could not install python$version-venv (see above)"; }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! holds "$want" "$lock" || ! [ -x "$venv/bin/python" ]; then
    say "Making .venv (Python $version) ..."
    make_venv "$log" || { install_venv "$log" && make_venv "$log"; } ||
        { tail -n 3 "$log" >&2; fail "\"$python\" could not make .venv (see above)"; }
    say "Installing what requirements/$want.txt locks ..."
    "$venv/bin/python" -m pip --quiet install --require-hashes -r "requirements/$want.txt" >"$log" 2>&1 ||
        { grep -v '^WARNING' "$log" | tail -n 4 >&2; fail "pip could not install requirements/$want.txt (see above); is the network there?"; }
    ready="$want"
    [ "$want" = dev ] || ready="dev $want"
    for name in $ready; do
        digest "requirements/$name.txt" >"$venv/stamp-$name"
    done
fi

# Without isolation: hatchling is in the lock, so this needs no network.
"$venv/bin/python" -m pip --quiet install --no-index --no-deps --no-build-isolation --editable . >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; fail "mailwright itself could not be installed into .venv (see above)"; }
"$venv/bin/python" -m compileall -q config schema tasks worker
printf '%s\n' "$project" >"$venv/stamp-project"
