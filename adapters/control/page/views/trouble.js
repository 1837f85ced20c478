/** Owns how one trouble is shown: what is blocked, fails or is paused, since when and why, what comes next, and what helps. */

import { actionsFor, ACTIONS } from '../operations/actions.js';
import { described, targetOf } from '../operations/targets.js';
import { mayOperate } from '../daemon/caller.js';
import { element, setAttribute, setText, showText } from '../elements.js';
import { joined, moment, shown, shownLines, span } from '../words.js';
import { buttonRow, livingFacts, opening, textList } from './parts.js';

const KEY_CHARS_MAX = 256;
const STACK_CHARS_MAX = 8_000;
const HOW = { blocked: 'is blocked', failing: 'fails', paused: 'is paused' };

/** Makes views of troubles. `mappingOf()` is the mapping as it is now. */
export function troubleView(context, mappingOf) {
  return (first) => new TroubleView(context, mappingOf, first);
}

class TroubleView {
  #context;
  #mappingOf;
  #trouble;
  #title = element('h4');
  #error = element('p', { class: 'error-text' });
  #facts;
  #records = textList('records');
  #allRecords = opening('more', (body) => body.firstChild ?? body.append(this.#records.node));
  #stackText = element('pre');
  #stack = opening('more', (body) => body.firstChild ?? body.append(this.#stackText));
  #buttons = buttonRow((name) => this.#act(name));

  constructor(context, mappingOf, trouble) {
    this.#context = context;
    this.#mappingOf = mappingOf;
    this.#trouble = trouble;
    const names = [
      'For',
      'Reason',
      'By',
      'Attempts',
      'Next try',
      'Record',
      'Key',
      'Arrived',
      'Removed by the source',
      'Worker',
    ];
    this.#facts = livingFacts(context.ticker, ...names);
    const parts = [
      this.#title,
      this.#error,
      this.#facts.node,
      this.#allRecords.node,
      this.#stack.node,
      this.#buttons.node,
    ];
    this.node = element('li', { class: 'trouble' }, ...parts);
  }

  update(trouble) {
    this.#trouble = trouble;
    const target = this.#target();
    setAttribute(this.node, 'data-kind', trouble.kind);
    setText(this.#title, `${capital(described(target))} ${HOW[trouble.kind]}`);
    showText(
      this.#error,
      trouble.kind === 'paused' ? '' : shown(trouble.lane?.last_error ?? trouble.shard?.reason ?? ''),
    );
    this.#updateFacts(trouble);
    this.#updateDetails(trouble.kind === 'paused' ? null : trouble.lane);
    this.#buttons.set(mayOperate(this.#context.caller()) ? this.#choices(target) : [], described(target));
  }

  #target() {
    const { shard, lane } = this.#trouble;
    return targetOf(this.#mappingOf(), { shard, lane });
  }

  #updateFacts({ kind, shard, lane, pause }) {
    const facts = this.#facts;
    facts.keep('For', () => this.#since());
    facts.set('Reason', shown(pause?.reason));
    facts.set('By', shown(pause?.by));
    facts.set('Worker', shown(lane?.worker || shard?.owner));
    const failing = kind === 'paused' ? null : lane;
    facts.set('Attempts', failing ? attempts(failing) : '');
    facts.keep('Next try', () => this.#nextTry());
    const first = failing?.records[0];
    facts.set('Record', first ? recordName(first, failing) : '');
    facts.set('Key', shown(first?.key, KEY_CHARS_MAX));
    facts.keep('Arrived', () => (this.#first() ? this.#ago(this.#first().arrived) : ''));
    facts.keep('Removed by the source', () => this.#expiry());
  }

  #failing() {
    return this.#trouble.kind === 'paused' ? null : this.#trouble.lane;
  }

  #first() {
    return this.#failing()?.records[0];
  }

  #since() {
    const { since } = this.#trouble;
    return since === null ? '' : `${span(this.#context.clock.now() - since)}, since ${moment(since)}`;
  }

  #ago(epoch) {
    return `${span(this.#context.clock.now() - epoch)} ago, ${moment(epoch)}`;
  }

  #nextTry() {
    const lane = this.#failing();
    if (!lane || lane.next_try === null) return '';
    const waitS = lane.next_try - this.#context.clock.now();
    const last = lane.attempts_max !== null && lane.attempts >= lane.attempts_max;
    return joined([waitS > 0 ? `in ${span(waitS)}` : 'now', last && 'to the dead-letter queue']);
  }

  #expiry() {
    const until = this.#failing()?.retained_until ?? null;
    if (until === null) return '';
    const leftS = until - this.#context.clock.now();
    return joined([leftS > 0 ? `in ${span(leftS)}` : 'now', moment(until)]);
  }

  #updateDetails(lane) {
    const records = lane?.records ?? [];
    const more = (lane?.records_count ?? 0) - records.length;
    const lines = records.map(({ identifier, key, arrived }) =>
      joined([shown(identifier), key && `key ${shown(key)}`, moment(arrived)]),
    );
    this.#records.set(more > 0 ? [...lines, `and ${more} more`] : lines);
    this.#allRecords.set(records.length > 1 ? 'Records at fault' : '');
    const error = lane?.error;
    setText(
      this.#stackText,
      error
        ? shownLines(
            [`${error.errorType}: ${error.errorMessage}`, ...error.stackTrace].join('\n'),
            STACK_CHARS_MAX,
          )
        : '',
    );
    this.#stack.set(error ? 'What the function said' : '');
  }

  #choices(target) {
    const { kind } = this.#trouble;
    const names = actionsFor(target).filter((name) => kind !== 'paused' || name === 'resume');
    const choices = names.map((name) => ({ name, label: ACTIONS[name].label }));
    const looks = kind !== 'paused' && target.shard;
    return looks ? [...choices, { name: 'records', label: 'Look at records' }] : choices;
  }

  #act(name) {
    const target = this.#target();
    if (name === 'records') this.#context.showRecords(target);
    else this.#context.act(name, target);
  }
}

function attempts(lane) {
  return lane.attempts_max === null
    ? String(lane.attempts)
    : `receive ${lane.attempts} of ${lane.attempts_max}`;
}

function recordName(record, lane) {
  const of = lane.records_count > 1 ? ` (the first of ${lane.records_count})` : '';
  return shown(record.identifier) + of;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
