#!/bin/sh
# Sees to it that the programs of the servers which the tests run privately are installed; starts nothing.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

PATH=$PATH:/usr/sbin:/usr/local/sbin
missing=
for server in redis-server rabbitmq-server memcached; do
    command -v "$server" >/dev/null 2>&1 || missing="$missing $server"
done
if ! command -v initdb >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    missing="$missing postgresql"
fi
ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 ||
    missing="$missing libfaketime"
if [ -n "$missing" ]; then
    apt_install "${missing# }" "The tests need servers that are not installed"
fi
