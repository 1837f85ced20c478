/** Owns the sentence that says what an operation will do, before anybody agrees to it. They are those of the commands. */

import { shown, span } from '../words.js';
import { describedFully, failingLanes, isQueue, laneAtFault, mappingNamed } from './targets.js';

const TEXT_CHARS_MAX = 200;
const RECORDS_SHOWN_MAX = 3;

/** What will happen; `members` are those of the request. */
export function sentence(action, target, members, now) {
  return `${SENTENCES[action](target, members, now)}.`;
}

const SENTENCES = {
  retry: (target, _members, now) =>
    `The next try of ${describedFully(target)} is made now${tried(target, now)}; no attempt is used up`,
  reset: (target, _members, now) =>
    `Attempts and age of what fails in ${describedFully(target)} count from now${tried(target, now)}`,
  pause: (target) =>
    `No call begins for ${describedFully(target)} until somebody resumes it; a call that runs finishes and counts`,
  resume: (target) => `The pauses of ${describedFully(target)} end, and what waits goes on`,
  skip,
  seek,
  replay,
  redrive: (target, { from, limit }) =>
    `The batches${limit ? `, ${limit} at most,` : ''} whose notices are in ${given(from)} are called again for ` +
    `${describedFully(target)}; the notice of each that succeeds is removed`,
  enable: (target) =>
    `The mapping ${mappingNamed(target.mapping)} is switched on at all workers, and goes on where it was`,
  disable: (target) =>
    `The mapping ${mappingNamed(target.mapping)} is switched off at all workers; calls that run finish, ` +
    'and its positions are kept',
  cancel: (target) =>
    `Nothing more of the ${shown(target.operation.action)} ${shown(target.operation.id)} begins; what was done stays done`,
  shift: ({ alias }, { to, strategy }) =>
    `The calls of ${aliasNamed(alias)} move from version ${shown(alias.version)} to version ${given(to)}, ${given(strategy)}`,
  rollback: ({ alias }) =>
    `All calls of ${aliasNamed(alias)} go to version ${shown(alias.shift?.old)} at once, and the shift to version ` +
    `${shown(alias.shift?.new)} ends`,
  close: (target) =>
    `The circuit breaker of function ${shown(target.function.function)} is closed at all workers, so that its calls begin at once`,
};

function aliasNamed({ function: of, name }) {
  return `${shown(of)}:${shown(name)}`;
}

/** A text that somebody writes just now. */
function given(text) {
  return shown(text || '…', TEXT_CHARS_MAX);
}

function tried(target, now) {
  const [lane] = failingLanes(target);
  if (!lane) return '';
  const since = lane.blocked_since ?? lane.failing_since;
  const how = since === null ? '' : ` for ${span(now - since)}`;
  const error = lane.last_error ? `: ${shown(lane.last_error, TEXT_CHARS_MAX)}` : '';
  return ` (it has failed${how}, ${attempts(lane)}${error})`;
}

function attempts(lane) {
  const word = lane.attempts_max === null ? 'attempt' : 'receive';
  return `${lane.attempts} ${word}${lane.attempts === 1 ? '' : 's'}`;
}

function skip(target, { records, discard }, now) {
  const named = Array.isArray(records);
  const { what, are } = named ? ofIds(records) : ofBatch(laneAtFault(target), records, now);
  const of =
    target.shard || target.group !== undefined ? describedFully(target) : mappingNamed(target.mapping);
  return `${what} of ${of} ${are} ${fate(target, discard)}`;
}

function ofIds(ids) {
  const names = ids.slice(0, RECORDS_SHOWN_MAX).map((id) => given(id));
  if (ids.length <= 1) return { what: `Record ${names[0] ?? '…'}`, are: 'is' };
  const more = ids.length > names.length ? ` and ${ids.length - names.length} more` : '';
  return { what: `${ids.length} records, ${names.join(', ')}${more},`, are: 'are' };
}

function ofBatch(lane, records, now) {
  const first = lane?.records[0];
  if (!first)
    return {
      what: records === 'first' ? 'The first record of the batch at fault' : 'The batch at fault',
      are: 'is',
    };
  const key = first.key ? `key ${given(first.key)}, ` : '';
  const facts = `${key}${span(now - first.arrived)} old, ${attempts(lane)}`;
  if (records === 'first' || lane.records_count <= 1) {
    const several = lane.records_count > 1 ? `the first of ${lane.records_count} that fail together, ` : '';
    return { what: `Record ${given(first.identifier)} (${several}${facts})`, are: 'is' };
  }
  return {
    what: `All ${lane.records_count} records of the batch at fault, from ${given(first.identifier)} on (${facts}),`,
    are: 'are',
  };
}

function fate(target, discard) {
  if (discard) return 'given up and lost: no notice is sent';
  if (isQueue(target.mapping)) return "moved to the queue's dead-letter queue";
  const { destination } = target.mapping.facts;
  if (destination) return `given up, and the notice goes to ${shown(destination, TEXT_CHARS_MAX)}`;
  return 'given up if the mapping has an on-failure destination for the notice';
}

function seek(target, { to, skip: leavesOut }) {
  const left = leavesOut
    ? 'records before that place that were not processed are left out'
    : 'no record that was not processed is left out';
  return (
    `All workers let go of ${describedFully(target)}, which goes on at ${given(to)}: ` +
    `what is behind that place is processed, also if it was before; ${left}`
  );
}

function replay(target, members) {
  const by = members.function ? `by ${given(members.function)}` : 'by its function';
  const rate = members.records_per_s ? `, ${members.records_per_s} a second at most` : '';
  const chosen = members.filter ? ' that match the filter' : '';
  return (
    `The records${chosen} of ${describedFully(target)} from ${given(members.from)} to ${given(members.to)} are processed ` +
    `once more ${by}${rate}; ${ofFailure(members.on_failure)}; the mapping's own position does not move`
  );
}

function ofFailure(choice) {
  if (choice === 'stop') return 'a batch that fails ends it';
  if (choice === 'skip') return 'a batch that fails is given up and lost';
  return `the notice of a batch that fails goes to ${given(choice)}`;
}
