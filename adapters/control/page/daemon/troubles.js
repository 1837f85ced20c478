/**
 * Owns what is the matter with a mapping: what is blocked, what fails, and what is paused, in this order.
 *
 * @typedef {{
 *   key: string, kind: 'blocked' | 'failing' | 'paused', since: number | null,
 *   shard: object | null, lane: object | null, pause: object | null,
 * }} Trouble
 */

const RANKS = { blocked: 0, failing: 1, paused: 2 };
/** The rank of a mapping with which nothing is the matter. */
const WELL = 3;
/** Known already, by the mapping: it is another object when anything of it has changed. */
const KNOWN = new WeakMap();

/** The troubles of a mapping, the worst and oldest first. */
export function troublesOf(mapping) {
  if (!KNOWN.has(mapping)) KNOWN.set(mapping, [...found(mapping)].sort(worse));
  return KNOWN.get(mapping);
}

function* found(mapping) {
  const { facts } = mapping;
  if (facts.paused) yield trouble('paused', { pause: facts.paused });
  const above = facts.paused?.operation;
  for (const shard of mapping.shards.values()) yield* ofShard(shard, above);
  for (const lane of newest(mapping.lanes)) yield* ofLane(null, lane, above);
}

function* ofShard(shard, above) {
  const own = shard.paused && shard.paused.operation !== above ? shard.paused : null;
  if (own) yield trouble('paused', { shard, pause: own });
  if (shard.state === 'failing') yield trouble('failing', { shard });
  for (const lane of shard.lanes) yield* ofLane(shard, lane, above, own?.operation);
}

function* ofLane(shard, lane, ...above) {
  if (lane.blocked_since !== null) yield trouble('blocked', { shard, lane, since: lane.blocked_since });
  else if (lane.failing_since !== null || lane.last_error) {
    yield trouble('failing', { shard, lane, since: lane.failing_since });
  }
  if (lane.paused && !above.includes(lane.paused.operation)) {
    yield trouble('paused', { shard, lane, pause: lane.paused });
  }
}

function trouble(kind, { shard = null, lane = null, pause = null, since = pause?.since ?? null }) {
  const key = JSON.stringify([kind, shard?.shard ?? null, lane?.lane ?? null, lane?.worker ?? null]);
  return { key, kind, since, shard, lane, pause };
}

function worse(one, other) {
  return RANKS[one.kind] - RANKS[other.kind] || (one.since ?? Infinity) - (other.since ?? Infinity) || 0;
}

/** Several workers may list the same message or group. The worker counts that has the newest news of it. */
function newest(lanes) {
  const best = new Map();
  for (const lane of lanes) {
    const known = best.get(lane.lane);
    if (!known || place(lane) > place(known)) best.set(lane.lane, lane);
  }
  return best.values();
}

function place(lane) {
  return lane.state === 'invoking' ? Infinity : (lane.next_try ?? -Infinity);
}

/** Where a mapping stands in the list: 0 blocked, 1 failing or broken, 2 paused, 3 well. */
export function rankOf(mapping) {
  const { facts } = mapping;
  if (facts.workers.some((each) => each.blocked > 0)) return RANKS.blocked;
  const worst = troublesOf(mapping)[0];
  if (worst?.kind === 'blocked') return RANKS.blocked;
  if (facts.state === 'Broken') return RANKS.failing;
  return worst ? RANKS[worst.kind] : WELL;
}

/** Mappings as they are listed: those in trouble first, the longest blocked before others, then by function and id. */
export function inOrder(mappings) {
  const placed = [...mappings].map((mapping) => ({ mapping, place: placeOf(mapping) }));
  placed.sort((one, other) => compared(one.place, other.place));
  return placed.map((each) => each.mapping);
}

function placeOf(mapping) {
  const rank = rankOf(mapping);
  const since = rank === RANKS.blocked ? (troublesOf(mapping)[0]?.since ?? Infinity) : 0;
  return [rank, since, mapping.facts.function, mapping.id];
}

function compared(one, other) {
  const differs = one.findIndex((value, at) => value !== other[at]);
  if (differs < 0) return 0;
  return one[differs] < other[differs] ? -1 : 1;
}
