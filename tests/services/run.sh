#!/usr/bin/env bash
# Tests against real servers: a Ceph S3 gateway, PostgreSQL (MLflow's own server runs on it), Prometheus with
# Pushgateway, Alertmanager and their tools, a Docker engine; and Chromium, in which the pages about drift are opened.
# Installs what is missing from Debian packages when it may, starts everything on loopback below .services/, and stops
# exactly what it started. A part that cannot be had here is named, and its tests say so when they skip.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
work=$PWD/.services
mkdir -p "$work"

packages=()
need() { command -v "$1" >/dev/null || packages+=("${@:2}"); }
need radosgw ceph-mon ceph-osd radosgw ceph-common curl
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need initdb postgresql
need prometheus prometheus
need prometheus-pushgateway prometheus-pushgateway
need promtool prometheus
need prometheus-alertmanager prometheus-alertmanager
need amtool prometheus-alertmanager
need dockerd docker.io iptables
need docker docker.io
need debootstrap debootstrap
need chromium chromium fonts-dejavu-core
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${packages[*]} ..."
    apt-get update -qq
    # no service is to start by itself: everything here listens on loopback and ends with this script
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$work/apt.log" 2>&1 \
      || { tail -20 "$work/apt.log"; exit 1; }
  else
    echo "Not installed and no rights to install: ${packages[*]}; their tests will skip." >&2
  fi
fi

cleanup() {
  [ -d "$work/ceph" ] && bash tests/services/ceph-rgw stop "$work/ceph" || true
  if [ -f "$work/dockerd.pid" ]; then kill "$(cat "$work/dockerd.pid")" 2>/dev/null || true; fi
}
trap cleanup EXIT

if command -v radosgw >/dev/null; then
  port=$("$python" -c 'from coda.local.services import free_port; print(free_port())')
  CEPH_MON_PORT=$("$python" -c 'from coda.local.services import free_port; print(free_port())') \
    bash tests/services/ceph-rgw start "$work/ceph" "$port" >"$work/ceph.txt"
  export CODA_TEST_S3_ENDPOINT="http://127.0.0.1:$port" CODA_TEST_S3_ACCESS_KEY=AK CODA_TEST_S3_SECRET_KEY=SK
fi

if ! docker version >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null; then
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/dockerd.pid" \
    --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
  for _ in $(seq 60); do docker version >/dev/null 2>&1 && break; sleep 0.5; done
fi
if docker version >/dev/null 2>&1; then
  export IMAGE=coda-pipeline:services-python
  # the base comes from Debian packages, so that these tests need no image registry
  export BASE_IMAGE=${BASE_IMAGE:-coda-base:bookworm}
  docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || bash docker/debian-base.sh "$BASE_IMAGE"
  # the site's pip settings, wherever they are kept: the build needs its certificates and may use its wheels
  setting() { "$python" -m pip config list 2>/dev/null | sed -n "s/^\(global\|:env:\)\.$1='\(.*\)'$/\2/p" | tail -1; }
  export PIP_CERT=${PIP_CERT:-$(setting cert)}
  WHEELS=${WHEELS:-${PIP_FIND_LINKS:-$(setting find-links)}} bash docker/build.sh >"$work/image.log" 2>&1 || { tail -30 "$work/image.log"; exit 1; }
  tail -1 "$work/image.log"
  export CODA_TEST_IMAGE=$IMAGE
fi

"$python" -m pytest -q -m services "$@"
