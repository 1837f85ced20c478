"""Owns the seeds that once failed, each with the cause; they run for ever, so that the cause stays gone."""

KEPT_BASE_SEEDS: dict[int, str] = {
    459: "age took the front of a batch whose retries were used up, and the rest went out under a request never made",
    648: "a poller that was asked to stop while its window was open spun until the window's end and held up the loop",
    1285: "as 459, with several records behind the expired one",
    1433: "as 459, in one lane of two",
    1903: "as 648, on another queue",
    14: "a full page of DynamoDB, which tells no lag, counted as the last one: a window closed before its records came",
    884: "a window closed by the clock in an outage of its source, before its records were read",
    905: "a batch that a window's state made too big was taken for one oversized record and blocked its shard",
}
"""Seeds of base scenarios, without their variations, to what was wrong."""

KEPT_SEEDS: dict[int, str] = {
    14: "a window's state grew too large in the first half of a batch, and the second half was called with it",
    19: "as 14, with what a partial report left of the batch",
    107: "as 14, in a batch that failed and was cut in two later",
    6313: "messages went to the dead-letter queue while they ran, and the check took those behind them for a second batch of the group",
    6970: "a worker that had just come took its part of a maximum while others still ran what they had received before",
    13334: "as 6970, with a maximum of one",
    18494: "as 6970, with four workers",
    17786: "an extension call that took long held up all later ones, and messages came into sight that were waiting",
    11387: "a worker took the part of a paused one after the lease time, and the check counted the call that still ran there",
    2531: "the queue gave a message out twice, and the check blamed who had it first for not having deleted it",
    604: "groups beside each other took more of a maximum than their worker's part",
}
"""Seeds of scenarios with their variations to what was wrong."""
