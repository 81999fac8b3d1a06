#!/usr/bin/env bash
# Builds the project's image.
#
#   IMAGE=coda-pipeline:0.1.0-python docker/build.sh
#   BASE_IMAGE=...     another slim Python base (docker/debian-base.sh makes one from Debian packages alone)
#   WHEELS=DIR         wheels to prefer over the package index (a CPU build of torch, say)
#   PIP_CERT=FILE      the site's certificate bundle; used while building, never shipped
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' coda/__init__.py)
image=${IMAGE:-coda-pipeline:$version-python}
revision=$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
command -v docker >/dev/null || { echo "Docker is not installed: see docs/docker.md." >&2; exit 2; }
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || { echo "No Docker engine answers: start it, or see docs/docker.md." >&2; exit 2; }

context=docker/context
rm -rf "$context"; mkdir -p "$context/wheels"; touch "$context/wheels/.gitkeep"
trap 'rm -rf "$context/ca.crt" "$context/wheels"; mkdir -p "$context/wheels"; touch "$context/wheels/.gitkeep"' EXIT
[ -n "${PIP_CERT:-}" ] && cp "$PIP_CERT" "$context/ca.crt"
[ -n "${WHEELS:-}" ] && find "$WHEELS" -maxdepth 1 -name 'torch-*.whl' -exec cp {} "$context/wheels/" \;
touch "$context/ca.crt"

# a site's package index is an argument of the build stage, never part of the shipped stage
docker build --file docker/Dockerfile --tag "$image" \
  --build-arg "GIT_REVISION=$revision" ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} .
docker image inspect "$image" --format '{{.RepoTags}} {{.Id}} {{.Size}} bytes, runs as {{.Config.User}}'
