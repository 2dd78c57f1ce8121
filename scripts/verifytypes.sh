#!/bin/sh
# Asks pyright whether the public interface is completely typed. Pyright brings its own Node.js along, which not
# every machine may download, so its absence is said and not held against anybody: mypy has run before.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
if command -v pyright >/dev/null 2>&1; then
    pyright --verifytypes celeriac --ignoreexternal
else
    echo "pyright is not installed: verifytypes left out (.venv/bin/pip install pyright)"
fi
