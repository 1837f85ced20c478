#!/bin/sh
# Makes a stand-in for the Dockerfile's base image, for machines that reach Debian's packages but no image registry:
# Debian by debootstrap, and this machine's CPython 3.13 copied to /usr/local. It is tagged with the base's name, so that
# the unchanged Dockerfile builds on it. It needs root, buildah and debootstrap, and replaces no image that is there.
#
#   deploy/tools/stand-in-base.sh [python3.13]
set -eu

python=${1:-python3.13}
name=${BASE:-$(sed -n 's/^ARG BASE=//p' "$(dirname "$0")/../../Dockerfile")}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)}
packages=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,tzdata,zlib1g

export STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
if buildah inspect --type image "$name" >/dev/null 2>&1; then
  echo "$name is there already" >&2
  exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' || {
  echo "$python is not CPython 3.13; say which one is: $0 /path/to/python3.13" >&2
  exit 2
}
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')

work=$(mktemp -d)
container=
trap 'rm -rf "$work"; [ -z "$container" ] || buildah rm "$container" >/dev/null' EXIT

debootstrap --variant=minbase --include="$packages" bookworm "$work/root" "$mirror" >"$work/debootstrap.log" ||
  { tail -20 "$work/debootstrap.log" >&2; exit 1; }
rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/doc "$work"/root/usr/share/man

mkdir -p "$work/root/usr/local/bin" "$work/root/usr/local/lib"
cp -a "$prefix"/lib/libpython3* "$work/root/usr/local/lib/"
cp -a "$prefix/lib/python3.13" "$work/root/usr/local/lib/"
cp -a "$prefix/bin/python3.13" "$work/root/usr/local/bin/"
ln -s python3.13 "$work/root/usr/local/bin/python3"
ln -s python3.13 "$work/root/usr/local/bin/python"
# Whatever else was installed into this interpreter is not part of a base image; pip comes from the interpreter itself.
rm -rf "$work"/root/usr/local/lib/python3.13/site-packages/* "$work"/root/usr/local/lib/python3.13/test \
  "$work"/root/usr/local/lib/python3.13/config-3.13-* "$work"/root/usr/local/lib/python3.13/lib-dynload/_tkinter*
find "$work/root/usr/local" -name __pycache__ -prune -exec rm -rf {} +
chroot "$work/root" ldconfig
chroot "$work/root" python3 -m ensurepip --upgrade >"$work/ensurepip.log" 2>&1 || { cat "$work/ensurepip.log" >&2; exit 1; }
find "$work/root/usr/local" -name __pycache__ -prune -exec rm -rf {} +
chroot "$work/root" python3 -c 'import bz2, ctypes, lzma, readline, sqlite3, ssl, uuid, zlib'

container=$(buildah from scratch)
buildah copy --quiet "$container" "$work/root" / >/dev/null
buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 --cmd python3 "$container"
buildah commit --quiet --format docker "$container" "$name" >/dev/null
echo "made $name of Debian bookworm and $("$python" --version)" >&2
