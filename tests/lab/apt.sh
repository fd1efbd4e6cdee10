#!/bin/sh
# Install Debian packages that are missing. Asks apt only then, so that a second run is quick
# and needs neither root nor a network.
set -eu

missing=
for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "cgw-hooks: not a Debian: install what these are called here:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "cgw-hooks: packages are missing; run: sudo apt-get install$missing" >&2
    exit 1
fi
echo "cgw-hooks: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends $missing; } >/tmp/cgw-apt.$$ 2>&1 || {
    cat /tmp/cgw-apt.$$ >&2
    rm -f /tmp/cgw-apt.$$
    exit 1
}
rm -f /tmp/cgw-apt.$$
