.PHONY: bench profile

# The figures of a run, to compare with another one.
BENCH_JSON ?= benchmarks.json

bench: $(READY)  ## records a second against a plain and a bare loop, latency, idle cost; figures to BENCH_JSON
	$(BIN)/python -m benchmarks --json $(BENCH_JSON)

profile: $(READY)  ## where the time of one record goes: make profile CASE=kinesis
	$(BIN)/python -m benchmarks.profiling $(or $(CASE),kinesis)
