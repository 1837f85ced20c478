/**
 * Owns the table of actions: how each is called, which fields its dialog has, and what of it cannot be taken back.
 *
 * A field is `{name, label, type, …}`. Its type is that of an input, `choice` with `options`, or `lines` for a list of ids.
 * `request(values, target)` makes the members of the request from the values of the fields. `loses(members)` says that records
 * are lost, which somebody has to agree to once more.
 */

import { hasDestination, isFifo, isQueue } from './targets.js';

const PLACES = 'TRIM_HORIZON, LATEST, a time such as 2026-01-31T08:00:00Z, or a sequence number';
const never = () => false;
const nothing = () => ({});

const DRY_RUN = { name: 'dry_run', label: 'Only show what would happen (dry run)', type: 'checkbox' };

export const ACTIONS = {
  retry: { label: 'Retry', confirm: 'Retry now', fields: () => [], request: nothing, loses: never },
  reset: {
    label: 'Reset',
    confirm: 'Reset attempts and age',
    fields: () => [],
    request: nothing,
    loses: never,
  },
  pause: { label: 'Pause', confirm: 'Pause', fields: () => [], request: nothing, loses: never },
  resume: { label: 'Resume', confirm: 'Resume', fields: () => [], request: nothing, loses: never },
  skip: {
    label: 'Skip',
    confirm: 'Skip',
    fields: skipFields,
    request: skipRequest,
    loses: ({ discard }) => discard,
  },
  seek: {
    label: 'Seek',
    confirm: 'Move the position',
    fields: seekFields,
    request: seekRequest,
    loses: ({ skip }) => Boolean(skip),
  },
  replay: {
    label: 'Replay',
    confirm: 'Begin the replay',
    fields: replayFields,
    request: present,
    loses: (members) => members.on_failure === 'skip',
  },
  redrive: {
    label: 'Redrive',
    confirm: 'Begin the redrive',
    fields: redriveFields,
    request: present,
    loses: never,
  },
  enable: {
    label: 'Enable',
    confirm: 'Enable',
    fields: () => [],
    request: nothing,
    loses: never,
    plain: true,
  },
  disable: {
    label: 'Disable',
    confirm: 'Disable',
    fields: () => [],
    request: nothing,
    loses: never,
    plain: true,
  },
  cancel: {
    label: 'Cancel',
    confirm: 'Cancel the operation',
    fields: () => [],
    request: nothing,
    loses: never,
    plain: true,
  },
  shift: {
    label: 'Shift',
    confirm: 'Begin the shift',
    fields: shiftFields,
    request: present,
    loses: never,
  },
  rollback: {
    label: 'Roll back',
    confirm: 'Roll back now',
    fields: () => [],
    request: nothing,
    loses: never,
  },
  close: {
    label: 'Close breaker',
    confirm: 'Close the breaker',
    fields: () => [],
    request: nothing,
    loses: never,
  },
};

/** The actions that are offered for a target, by name. `admin`: the caller may change mappings, too. */
export function actionsFor(target, { admin = false } = {}) {
  const { mapping, shard, lane } = target;
  const hold = pauseOf(target) ? 'resume' : 'pause';
  if (target.message !== undefined) return ['skip'];
  if (target.group !== undefined) return ['retry', 'skip', hold];
  if (lane) return ['retry', 'skip', 'reset', hold];
  if (shard) return ['retry', 'skip', 'reset', hold, 'seek'];
  const long = isQueue(mapping) ? ['redrive'] : ['reset', 'seek', 'replay', 'redrive'];
  const change = mapping.facts.state === 'Disabled' ? 'enable' : 'disable';
  return ['retry', hold, ...long, ...(admin ? [change] : [])];
}

/** The pause of a target itself; that of a wider target is ended there. */
function pauseOf({ mapping, shard, lane }) {
  const above = [mapping.facts.paused?.operation, lane ? shard?.paused?.operation : undefined];
  const { paused } = lane ?? shard ?? mapping.facts;
  return paused && !((shard || lane) && above.includes(paused.operation)) ? paused : null;
}

function skipFields(target) {
  const byIds = target.message !== undefined || (isQueue(target.mapping) && !isFifo(target.mapping));
  const discard = {
    name: 'discard',
    label: 'Drop them without a notice',
    type: 'checkbox',
    value: !hasDestination(target),
  };
  if (byIds) return [discard];
  const options = [
    ['first', 'the first record of the batch at fault'],
    ['batch', 'all records of the batch at fault'],
    ['ids', 'these'],
  ];
  return [
    { name: 'records', label: 'Records', type: 'choice', options, value: 'first' },
    {
      name: 'ids',
      label: 'Sequence numbers or message ids, one a line',
      type: 'lines',
      when: ({ records }) => records === 'ids',
    },
    discard,
  ];
}

function skipRequest({ records, ids, discard }, target) {
  const listed = target.message !== undefined ? [target.message] : ids;
  return {
    records: records === undefined || records === 'ids' ? listed : records,
    ...(discard ? { discard: true } : {}),
  };
}

function seekFields() {
  return [
    { name: 'to', label: 'Go on at', type: 'text', hint: PLACES, required: true },
    { name: 'skip', label: 'Records that were not processed may be left out', type: 'checkbox' },
    DRY_RUN,
  ];
}

/** A seek names its shards as a list; they are no target. */
function seekRequest(values, target) {
  return { ...present(values), ...(target.shard ? { shards: [target.shard.shard] } : {}) };
}

function replayFields() {
  return [
    {
      name: 'from',
      label: 'From',
      type: 'text',
      hint: 'TRIM_HORIZON, or a time such as 2026-01-31T08:00:00Z',
      required: true,
    },
    { name: 'to', label: 'To', type: 'text', hint: 'LATEST, or a time', value: 'LATEST', required: true },
    {
      name: 'function',
      label: 'Another function',
      type: 'text',
      hint: 'leave it empty for the mapping’s own',
    },
    {
      name: 'filter',
      label: 'Another filter pattern',
      type: 'text',
      hint: 'JSON; leave it empty for the mapping’s own',
    },
    { name: 'records_per_s', label: 'Records a second at most', type: 'number', min: 'any' },
    {
      name: 'on_failure',
      label: 'A batch that fails',
      type: 'text',
      hint: 'stop, skip, or the ARN or URL of a destination',
      value: 'stop',
      required: true,
    },
  ];
}

function redriveFields() {
  return [
    {
      name: 'from',
      label: 'Where the notices are',
      type: 'text',
      hint: 'the ARN of a queue, s3://BUCKET/PREFIX or file:///DIRECTORY',
      required: true,
    },
    { name: 'limit', label: 'Notices at most', type: 'number', min: '1' },
    { name: 'messages_per_s', label: 'Notices a second at most', type: 'number', min: 'any' },
    DRY_RUN,
  ];
}

function shiftFields() {
  return [
    { name: 'to', label: 'To version', type: 'text', required: true },
    {
      name: 'strategy',
      label: 'Strategy',
      type: 'text',
      hint: 'AllAtOnce, Canary10Percent5Minutes, Linear10PercentEvery1Minute, or other numbers',
      value: 'Canary10Percent5Minutes',
      required: true,
    },
    {
      name: 'failure_rate',
      label: 'Roll back at a greater share of failed calls',
      type: 'number',
      min: 'any',
      hint: 'of the new version, as 0.05; leave it empty for none',
    },
  ];
}

/** The values that say something. */
function present(values) {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== false),
  );
}
