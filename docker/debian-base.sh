#!/usr/bin/env bash
# Makes a slim Python 3.11 base image from Debian packages alone, for sites that reach no image registry.
#
#   docker/debian-base.sh [IMAGE]      default coda-base:bookworm
set -euo pipefail
image=${1:-coda-base:bookworm}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
command -v debootstrap >/dev/null || { echo "debootstrap is needed: apt-get install debootstrap" >&2; exit 2; }
mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) bookworm .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -1 || true)
[ -n "$mirror" ] || mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '{print $1; exit}' || true)
debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates,git bookworm "$work/root" ${mirror:+"$mirror"} >"$work/log" 2>&1 \
  || { tail -20 "$work/log" >&2; exit 1; }
rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists"
tar -C "$work/root" -c . | docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null
docker image inspect "$image" --format '{{.RepoTags}} {{.Size}} bytes'
