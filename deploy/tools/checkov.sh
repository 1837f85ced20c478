#!/bin/sh
# Runs checkov on what the chart and the overlays render to. It has a hundred dependencies, so it lives by itself.
#
#   deploy/tools/checkov.sh FOLDER UV
set -eu
cd "$(dirname "$0")/../.."
folder=$1
uv=$2
if [ ! -x "$folder/checkov/bin/checkov" ]; then
  "$uv" venv --quiet --python "$folder/bin/python" "$folder/checkov"
  "$uv" pip install --quiet --python "$folder/checkov/bin/python" checkov==3.3.30
fi
rendered=$folder/rendered
mkdir -p "$rendered"
for values in deploy/checks/values/*.yaml; do
  "$folder/bin/helm" template poller deploy/helm/poller --namespace poller --values "$values" >"$rendered/helm-$(basename "$values")" 2>/dev/null
done
for overlay in replicas single; do
  "$folder/bin/kubectl" kustomize "deploy/kubernetes/overlays/$overlay" >"$rendered/kustomize-$overlay.yaml"
done
# CKV_K8S_11: no CPU limit, on purpose: it would throttle the event loop. CKV_K8S_43, _15: a release is named by its tag.
# CKV_K8S_35: AWS's clients read keys from variables; CKV_K8S_40 wants a uid above 10000, which it has.
# CKV2_K8S_6 does not see a NetworkPolicy in another document.
exec "$folder/checkov/bin/checkov" --directory "$rendered" --framework kubernetes --compact --quiet --skip-download \
  --skip-check CKV_K8S_11,CKV_K8S_43,CKV_K8S_15,CKV_K8S_35,CKV2_K8S_6
