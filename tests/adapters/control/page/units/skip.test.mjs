import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agreedRecords } from '../../../../../adapters/control/page/operations/dialog.js';
import { asNow } from '../../../../../adapters/control/page/operations/targets.js';

const REFUSED = 'refused';

/** A mapping with one shard, whose lane fails with these records of `count`. */
function failing(ids, count = ids.length) {
  const records = ids.map((identifier) => ({ identifier, key: '', arrived: 0 }));
  const lane = { lane: '0', blocked_since: 1, last_error: 'x', records, records_count: count };
  return { id: 'm', lanes: [], shards: new Map([['s', { shard: 's', lanes: [lane] }]]) };
}

function skipped(records, target, later) {
  try {
    const members = agreedRecords({ records }, target, asNow(target, later));
    return 'batch_first' in members ? members : members.records;
  } catch (error) {
    assert.match(error.message, /Another batch is at fault/);
    return REFUSED;
  }
}

test('a skip gives up no others than those that the dialog names', () => {
  const gone = { ...failing([]), shards: new Map() };
  const cases = [
    ['first', failing(['7', '8']), failing(['8']), ['7']],
    ['first', failing(['7'], 500), undefined, ['7']],
    ['first', failing([]), failing(['8']), 'first'],
    ['batch', failing(['7', '8']), failing(['9']), ['7', '8']],
    [
      'batch',
      failing(['7'], 500),
      failing(['7'], 500),
      { records: 'batch', batch_first: '7', batch_count: 500 },
    ],
    ['batch', failing(['7'], 500), failing(['8'], 500), REFUSED],
    ['batch', failing(['7'], 500), failing(['7'], 250), REFUSED],
    ['batch', failing(['7'], 500), failing([]), REFUSED],
    ['batch', failing(['7'], 500), gone, REFUSED],
    ['batch', failing(['7'], 500), undefined, REFUSED],
    [['495'], failing(['7'], 500), failing(['8']), ['495']],
  ];
  for (const [records, before, later, expected] of cases) {
    const shard = before.shards.get('s');
    assert.deepEqual(skipped(records, { mapping: before, shard }, later), expected);
    assert.deepEqual(skipped(records, { mapping: before, shard, lane: shard.lanes[0] }, later), expected);
  }
});
