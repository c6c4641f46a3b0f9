# Shared by the scripts: to be sourced, after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '== %s\n' "$*" >&2; }
die() { printf '!! %s\n' "$*" >&2; exit 1; }
# A check that does not run must be seen not to run.
skip() { printf '\n!!!! SKIPPED: %s\n\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
}

install() {
    say "installing $*"
    as_root apt-get update -qq </dev/null && DEBIAN_FRONTEND=noninteractive as_root apt-get install -qqy --no-install-recommends "$@" </dev/null >&2 ||
        die "cannot install $*; install them by hand and start again"
}

# The tests speak to a cluster with Python's requests, too.
need_requests() {
    need python3=python3
    python3 -c 'import requests' 2>/dev/null && return
    if [ "$(command -v python3)" = /usr/bin/python3 ]; then
        install python3-requests
        return
    fi
    # Another Python comes first in PATH; Debian's package would not reach it.
    local venv="$root/target/python"
    say "installing requests into $venv"
    python3 -m venv "$venv" && "$venv/bin/pip" install -q requests </dev/null || die "cannot install Python's requests"
    export PATH="$venv/bin:$PATH"
}
