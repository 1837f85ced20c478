/** Owns how operations are shown: those that run with how far they are, and those that ended last with what came of them. */

import { mayOperate } from '../daemon/caller.js';
import { button, element, reconcile, setAttribute, setText, show, showText } from '../elements.js';
import { functionName, joined, moment, number, shown, span } from '../words.js';
import { badge, opening, textList } from './parts.js';

const RESULT_CHARS_MAX = 500;
const OVER = ['done', 'failed', 'cancelled'];

/** Shows a list of operations, or hides the section if there are none. */
export function operationsView(context, section) {
  const list = section.querySelector('ul');
  const make = () => new OperationRow(context);
  return (operations, mappings) => {
    show(section, operations.length > 0);
    const named = operations.map((operation) => withName(operation, mappings));
    reconcile(list, named, ({ operation }) => operation.id, make);
  };
}

/** Known already, by the operation: it is another object when anything of it has changed. */
const NAMED = new WeakMap();

function withName(operation, mappings) {
  const mapping = mappings.get(operation.mapping);
  const name = mapping ? functionName(mapping.facts.function) : shown(operation.mapping);
  const known = NAMED.get(operation);
  if (known?.name === name) return known;
  NAMED.set(operation, { operation, name });
  return NAMED.get(operation);
}

class OperationRow {
  #context;
  #operation = null;
  #title = element('h3');
  #state = badge();
  #when = element('span', { class: 'when' });
  #by = element('span');
  #bar = element('progress');
  #progress = element('p', { class: 'progress-text' });
  #result = element('p', { class: 'result' });
  #lines = textList('plan');
  #plan = opening('list', (body) => body.firstChild ?? body.append(this.#lines.node));
  #cancel = button('Cancel', () => this.#context.act('cancel', { operation: this.#operation }));

  constructor(context) {
    this.#context = context;
    const facts = element('p', { class: 'badges' }, this.#state.node, this.#when, this.#by);
    const parts = [
      this.#title,
      facts,
      this.#bar,
      this.#progress,
      this.#result,
      this.#plan.node,
      this.#cancel,
    ];
    this.node = element('li', { class: 'operation' }, ...parts);
  }

  update({ operation, name }) {
    this.#operation = operation;
    const over = OVER.includes(operation.state);
    setText(this.#title, joined([`${shown(operation.action)} of ${name}`, targetWords(operation)]));
    this.#state.set(stateWord(operation), operation.state);
    this.#context.ticker.keep(this.#when, () => this.#time());
    setText(this.#by, joined([operation.by && `by ${shown(operation.by)}`, shown(operation.reason)], ': '));
    this.#updateProgress(operation, over);
    showText(this.#result, shown(operation.result, RESULT_CHARS_MAX));
    const lines = [...linesOf(operation, 'plan'), ...linesOf(operation, 'waiting')];
    this.#lines.set(lines);
    this.#plan.set(lines.length > 0 ? 'Details' : '');
    show(this.#cancel, !over && mayOperate(this.#context.caller()));
    setAttribute(this.#cancel, 'aria-label', `Cancel the ${shown(operation.action)} of ${name}`);
  }

  #updateProgress(operation, over) {
    const part = over || operation.action === 'pause' ? null : doneOf(operation);
    show(this.#bar, part !== null);
    if (part) {
      setAttribute(this.#bar, 'max', part.of);
      setAttribute(this.#bar, 'value', part.done);
      setAttribute(this.#bar, 'aria-label', `${number(part.done)} of ${number(part.of)} ${part.what}`);
    }
    showText(
      this.#progress,
      joined([part && `${number(part.done)} of ${number(part.of)} ${part.what}`, countsText(operation)]),
    );
  }

  #time() {
    const { created, ended } = this.#operation;
    if (ended !== null) return `ended ${moment(ended)}`;
    return `for ${span(this.#context.clock.now() - created)}`;
  }
}

function stateWord({ action, state }) {
  return action === 'pause' && state === 'running' ? 'in force' : shown(state);
}

function targetWords({ target, members }) {
  const shards = Array.isArray(members.shards) ? members.shards : [];
  return joined([
    target.shard !== null && `shard ${shown(target.shard)}`,
    target.lane !== null && `lane ${shown(target.lane)}`,
    target.group !== null && `message group ${shown(target.group)}`,
    shards.length > 0 &&
      `shards ${shards
        .slice(0, 3)
        .map((each) => shown(each))
        .join(' ')}${shards.length > 3 ? ' …' : ''}`,
    members.dry_run === true && 'dry run',
  ]);
}

/** How much is done of what there is, or null if nobody knows. */
export function doneOf({ progress, wanted, parts }) {
  const { shards } = progress;
  if (progress.moved !== undefined && shards > 0)
    return { done: progress.moved, of: shards, what: 'shards moved' };
  if (progress.ended !== undefined && shards > 0)
    return { done: progress.ended, of: shards, what: 'shards read' };
  if (wanted.length === 0) return null;
  const done = wanted.filter((part) => Object.hasOwn(parts, part) && OVER.includes(parts[part].state)).length;
  return { done, of: wanted.length, what: wanted.length === 1 ? 'part' : 'parts' };
}

const COUNTED_ELSEWHERE = ['moved', 'ended', 'shards', 'at'];

function countsText({ progress }) {
  const counts = Object.entries(progress).filter(
    ([name, count]) => count && !COUNTED_ELSEWHERE.includes(name),
  );
  const at = progress.at ? `at ${moment(progress.at)}` : '';
  return joined([...counts.map(([name, count]) => `${number(count)} ${shown(name)}`), at]);
}

function linesOf({ notes }, name) {
  const found = notes[name];
  return Array.isArray(found) ? found.map((line) => shown(line)) : [];
}
