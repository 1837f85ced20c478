import assert from 'node:assert/strict';
import { test } from 'node:test';
import { after, nothingKnown } from '../../../../../adapters/control/page/daemon/state.js';

const shard = (name, more = {}) => ({ shard: name, state: 'reading', lanes: [], ...more });
const mapping = (id, more = {}) => ({ mapping: id, function: 'f', shards: [], lanes: [], ...more });
const STATUS = {
  worker: 'ann',
  ready: true,
  mappings: [mapping('a', { shards: [shard('1'), shard('2')] }), mapping('b')],
};
const known = after(nothingKnown(), 'status', STATUS);

test('a change keeps what it does not name, to the object', () => {
  const next = after(known, 'changed', {
    shards: { a: [shard('2', { state: 'blocked' })] },
    problems: ['one'],
  });
  assert.equal(next.mappings.get('b'), known.mappings.get('b'));
  assert.equal(next.mappings.get('a').facts, known.mappings.get('a').facts);
  assert.equal(next.mappings.get('a').shards.get('1'), known.mappings.get('a').shards.get('1'));
  assert.equal(next.mappings.get('a').shards.get('2').state, 'blocked');
  assert.deepEqual([next.status.problems, next.status.ready], [['one'], true]);
  assert.equal(known.mappings.get('a').shards.get('2').state, 'reading');
});

test('false and an empty list replace what was', () => {
  const next = after(known, 'changed', { ready: false, notes: [], problems: null });
  assert.deepEqual([next.status.ready, next.status.notes, next.status.problems], [false, [], undefined]);
});

test('facts of a mapping change without its shards and lanes', () => {
  const facts = { mapping: 'a', function: 'g' };
  const next = after(known, 'changed', { mappings: [facts], lanes: { a: [{ lane: 'x' }], unknown: [] } });
  assert.equal(next.mappings.get('a').facts.function, 'g');
  assert.equal(next.mappings.get('a').shards.size, 2);
  assert.equal(next.mappings.get('a').lanes.length, 1);
  assert.equal(next.mappings.size, 2);
});

test('events that are not known, also by names that every object has, change nothing', () => {
  for (const name of ['', 'unknown', 'toString', '__proto__', 'constructor'])
    assert.equal(after(known, name, {}), known);
});

test('a history has 240 points at most, and one that is no longer sent is gone', () => {
  const full = { lag_ms: Array.from({ length: 240 }, (_, at) => at), failures: [1], pollers: null };
  let state = after(known, 'history', { step_s: 15, mappings: { a: full } });
  assert.equal(state.mappings.get('b').history, null);
  state = after(state, 'point', { mappings: { a: { lag_ms: 7, records_per_s: 2 }, b: { lag_ms: 1 } } });
  const { history } = state.mappings.get('a');
  assert.deepEqual([history.lag_ms.length, history.lag_ms[0], history.lag_ms.at(-1)], [240, 1, 7]);
  assert.deepEqual([history.failures, history.records_per_s, history.pollers], [[1, null], [2], [null]]);
  assert.deepEqual(state.mappings.get('b').history, { lag_ms: [1] });
  assert.equal(after(state, 'point', { mappings: {} }).mappings.get('a').history, null);
});

test('an alias that is as before stays the same object, and one that is gone goes', () => {
  const alias = (arn, version) => ({ arn, version, weights: {}, shift: null });
  const one = after(known, 'aliases', [alias('a', '1'), alias('b', '1')]);
  const next = after(one, 'aliases', [alias('a', '1'), alias('b', '2')]);
  assert.equal(next.aliases[0], one.aliases[0]);
  assert.equal(next.aliases[1].version, '2');
  assert.equal(next.mappings, known.mappings);
  assert.deepEqual(after(next, 'aliases', []).aliases, []);
});
