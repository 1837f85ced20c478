/**
 * Owns what an operation is about, and how that is said.
 *
 * @typedef {{
 *   mapping: object, shard?: object, lane?: object, group?: string, message?: string,
 * }} Target `mapping` and `shard` are as the state has them. `group` is that of a FIFO queue; `message` is one of another queue.
 */

import { functionName, shown } from '../words.js';

const NAME_CHARS_MAX = 128;

/** The target of a trouble, or of a lane of a queue. */
export function targetOf(mapping, { shard, lane }) {
  if (shard) return { mapping, shard, ...(lane && isNumber(lane.lane) ? { lane } : {}) };
  if (!lane) return { mapping };
  return isFifo(mapping) ? { mapping, lane, group: lane.lane } : { mapping, lane, message: lane.lane };
}

function isNumber(name) {
  return /^[0-9]{1,3}$/.test(name);
}

/** Whether a mapping reads a queue. */
export function isQueue(mapping) {
  return mapping.facts.source_arn.split(':')[2] === 'sqs';
}

export function isFifo(mapping) {
  return mapping.facts.source_arn.endsWith('.fifo');
}

/** The target in words, without its mapping. */
export function described(target) {
  if (target.group !== undefined) return `message group ${shown(target.group, NAME_CHARS_MAX)}`;
  if (target.message !== undefined) return `message ${shown(target.message, NAME_CHARS_MAX)}`;
  if (!target.shard) return 'the whole mapping';
  const shard = `shard ${shown(target.shard.shard, NAME_CHARS_MAX)}`;
  return target.lane ? `lane ${target.lane.lane} of ${shard}` : shard;
}

/** The target in words, with its mapping. */
export function describedFully(target) {
  return `${described(target)} of ${mappingNamed(target.mapping)}`;
}

export function mappingNamed(mapping) {
  return `${functionName(mapping.facts.function)} (${shown(mapping.id, NAME_CHARS_MAX)})`;
}

/** The members of a request that name the target. A shard with a single lane is meant as a whole. */
export function targetMembers(target) {
  if (target.group !== undefined) return { group: target.group };
  if (!target.shard) return {};
  const lane = target.lane && target.shard.lanes.length > 1 ? { lane: Number(target.lane.lane) } : {};
  return { shard: target.shard.shard, ...lane };
}

/** The same target by what is known of its mapping now. What is gone has no lanes. */
export function asNow(target, mapping) {
  const shard = target.shard && (mapping?.shards.get(target.shard.shard) ?? { ...target.shard, lanes: [] });
  const lanes = shard ? shard.lanes : (mapping?.lanes ?? []);
  const { lane } = target;
  const same = (each) => each.lane === lane.lane && (shard || each.worker === lane.worker);
  return {
    ...target,
    mapping: mapping ?? target.mapping,
    shard,
    lane: lane && (lanes.find(same) ?? idle(lane)),
  };
}

function idle(lane) {
  return { ...lane, blocked_since: null, last_error: '', records: [], records_count: 0 };
}

/** The lane whose records a skip of the first record or of the batch means; null if it is not the only one, or if they are not known. */
export function laneAtFault(target) {
  const lanes = failingLanes(target);
  return lanes.length === 1 && lanes[0].records.length > 0 ? lanes[0] : null;
}

/** The lanes, groups or messages of the target that fail, the longest blocked first. */
export function failingLanes({ mapping, shard, lane }) {
  if (lane) return [lane];
  const own = shard ? shard.lanes : mapping.lanes;
  const all = shard || own.length > 0 ? own : [...mapping.shards.values()].flatMap((each) => each.lanes);
  const failing = all.filter((each) => each.blocked_since !== null || each.last_error !== '');
  return failing.sort((one, other) => since(one) - since(other) || 0);
}

function since(lane) {
  return lane.blocked_since ?? lane.failing_since ?? Infinity;
}

/** Whether what is given up can be sent somewhere, as far as that is known. */
export function hasDestination(target) {
  if (isQueue(target.mapping)) return (target.lane?.attempts_max ?? null) !== null;
  return target.mapping.facts.destination !== '';
}
