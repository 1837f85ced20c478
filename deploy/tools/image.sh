#!/bin/sh
# Builds the image with docker, podman or buildah, whichever is there (or BUILDER), as IMAGE:TAG.
#
#   PIP_CONF=FILE    a pip configuration for the build, such as one with a private index; it gets into no layer
#   CA_BUNDLE=FILE   certificates to trust during the build; pip's configuration finds them at /run/secrets/ca-bundle
#   BUILD_OPTIONS    more words for the builder, such as '--platform linux/arm64'
set -eu
cd "$(dirname "$0")/../.."

image=${IMAGE:-poller}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
tag=${TAG:-$version}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
created=$(git log -1 --format=%cI 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)

usable() {
  case $1 in
    docker | podman) command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}
builder=${BUILDER:-}
for each in docker podman buildah; do
  [ -n "$builder" ] || ! usable "$each" || builder=$each
done
[ -n "$builder" ] || { echo "no image builder: install docker, podman or buildah, or say BUILDER=" >&2; exit 2; }

case $builder in
  buildah) set -- bud --format docker ;;
  *) set -- build ;;
esac
[ -z "${PIP_CONF:-}" ] || set -- "$@" --secret "id=pip-conf,src=$PIP_CONF"
[ -z "${CA_BUNDLE:-}" ] || set -- "$@" --secret "id=ca-bundle,src=$CA_BUNDLE"
[ -z "${BASE:-}" ] || set -- "$@" --build-arg "BASE=$BASE"

# shellcheck disable=SC2086 # BUILD_OPTIONS are words
"$builder" "$@" ${BUILD_OPTIONS:-} \
  --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
  --tag "$image:$tag" .
echo "built $image:$tag with $builder" >&2
