import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pathOf } from '../../../../../adapters/control/page/views/charts.js';
import * as words from '../../../../../adapters/control/page/words.js';

test('durations are short', () => {
  const spans = [-1, 0, 0.44, 1, 59, 60, 3_600, 86_400 * 3].map(words.span);
  assert.deepEqual(spans, ['0.0 s', '0.0 s', '0.4 s', '1 s', '59 s', '1 min', '1 h', '3 d']);
});

test('moments outside the calendar are numbers', () => {
  assert.equal(words.moment(1_767_225_600.9), '2026-01-01T00:00:00Z');
  assert.equal(words.moment(1e300), '1e+300');
});

test('what has no shape is shown as its code', () => {
  assert.equal(words.shown('a\u202eb\0c\ud800d\n'), 'a\\u{202e}b\\u{0}c\\u{d800}d\\u{a}');
  assert.equal(words.shownLines('a\n\tb\rc\u2028'), 'a\n\tb\\u{d}c\\u{2028}');
  assert.equal(words.shown('x'.repeat(500)).length, 301);
  assert.ok(words.shown(`e${'\u0301'.repeat(200)}`).length < 10);
  assert.deepEqual([words.shown(null), words.shown(undefined), words.shown(0)], ['', '', '0']);
});

test('letters and marks without a shape are shown, and pictures are left whole', () => {
  const cases = [
    ['a\u3164', 'a\\u{3164}'],
    ['\u115fb\u1160', '\\u{115f}b\\u{1160}'],
    ['a\u2800', 'a\\u{2800}'],
    ['a\u034fb', 'a\\u{34f}b'],
    ['a\u17b4', 'a\\u{17b4}'],
    ['a\ufe0f', 'a\\u{fe0f}'],
    ['\u2764\ufe0f', '\u2764\ufe0f'],
    ['\u{e0041}', '\\u{e0041}'],
    ['naïve e\u0301 ضِ ひ', 'naïve e\u0301 ضِ ひ'],
  ];
  for (const [text, expected] of cases) {
    assert.equal(words.shown(text), expected);
    assert.equal(words.shownLines(text), expected);
  }
});

test('a text is cut between characters', () => {
  const long = `${'x'.repeat(9)}\u{1f600}yz`;
  assert.deepEqual(
    [9, 10, 11].map((most) => words.shown(long, most)),
    [`${'x'.repeat(9)}…`, `${'x'.repeat(9)}…`, `${'x'.repeat(9)}\u{1f600}…`],
  );
});

test('sources and functions have the names that people use', () => {
  assert.equal(
    words.sourceName('arn:aws:dynamodb:eu-west-1:1:table/t/stream/2026-01-01T00:00:00'),
    'dynamodb table/t/stream/2026-01-01T00:00:00',
  );
  assert.equal(words.sourceName('no arn'), 'no arn');
  assert.equal(words.functionName('arn:aws:lambda:eu-west-1:1:function:ship:live'), 'ship:live');
  assert.equal(words.functionName('ship:live'), 'ship:live');
});

test('a chart has gaps where nothing is known, and its newest value at the right', () => {
  assert.equal(pathOf([], 0), '');
  assert.equal(pathOf([0, null, 10], 10), 'M237 39.0h0.5M239 1.0h0.5');
  assert.equal(pathOf([0, 0], 0), 'M238 39.0h0.5L239 39.0');
});
