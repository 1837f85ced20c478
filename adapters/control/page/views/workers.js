/** Owns how workers are shown, and who holds what. */

import { element, reconcile, setText, show, showText } from '../elements.js';
import { counted, functionName, joined, shown, sourceName, span } from '../words.js';
import { badge, opening, textList } from './parts.js';

const KINDS = { silent: 'failing', dead: 'blocked', leaving: 'paused' };

/** Shows the workers, or hides the section if none is known. */
export function workersView(_context, section) {
  const list = section.querySelector('ul');
  return ({ status, mappings }) => {
    const workers = status?.workers ?? [];
    show(section, workers.length > 0);
    const held = holdings(mappings);
    const items = workers.map((worker) => ({ worker, held: held.get(worker.worker) ?? [] }));
    reconcile(
      list,
      items,
      ({ worker }) => worker.worker,
      () => new WorkerRow(),
    );
  };
}

/** What each worker has: for each mapping its shards, or its pollers. */
function holdings(mappings) {
  const held = new Map();
  const add = (worker, mapping, what) => {
    const line = `${functionName(mapping.facts.function)} ← ${sourceName(mapping.facts.source_arn)}: ${what}`;
    if (!held.has(worker)) held.set(worker, []);
    held.get(worker).push(line);
  };
  for (const mapping of mappings.values()) {
    for (const [owner, count] of owners(mapping)) add(owner, mapping, counted(count, 'shard'));
    for (const { worker, pollers } of mapping.facts.workers) {
      if (pollers !== null) add(worker, mapping, counted(pollers, 'poller'));
    }
  }
  return held;
}

function owners({ shards }) {
  const counts = new Map();
  for (const { owner, state } of shards.values()) {
    if (owner && state !== 'ended') counts.set(owner, (counts.get(owner) ?? 0) + 1);
  }
  return counts;
}

class WorkerRow {
  #title = element('h3');
  #state = badge();
  #heard = element('span');
  #note = element('p');
  #texts = [];
  #lines = textList('held');
  #held = opening('list', (body) => {
    if (!body.firstChild) body.append(this.#lines.node);
    this.#lines.set(this.#texts);
  });

  constructor() {
    const facts = element('p', { class: 'badges' }, this.#state.node, this.#heard);
    this.node = element('li', { class: 'worker' }, this.#title, facts, this.#note, this.#held.node);
  }

  update({ worker, held }) {
    setText(this.#title, shown(worker.worker));
    this.#state.set(shown(worker.state), KINDS[worker.state] ?? '');
    setText(
      this.#heard,
      joined([worker.age_s === null ? 'never heard' : worker.age_s > 0 && `heard ${span(worker.age_s)} ago`]),
    );
    showText(this.#note, shown(worker.note));
    this.#texts = held;
    this.#held.set(held.length > 0 ? `Holds parts of ${counted(held.length, 'mapping')}` : '');
  }
}
