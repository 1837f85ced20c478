#!/bin/sh
# Builds Kubernetes from Debian 12's own source package into FOLDER/bin, for machines that reach Debian's packages but no
# download of Kubernetes: API server, controller manager, scheduler, kubelet and kubectl. What is built already stays.
#
#   deploy/cluster/build.sh FOLDER
#
#   GO=DIR             the Go tool chain (/usr/lib/go-1.19); newer ones do not compile this source
#   DEBIAN_MIRROR=URL  where source packages are (else: the first archive that apt is set up for)
set -eu
folder=${1:?a folder to build in}
go=${GO:-/usr/lib/go-1.19}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)}
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

missing() {
  for program in $programs; do
    [ -x "$folder/bin/$program" ] || return 0
  done
  [ ! -x "$folder/bin/pause" ]
}
missing || { echo "Kubernetes is built already: $folder/bin" >&2; exit 0; }
for needed in "$go/bin/go" /usr/bin/dpkg-source "$keyring"; do
  [ -e "$needed" ] || { echo "$needed is missing: apt-get install --no-install-recommends golang-1.19-go dpkg-dev debian-archive-keyring" >&2; exit 2; }
done

mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/source" "$folder/bin"
folder=$(cd "$folder" && pwd)

# A list of its own: the machine's sources stay as they are.
echo "deb-src [signed-by=$keyring] $mirror bookworm main" >"$folder/apt/sources.list"
private_apt() {
  apt-get --quiet -o "Dir::Etc::SourceList=$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$folder/apt/lists" \
    -o "Dir::Cache=$folder/apt" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@"
}
if [ ! -e "$folder/source/ready" ]; then
  private_apt update
  (cd "$folder/source" && private_apt source kubernetes)
  touch "$folder/source/ready"
fi
# This source is older than what Go's modules ask of it today: it is built as a package below GOPATH, as Debian does.
inside=$folder/path/src/k8s.io/kubernetes
if [ ! -d "$inside" ]; then
  mkdir -p "$(dirname "$inside")"
  mv "$(find "$folder/source" -mindepth 1 -maxdepth 1 -type d -name 'kubernetes-*')" "$inside"
fi
cd "$inside"

# One package at a time and at the lowest priority: whoever shares the machine's cores should not notice.
export GOROOT="$go" GOCACHE="$folder/go" GOPATH="$folder/path" GOFLAGS="-p=${JOBS:-1}" GO111MODULE=off CGO_ENABLED=0
project=k8s.io/kubernetes
build() { nice -n 19 "$go/bin/go" build "$@"; }

# The only generated code that the source does not carry: what the API server tells of its types.
generated=pkg/generated/openapi/zz_generated.openapi.go
if [ ! -s "$generated" ]; then
  build -o "$folder/openapi-gen" "$project/vendor/k8s.io/kube-openapi/cmd/openapi-gen"
  inputs=$(grep -Rl --include='*.go' --exclude='*_test.go' '^// +k8s:openapi-gen=' pkg vendor/k8s.io/*/ |
    grep -v -e '^vendor/k8s.io/code-generator/' -e '^vendor/k8s.io/sample-' | xargs -n1 dirname | LC_ALL=C sort -u |
    sed "s#^#$project/#" | paste -sd,)
  PATH="$go/bin:$PATH" nice -n 19 "$folder/openapi-gen" --logtostderr -i "$inputs" -p "$project/${generated%/*}" -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$folder/openapi.report"
fi

# Since Go 1.18 whoever walks over a map gives the runtime memory to do so. This source has an older library for it: an API server that
# is built as it stands ends in the middle of the first custom resource. So its declaration is compiled in another form.
links=vendor/github.com/modern-go/reflect2/unsafe_link.go
sed -e 's|^//go:linkname mapiterinit reflect.mapiterinit$|//go:linkname mapiterbegin reflect.mapiterinit|' \
  -e 's|^func mapiterinit(.*$|func mapiterbegin(rtype unsafe.Pointer, m unsafe.Pointer, it *hiter)\n\nfunc mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) *hiter {\n\tit := new(hiter)\n\tmapiterbegin(rtype, m, it)\n\treturn it\n}|' \
  -e 's|^\t// rest fields are ignored$|\tpointers [6]unsafe.Pointer\n\tnumbers  [4]uintptr|' "$links" >"$folder/unsafe_link.go"
grep -q mapiterbegin "$folder/unsafe_link.go"
printf '{"Replace": {"%s": "%s"}}\n' "$inside/$links" "$folder/unsafe_link.go" >"$folder/overlay.json"

version=v1.20.2
stamp="-s -w"
for package in component-base/version client-go/pkg/version; do
  package=$project/vendor/k8s.io/$package
  stamp="$stamp -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=20"
done
for program in $programs; do
  [ ! -x "$folder/bin/$program" ] || continue
  echo "building $program" >&2
  build -overlay "$folder/overlay.json" -ldflags "$stamp" -o "$folder/bin/$program" "$project/cmd/$program"
done
${CC:-cc} -Os -static -DVERSION=1.20 -o "$folder/bin/pause" build/pause/linux/pause.c
"$folder/bin/kube-apiserver" --version
