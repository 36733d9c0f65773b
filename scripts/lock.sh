#!/bin/sh
# Resolve pyproject.toml into requirements/*.txt: hashes for every file, no index address, any platform.
# What is locked stays unless it has to change; to take the newest: make lock UPGRADE=--upgrade
set -eu
cd "$(dirname "$0")/.."

compile() {
    output=requirements/$1.txt
    shift
    # shellcheck disable=SC2086
    .venv/bin/uv --quiet pip compile --universal --python-version 3.11 --generate-hashes --no-header \
        --no-annotate --output-file "$output" ${UPGRADE:-} "$@" >/dev/null
    echo "$output"
}

compile runtime pyproject.toml --extra dashboard
compile dev pyproject.toml --extra embedded --extra dev
compile bench pyproject.toml --extra embedded --extra dev --extra bench
printf 'uv\n' | compile bootstrap - --constraint requirements/dev.txt
