import assert from 'node:assert/strict';
import { test } from 'node:test';
import { READING_MAX, Tabs } from '../../../../../adapters/control/page/daemon/tabs.js';

/** The tabs of one browser: each hears what the others say. */
class Tabbed {
  #ports = new Set();
  reading = [];

  open(name) {
    const port = {
      onmessage: null,
      postMessage: (data) => {
        for (const other of this.#ports) if (other !== port) other.onmessage({ data });
      },
    };
    const tab = new Tabs(() => this.#ends(name), port);
    this.#ports.add(port);
    return {
      looks: () => {
        this.#ends(name);
        this.reading.push(name);
        tab.begin();
      },
      closes: () => {
        this.#ends(name);
        tab.end();
        this.#ports.delete(port);
      },
      crashes: () => {
        this.#ends(name);
        this.#ports.delete(port);
      },
    };
  }

  #ends(name) {
    this.reading = this.reading.filter((each) => each !== name);
  }
}

test('the tabs that were looked at last read', () => {
  const all = new Tabbed();
  const tabs = Object.fromEntries([...'abcdef'].map((name) => [name, all.open(name)]));
  for (const name of 'abcdef') tabs[name].looks();
  assert.deepEqual(all.reading, ['d', 'e', 'f']);
  tabs.a.looks();
  assert.deepEqual(all.reading, ['e', 'f', 'a']);
  tabs.f.closes();
  tabs.b.looks();
  assert.deepEqual(all.reading, ['e', 'a', 'b']);
});

test('whatever tabs do, no more than the limit read, and the one that is looked at does', () => {
  let seed = 1;
  const random = (below) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  for (let run = 0; run < 200; run += 1) {
    const all = new Tabbed();
    const open = [];
    for (let step = 0; step < 60; step += 1) {
      const number = random(open.length + 1);
      if (number === open.length) open.push([`${run}.${step}`, all.open(`${run}.${step}`)]);
      const what = random(8);
      const [name, tab] = open[number];
      if (what > 1) tab.looks();
      else open.splice(number, 1)[0][1][what ? 'closes' : 'crashes']();
      assert.ok(all.reading.length <= READING_MAX);
      if (what > 1) assert.ok(all.reading.includes(name));
    }
  }
});
