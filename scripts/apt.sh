# Sourced by the scripts beside it: installs Debian packages when that needs no question, else says the command.

apt_install() { # apt_install "PACKAGES" "WHY"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "$2. This system has no apt-get: please install what Debian calls: $1" >&2
        exit 1
    fi
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        printf '%s. Please run:\n\n    sudo apt-get update && sudo apt-get install -y %s\n\n' "$2" "$1" >&2
        exit 1
    fi
    echo "$2; installing: $1"
    # Debian would start each server that it installs. The tests run private ones, so ask it not to; a policy
    # that is there already is left alone.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        policy=
    else
        trap 'test -z "$policy" || $as_root rm -f "$policy"' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $1 >/dev/null
    if [ -n "$policy" ]; then
        $as_root rm -f "$policy"
        policy=
    fi
}
