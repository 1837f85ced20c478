"""Owns the contract of every store: scenarios on one `Opening`. The name of each states the fact that it checks.

An opening can be entered several times at once. Each entry is one more worker on the same state.
"""

from poller.testing import store_checkpoints, store_leases, store_rows
from poller.testing.store_steps import Opening, Scenario

__all__ = ["SCENARIOS", "Opening", "Scenario"]

SCENARIOS: tuple[Scenario, ...] = (
    store_rows.a_created_mapping_is_listed_with_every_field,
    store_rows.a_known_mapping_is_kept_as_it_was,
    store_rows.what_a_caller_changes_later_is_not_stored,
    store_rows.of_two_creators_both_see_one_row,
    store_rows.an_update_replaces_the_row,
    store_rows.an_update_of_an_unknown_mapping_is_refused,
    store_rows.an_update_at_another_revision_is_refused,
    store_rows.the_same_update_again_finds_its_work_done,
    store_rows.of_two_updates_of_one_revision_exactly_one_wins,
    store_rows.a_forgotten_mapping_is_not_brought_back_by_an_update,
    store_rows.forgetting_removes_all_of_one_mapping_and_nothing_of_others,
    store_rows.many_shards_come_and_go,
    store_leases.a_seeded_lease_keeps_parents_and_checkpoint,
    store_leases.seeding_leaves_what_is_there,
    store_leases.seeding_nothing_is_no_error,
    store_leases.taking_sets_the_owner_and_the_next_epoch,
    store_leases.taking_returns_the_checkpoint_that_is_stored,
    store_leases.taking_with_another_epoch_is_refused,
    store_leases.taking_an_unknown_shard_is_refused,
    store_leases.the_same_take_again_finds_its_work_done,
    store_leases.of_two_takers_exactly_one_wins,
    store_leases.of_many_takers_exactly_one_wins,
    store_leases.releasing_keeps_the_checkpoint_and_clears_the_owner,
    store_leases.only_the_owner_at_its_epoch_can_release,
    store_leases.the_same_release_again_finds_its_work_done,
    store_checkpoints.a_saved_checkpoint_is_seen_by_all_at_once,
    store_checkpoints.a_position_never_goes_back,
    store_checkpoints.a_memo_is_replaced_at_the_same_position,
    store_checkpoints.a_memo_may_grow_large_and_shrink_again,
    store_checkpoints.the_largest_memo_is_handed_over,
    store_checkpoints.a_listing_without_memos_has_everything_else,
    store_checkpoints.who_takes_from_a_listing_without_memos_gets_the_memo,
    store_checkpoints.a_large_memo_is_seeded_once,
    store_checkpoints.positions_move_to_another_mapping_with_their_memos,
    store_checkpoints.a_zombie_cannot_replace_a_large_memo,
    store_checkpoints.a_sequence_number_comes_back_as_it_was_written,
    store_checkpoints.a_zombie_cannot_checkpoint,
    store_checkpoints.nothing_is_saved_after_release,
    store_checkpoints.saves_of_many_shards_at_once_are_all_kept_but_the_refused,
    store_checkpoints.a_moved_shard_has_the_next_epoch_and_neither_owner_nor_memo,
    store_checkpoints.a_shard_moves_back_from_its_end,
    store_checkpoints.who_had_a_shard_before_its_move_saves_nothing_more,
    store_checkpoints.a_shard_that_somebody_took_since_is_not_moved,
    store_checkpoints.the_same_move_again_finds_its_work_done,
    store_leases.a_dropped_lease_is_gone_and_may_be_seeded_anew,
    store_leases.a_lease_that_is_put_back_has_no_memo_of_before,
    store_leases.a_lease_that_somebody_took_since_is_not_dropped,
    store_leases.nothing_is_saved_to_a_dropped_lease,
    store_rows.a_heartbeat_replaces_the_one_before,
    store_rows.a_retired_worker_is_not_listed_until_it_beats_again,
)
