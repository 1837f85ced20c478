/**
 * Owns the list of the shards of a mapping. A row opens to show the rest, which is made only then.
 *
 * The browser leaves out rows that are not in view (content-visibility), and an update touches only rows of shards that changed.
 */

import { ACTIONS, actionsFor } from '../operations/actions.js';
import { mayOperate } from '../daemon/caller.js';
import { element, reconcile, setAttribute, setText } from '../elements.js';
import { counted, joined, number, shown, span } from '../words.js';
import { badge, buttonRow, facts, opening, textList } from './parts.js';

const NAME_CHARS_MAX = 128;
const SECOND_MS = 1000;
const OPEN_UP_TO = 12;
/** Shards that need somebody come first, those that are over last. */
const ORDER = [
  'blocked',
  'failing',
  'paused',
  'starting',
  'draining',
  'free',
  'elsewhere',
  'reading',
  'waiting',
  'ended',
];

/** The list; `update(mapping)` shows the shards of a mapping. It is open from the start if it is short. */
export function shardList(context) {
  const rows = element('ul', { class: 'shards' });
  let mapping = null;
  const make = (shard) => new ShardRow(context, () => mapping, shard);
  const list = opening('list', (body) => {
    if (rows.parentNode !== body) body.append(rows);
    reconcile(rows, inOrder(mapping.shards), ({ shard }) => shard, make);
  });
  return {
    node: list.node,
    update(next) {
      if (mapping === null && next.shards.size > 0) list.node.open = next.shards.size <= OPEN_UP_TO;
      mapping = next;
      list.set(title(mapping.shards));
    },
  };
}

function rank(state) {
  return ORDER.includes(state) ? ORDER.indexOf(state) : ORDER.length;
}

function inOrder(shards) {
  const byName = (one, other) => (one.shard < other.shard ? -1 : 1);
  return [...shards.values()].sort((one, other) => rank(one.state) - rank(other.state) || byName(one, other));
}

function title(shards) {
  if (shards.size === 0) return '';
  const counts = new Map();
  for (const { state } of shards.values()) counts.set(state, (counts.get(state) ?? 0) + 1);
  const states = [...counts].sort(([one], [other]) => rank(one) - rank(other));
  const said = states.map(([state, count]) => `${number(count)} ${shown(state)}`);
  return `${counted(shards.size, 'shard')}: ${said.join(', ')}`;
}

class ShardRow {
  #context;
  #mappingOf;
  #shard;
  #state = badge();
  #owner = element('span', { class: 'owner' });
  #behind = element('span', { class: 'behind' });
  #rest = null;
  #details;

  constructor(context, mappingOf, shard) {
    this.#context = context;
    this.#mappingOf = mappingOf;
    this.#shard = shard;
    const name = element('span', { class: 'name' }, shown(shard.shard, NAME_CHARS_MAX));
    const summary = element('summary', {}, name, this.#state.node, this.#owner, this.#behind);
    this.#details = element('details', { on: { toggle: () => this.#opened() } }, summary);
    this.node = element('li', {}, this.#details);
  }

  update(shard) {
    this.#shard = shard;
    this.#state.set(shown(shard.state), shard.state);
    setText(this.#owner, joined([shard.owner && `at ${shown(shard.owner)}`, age(shard)]));
    setText(this.#behind, behind(shard));
    setAttribute(this.node, 'data-state', shown(shard.state));
    if (this.#details.open) this.#opened();
  }

  #opened() {
    if (!this.#details.open) return;
    if (this.#rest === null) {
      this.#rest = new ShardRest((name) => this.#act(name));
      this.#details.append(this.#rest.node);
    }
    this.#rest.update(this.#shard, this.#choices());
  }

  #target() {
    return { mapping: this.#mappingOf(), shard: this.#shard };
  }

  #choices() {
    const names = mayOperate(this.#context.caller()) ? actionsFor(this.#target()) : [];
    return [
      ...names.map((name) => ({ name, label: ACTIONS[name].label })),
      { name: 'records', label: 'Look at records' },
    ];
  }

  #act(name) {
    if (name === 'records') this.#context.showRecords(this.#target());
    else this.#context.act(name, this.#target());
  }
}

/** What a row shows when it is open. */
class ShardRest {
  #facts = facts('Position', 'Reason', 'Losses', 'Paused');
  #lanes = textList('lanes');
  #buttons;

  constructor(act) {
    this.#buttons = buttonRow(act);
    this.node = element('div', { class: 'body' }, this.#facts.node, this.#lanes.node, this.#buttons.node);
  }

  update(shard, choices) {
    this.#facts.set('Position', shown(shard.position));
    this.#facts.set('Reason', shown(shard.reason));
    this.#facts.set('Losses', shard.losses ? number(shard.losses) : '');
    this.#facts.set(
      'Paused',
      shard.paused
        ? joined([shard.paused.by && `by ${shown(shard.paused.by)}`, shown(shard.paused.reason)]) || 'yes'
        : '',
    );
    this.#lanes.set(shard.lanes.map((lane) => `lane ${shown(lane.lane)}: ${shown(lane.state)}`));
    this.#buttons.set(choices, shown(shard.shard, NAME_CHARS_MAX));
  }
}

/** A blocked shard is not shown as up to date, even if it was read to its end. */
function behind({ behind_ms: ms, state }) {
  if (ms === null || (state === 'blocked' && ms < SECOND_MS)) return '';
  return `${span(ms / SECOND_MS)} behind`;
}

/** Says of news that is out of date that it is. How old it is stands with its worker. */
export function age({ age_s: ageS, out_of_date: old }) {
  if (!old) return '';
  return ageS === null ? 'out of date: nothing was heard' : 'out of date';
}
