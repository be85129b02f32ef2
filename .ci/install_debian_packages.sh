#!/usr/bin/env bash
# Install the Debian packages named in a file, where this machine lets us; otherwise say what is missing.
set -euo pipefail

mapfile -t packages < <(grep -vE '^\s*(#|$)' "$1")
missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
        [ "$status" = "install ok installed" ] || missing+=("$package")
    done
else
    missing=("${packages[@]}")
fi
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    exit 0
fi

echo "Not installed, since this user may not: ${missing[*]}" >&2
echo "What needs them is skipped. To get them: sudo apt-get install ${missing[*]}" >&2
if [ "${CI:-}" = "true" ]; then
    echo "Under CI nothing may be skipped: failing." >&2
    exit 1
fi
