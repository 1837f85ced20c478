bench: $(READY)  ## records a second against a plain and a bare loop, latency, idle cost
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.idle

profile: $(READY)  ## where the time of one record goes: make profile CASE=kinesis
	$(BIN)/python -m benchmarks.profiling $(or $(CASE),kinesis)
