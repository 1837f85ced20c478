/** Owns the list of mappings, and how one is shown: what is the matter with it first, then its charts, shards or groups. */

import { ACTIONS, actionsFor } from '../operations/actions.js';
import { mayChange, mayOperate } from '../daemon/caller.js';
import { inOrder, rankOf, troublesOf } from '../daemon/troubles.js';
import { element, reconcile, setAttribute, setText, show, showText } from '../elements.js';
import { counted, functionName, joined, number, shown, sourceName } from '../words.js';
import { charts } from './charts.js';
import { badge, buttonRow, opening, textList } from './parts.js';
import { age, shardList } from './shards.js';
import { troubleView } from './trouble.js';

const TROUBLES_MAX = 50;
const KINDS = ['blocked', 'failing', 'paused', 'well'];

/** Shows the mappings whose names have the text `wanted` in them. */
export function mappingsView(context, section) {
  const list = section.querySelector('ul');
  const empty = section.querySelector('.empty');
  const find = section.querySelector('.find');
  const note = section.querySelector('.footnote');
  const make = () => new MappingView(context);
  return (state, wanted) => {
    const all = [...state.mappings.values()];
    const found = wanted ? all.filter((mapping) => hasName(mapping, wanted)) : all;
    show(find, all.length > 1);
    showText(empty, emptyText(state, all, found));
    showText(note, figuresNote(state, all));
    reconcile(list, inOrder(found), ({ id }) => id, make);
  };
}

function hasName({ id, facts }, wanted) {
  const text = wanted.toLowerCase();
  return [id, facts.function, facts.source_arn].some((name) => name.toLowerCase().includes(text));
}

function emptyText({ status }, all, found) {
  if (found.length > 0 || !status) return '';
  if (all.length > 0) return 'No mapping has this in its names.';
  return status.complete ? 'There are no mappings.' : 'The mappings are not known yet.';
}

function figuresNote({ status }, all) {
  if (!all.some(({ history }) => history)) return '';
  return `The charts show the last hour at worker ${shown(status.worker)}, which answers.`;
}

class MappingView {
  #context;
  #mapping = null;
  #title = element('h3');
  #state = badge();
  #trouble = badge();
  #pollers = element('span');
  #id = element('code', { class: 'id' });
  #reason = element('p', { class: 'reason' });
  #result = element('p', { class: 'result' });
  #troubles = element('ul', { class: 'troubles' });
  #leftOut = element('p', { class: 'left-out' });
  #buttons = buttonRow((name) => this.#context.act(name, { mapping: this.#mapping }));
  #charts = charts();
  #shards;
  #laneLines = textList('lanes');
  #lanes = opening('list', (body) => {
    if (!body.firstChild) body.append(this.#laneLines.node);
    this.#laneLines.set(this.#mapping.lanes.map(laneLine));
  });
  #workerLines = textList('workers');
  #workers = opening('list', (body) => {
    if (!body.firstChild) body.append(this.#workerLines.node);
    this.#workerLines.set(this.#mapping.facts.workers.map(workerLine));
  });
  #makeTrouble;

  constructor(context) {
    this.#context = context;
    this.#shards = shardList(context);
    this.#makeTrouble = troubleView(context, () => this.#mapping);
    const badges = element(
      'p',
      { class: 'badges' },
      this.#state.node,
      this.#trouble.node,
      this.#pollers,
      this.#id,
    );
    const lists = [this.#shards.node, this.#lanes.node, this.#workers.node];
    const top = [this.#title, badges, this.#reason, this.#troubles, this.#leftOut, this.#result];
    this.node = element('li', { class: 'mapping' }, ...top, this.#buttons.node, this.#charts.node, ...lists);
  }

  update(mapping) {
    this.#mapping = mapping;
    const { facts } = mapping;
    const kind = KINDS[rankOf(mapping)];
    setAttribute(this.node, 'data-kind', kind);
    setText(this.#title, `${functionName(facts.function)} ← ${sourceName(facts.source_arn)}`);
    this.#state.set(shown(facts.state), facts.state === 'Broken' ? 'failing' : '');
    this.#trouble.set(kind === 'well' ? '' : kind, kind);
    setText(this.#pollers, facts.pollers === null ? '' : counted(facts.pollers, 'poller'));
    setText(this.#id, shown(mapping.id));
    showText(this.#reason, shown(facts.reason));
    showText(this.#result, facts.last_result ? `Last result: ${shown(facts.last_result)}` : '');
    this.#updateTroubles(troublesOf(mapping));
    this.#buttons.set(this.#choices(), functionName(facts.function));
    this.#charts.update(mapping.history);
    this.#shards.update(mapping);
    this.#lanes.set(
      mapping.lanes.length > 0 ? `Groups, messages and pollers: ${number(mapping.lanes.length)}` : '',
    );
    this.#workers.set(facts.workers.length > 0 ? `On ${counted(facts.workers.length, 'worker')}` : '');
  }

  #updateTroubles(troubles) {
    reconcile(this.#troubles, troubles.slice(0, TROUBLES_MAX), ({ key }) => key, this.#makeTrouble);
    show(this.#troubles, troubles.length > 0);
    const more = troubles.length - TROUBLES_MAX;
    showText(this.#leftOut, more > 0 ? `and ${number(more)} more, which are in the list below` : '');
  }

  #choices() {
    const caller = this.#context.caller();
    if (!mayOperate(caller)) return [];
    const names = actionsFor({ mapping: this.#mapping }, { admin: mayChange(caller) });
    return names.map((name) => ({ name, label: ACTIONS[name].label }));
  }
}

function laneLine({ lane, state, worker, attempts }) {
  return joined([
    `${shown(lane)}: ${shown(state)}`,
    worker && `at ${shown(worker)}`,
    attempts > 0 && counted(attempts, 'attempt'),
  ]);
}

function workerLine(each) {
  return joined([
    `${shown(each.worker)}: ${shown(each.state)}`,
    shown(each.reason),
    each.pollers !== null && counted(each.pollers, 'poller'),
    each.blocked > 0 && `${number(each.blocked)} blocked`,
    each.left_out > 0 && `${number(each.left_out)} in trouble not shown here: ask it`,
    age(each),
    shown(each.last_result),
  ]);
}
