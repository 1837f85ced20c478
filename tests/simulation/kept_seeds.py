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
    3210: "a duplicate was given back unrun, and the check took it for the one that had failed elsewhere",
    5037: "a call that a worker had sent before it was stopped arrived when others had its messages, and the check blamed the engine",
    993: "what a full batch had no room for ran behind it, and the check took it for a batch that gathered beside the next one",
    604: "groups beside each other took more of a maximum than their worker's part",
    1339: "a worker kept a batch that its function had refused when others had taken its part of a maximum, and could never try it again",
    635: "a filter looked at a long image of a DynamoDB change, which is a raw part of an answer, as if it were bytes",
    2009: "as 1339, on another queue",
    3812: "a worker's next client of a FIFO queue took an attempt id again, and was given what the client before had failed",
    5234: "as 3812, on another queue",
    6443: "a message that was hidden for long was given out twice, and the check took the second worker's time for the first one's",
    2590: "a shard opened just before the start was not listed yet, and the check wanted it read from the start on",
    3074: "a batch was given back with a part of a maximum, and the check blamed the worker for the messages that no event had room for",
    5271: "as 3074, with the messages behind a refused event, on a FIFO queue",
    4231: "a refused message came again while its worker kept it, and the check forgot that the function had refused it",
    6027: "as 4231, at an update",
    4136: "a poll that broke off with a task of its mapping caught what was given back at a stop, and the check blamed the worker",
    7322: "a group's messages came again before those behind them were given back, and were given back with them",
    13307: "a delete that had failed for the last time was kept waiting, while its message came again",
    14649: "the delete of a done message failed for the last time, and the check blamed the worker for giving back those behind it",
    13453: "a message was given back since one behind it had lapsed before both ran",
    1412: "a message came back from others while its run here still went on, and the check wanted another run of it",
}
"""Seeds of scenarios with their variations, without operators, to what was wrong."""

KEPT_OPERATED_SEEDS: dict[int, str] = {
    787: "a release had failed, so a live worker had a lease without reading its shard, and a seek waited for it for ever",
    424: "a skip waited for the batch of an earlier run, whose records the source had removed meanwhile",
    933: "as 424, with several skips",
    1570: "a skip waited for records that the source had removed while the shard moved, and nothing came behind them",
    1275: "a skip gave up the call that ends a window early, and the check did not know what that window had counted",
    2149: "a closed batch waited for a breaker, and the check took the whole wait for its window",
    8255: "a seek left out records without leave that had lost their times of arrival, since they seemed to be later than its time",
    416: "pollers of a queue were added for the time before its pauses were known, in which none could receive",
    1792: "as 416, in seconds",
    17610: "a skip waited for ever for records of an earlier run that a consumer's start left out, since each silence between two events began the count of empty pages again",
}
"""Seeds of scenarios with their variations and operators, without redrives, to what was wrong."""

KEPT_REDRIVEN_SEEDS: dict[int, str] = {
    64: "notices whose events have half of a surrogate pair in a key were refused as no JSON",
    6108: "a notice that came back between the last read and the count of what others hold was left, and the redrive was done",
    6202: "as 6108, of a stream",
    6685: "a notice that was read when a pause came was called in the pause",
    8346: "a seek read an idle shard of a table so fast that it was throttled, and began again for ever",
    9028: "two workers ran a message and both failed, and the check took the first one's wait for a change without a reason",
    6334: "records without a time of arrival were not found in the stream, since they were looked for by it",
    1683: "a reader could not show a notice again that it had hidden for the time of a longer call, and the check did not wait for it",
    8021: "the only worker had just started when everything was redriven at last, and all requests came before it accepted any",
    12358: "the first message of an event that waited came again, and was given back with the others, whose time ran out",
    12886: "a stop gives back after five seconds what waits for a permit of its function, and the check asked it to wait on",
    12920: "a seek moved a parent while another worker, which had read the leases before, took the child, and the check blamed it",
    746: "a skip to the end of a shard was done before the store had the end, and the shard began again behind an outage",
}
"""Seeds of scenarios with redrives, to what was wrong."""

KEPT_WHOLE_SEEDS: dict[int, str] = {
    559: "two workers accepted a seek at the same moment, and the plan of the second left out what the first had put back",
    4454: "an update gives back after five seconds what waits for a permit of its function, and the check knew that of a stop only",
    4638: "a worker lost its part of a maximum while it kept a slot from call to call, and the check counted from its last call",
    5674: "a reader took a notice for a moment between the count of what others hold and the last read of a redrive, which was done",
    5705: "a worker stood still, took a redriven batch for one that timed out, and the check wanted its notice removed",
    9211: "a message came to another worker while its first one waited, and the check blamed that one for giving back those behind it",
    9675: "a refused message came twice to the worker that waited with it, and the check forgot the refusal at the second time",
    15193: "a redrive went on with the closed function of a mapping that was updated, and with its slots beside the new ones",
    19463: "a seek went on to move shards after it was cancelled, and the check did not know of the move that was under way",
    6747: "as 5705, with a batch of a stream that was skipped in part",
    53585: "a seek to a moment took up skipped records of a table from the same second again, and the check blamed it",
}
"""Seeds of whole scenarios to what was wrong."""

KEPT_STREAM_SEEDS: dict[int, str] = {
    1193: "a task that waits for what a consumer is pushed was cancelled from inside, and its reader took that for its own end",
    198: "subscriptions ended again and again before any event came, so nothing said that a window was complete",
    1201: "as 198, in several shards",
    71074: "answers came without an iterator while an old listing did not have the shard yet, which was taken for its end",
    6547: "a function was opened anew beside a call that ran, since the task was cancelled that kept it open for calls, and then its mapping's",
    6698: "a shard held more than its part of the memory, and had to read on before it could settle any of that after a restart",
    7832: "the checker did not know that a message is shown untried behind another of its group whose time ran out in this worker's long call",
    46515: "a poller waited for room in memory with the only slot, for which the batch waited that had the room",
}
"""Seeds of scenarios with all variations (consumers, shards found with fewer calls, little memory), to what was wrong."""

KEPT_CALL_SEEDS: dict[int, str] = {
    74: "claims whose answers were lost counted as workers that the call had ended, and it was given up without being called",
}
"""Seeds of worlds of asynchronous calls, to what was wrong."""

KEPT_VERSION_SEEDS: dict[int, str] = {
    8: "a worker that came back from an outage took a call over from one that it had held for dead before, and that lived again",
}
"""Seeds of worlds of versions and aliases, to what was wrong."""
