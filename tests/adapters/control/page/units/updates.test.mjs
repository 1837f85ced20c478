import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { delayS, Phase, Updates } from '../../../../../adapters/control/page/daemon/updates.js';

globalThis.sessionStorage = { getItem: () => null };

test('the time between tries grows, has jitter, and has a limit', () => {
  const spans = Array.from({ length: 12 }, (_, failures) => [
    delayS(failures, () => 0),
    delayS(failures, () => 1),
  ]);
  assert.deepEqual(spans.slice(0, 3), [
    [0.25, 0.5],
    [0.5, 1],
    [1, 2],
  ]);
  assert.deepEqual(spans.at(-1), [15, 30]);
});

function answer(status, { headers = {}, text = '' } = {}) {
  return new Response(text, { status, headers });
}

/** Runs the updates over these answers (an error where nothing answers); returns the phases and the waits in seconds. */
async function played(answers) {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const phases = [];
  const waits = [];
  const left = [...answers];
  globalThis.fetch = async () => {
    const next = left.shift();
    if (next === undefined) return new Promise(() => {});
    if (next instanceof Error) throw next;
    return next;
  };
  const updates = new Updates({
    onEvent: () => {},
    onDate: () => {},
    random: () => 1,
    onPhase: (phase, { nextTry }) => {
      phases.push(phase);
      if (nextTry !== undefined) waits.push((nextTry - Date.now()) / 1000);
    },
  });
  updates.run();
  for (let turn = 0; turn <= answers.length; turn += 1) {
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    if (turn < answers.length) mock.timers.tick(60_000);
  }
  mock.timers.reset();
  return { phases, waits };
}

const STATUS = 'event: status\ndata: {}\n\n';

test('a daemon that does not answer is tried more and more seldom', async () => {
  const { waits } = await played([
    new TypeError('refused'),
    answer(502),
    new TypeError('refused'),
    answer(500),
  ]);
  assert.deepEqual(waits, [0.5, 1, 2, 4]);
});

test('a stream that was live is tried again soon', async () => {
  const { phases, waits } = await played([
    new TypeError('refused'),
    answer(502),
    answer(200, { text: STATUS }),
  ]);
  assert.deepEqual(waits, [0.5, 1, 0.5]);
  assert.ok(phases.includes(Phase.LIVE));
});

test('a busy daemon says when to come again', async () => {
  const { waits } = await played([answer(503, { headers: { 'Retry-After': '15' } })]);
  assert.deepEqual(waits, [15]);
});

test('a daemon that serves no updates is asked seldom', async () => {
  const { waits } = await played([answer(404), answer(403)]);
  assert.deepEqual(waits, [30, 30]);
});

test('without a token that is good nothing is tried', async () => {
  const { phases, waits } = await played([answer(401), answer(200, { text: STATUS })]);
  assert.deepEqual([phases, waits], [[Phase.CONNECTING, Phase.TOKEN], []]);
});

test('a page that stands aside asks for nothing until somebody looks at it', async () => {
  const phases = [];
  let asked = 0;
  let began = 0;
  globalThis.fetch = (_path, { signal }) => {
    asked += 1;
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  };
  const updates = new Updates({
    onEvent: () => {},
    onDate: () => {},
    onBegin: () => (began += 1),
    onPhase: (phase) => phases.push(phase),
  });
  updates.run();
  for (const act of [
    'lookedAt',
    'standAside',
    'standAside',
    'lookedAt',
    'standAside',
    'again',
    'standAside',
  ]) {
    updates[act]();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.deepEqual([asked, began], [3, 3]);
  const { CONNECTING, ASIDE } = Phase;
  assert.deepEqual(
    phases.filter((each, at) => each !== phases[at - 1]),
    [CONNECTING, ASIDE, CONNECTING, ASIDE, CONNECTING, ASIDE],
  );
});
