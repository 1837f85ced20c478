import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventStreamReader } from '../../../../../adapters/control/page/daemon/event_stream.js';

const TEXT =
  ': a comment\n\nevent: caller\ndata: {"a":1}\n\nevent: status\r\ndata: first\r\ndata:  second\r\n\r\n' +
  'id: 7\nretry: 10\nunknown\n\ndata: no name\n\nevent: nothing\n\nevent: é𝕏\ndata:\n\nevent: cut\ndata: not yet';
const EVENTS = [
  { name: 'caller', data: '{"a":1}' },
  { name: 'status', data: 'first\n second' },
  { name: '', data: 'no name' },
  { name: 'é𝕏', data: '' },
];

function fed(...texts) {
  const reader = new EventStreamReader();
  return texts.flatMap((text) => [...reader.feed(text)]);
}

test('a stream gives the same events wherever it is cut', () => {
  for (let cut = 0; cut <= TEXT.length; cut += 1) {
    assert.deepEqual(fed(TEXT.slice(0, cut), TEXT.slice(cut)), EVENTS, `cut at ${cut}`);
  }
  assert.deepEqual(fed(...TEXT), fed(TEXT));
});

test('an event without end is given up', () => {
  const reader = new EventStreamReader();
  const piece = 'x'.repeat(16 * 1024 * 1024);
  assert.throws(() => {
    for (let count = 0; count < 9; count += 1) [...reader.feed(piece)];
  }, /too long/);
});
