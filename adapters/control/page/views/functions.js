/** Owns how functions are shown that have a rate, a circuit breaker or code that is reloaded. */

import { mayOperate } from '../daemon/caller.js';
import { button, element, reconcile, setText, show, showText } from '../elements.js';
import { functionName, joined, moment, number, shown, span } from '../words.js';
import { age } from './shards.js';
import { badge } from './parts.js';

/** Shows the functions, or hides the section if there are none. */
export function functionsView(context, section) {
  const list = section.querySelector('ul');
  const make = () => new FunctionRow(context);
  return (status) => {
    const functions = status?.functions ?? [];
    show(section, functions.length > 0);
    reconcile(
      list,
      functions.map((each) => withBreakers(each, status.worker)),
      (each) => each.function,
      make,
    );
  };
}

/** The answering worker's own breaker stands among those of all, or alone. */
function withBreakers(each, worker) {
  if (each.breakers.length > 0 || each.breaker === null) return each;
  return { ...each, breakers: [{ worker, breaker: each.breaker, age_s: 0, out_of_date: false }] };
}

class FunctionRow {
  #context;
  #function = null;
  #title = element('h3');
  #rate = element('p');
  #code = element('p');
  #refused = element('p', { class: 'error-text' });
  #breakers = element('ul', { class: 'breakers' });
  #close = button('Close breaker', () => this.#context.act('close', { function: this.#function }));

  constructor(context) {
    this.#context = context;
    this.node = element(
      'li',
      { class: 'function' },
      this.#title,
      this.#rate,
      this.#code,
      this.#refused,
      this.#breakers,
      this.#close,
    );
  }

  update(each) {
    this.#function = each;
    setText(this.#title, functionName(each.function));
    showText(this.#rate, rateText(each.rate));
    showText(this.#code, codeText(each.code));
    showText(this.#refused, shown(each.code?.refused ?? ''));
    const open = each.breakers.filter(({ breaker }) => breaker.state !== 'closed');
    const listed = open.length > 0 ? open : each.breakers.slice(0, 1);
    reconcile(
      this.#breakers,
      listed,
      ({ worker }) => worker,
      () => new BreakerRow(this.#context),
    );
    show(this.#close, open.length > 0 && mayOperate(this.#context.caller()));
    this.#close.setAttribute('aria-label', `Close breaker of ${functionName(each.function)}`);
  }
}

class BreakerRow {
  #context;
  #at = null;
  #state = badge();
  #text = element('span');
  #reason = element('p', { class: 'error-text' });

  constructor(context) {
    this.#context = context;
    this.node = element('li', {}, this.#state.node, ' ', this.#text, this.#reason);
  }

  update(at) {
    this.#at = at;
    const closed = at.breaker.state === 'closed';
    this.#state.set(`breaker ${shown(at.breaker.state).replace('_', ' ')}`, closed ? '' : 'blocked');
    this.#context.ticker.keep(this.#text, () => this.#words());
    showText(this.#reason, closed ? '' : shown(at.breaker.reason));
  }

  #words() {
    const { worker, breaker } = this.#at;
    if (breaker.state === 'closed') return '';
    const now = this.#context.clock.now();
    const waitS = breaker.next_try === null ? null : breaker.next_try - now;
    return joined([
      `at ${shown(worker)} for ${span(now - breaker.since)}`,
      `since ${moment(breaker.since)}`,
      waitS !== null && `next try ${waitS > 0 ? `in ${span(waitS)}` : 'now'}`,
      `${number(breaker.failed)} of ${number(breaker.calls)} calls failed`,
      age(this.#at),
    ]);
  }
}

function codeText(code) {
  if (!code) return '';
  return joined([
    `code since ${moment(code.since)}`,
    `changes taken up: ${number(code.taken_up)}`,
    code.refused !== '' && `a change is refused since ${moment(code.refused_since)}`,
  ]);
}

function rateText(rate) {
  if (!rate) return '';
  const { invocations_per_s: calls, records_per_s: records, share, waiting } = rate;
  return joined([
    calls !== null && `${number(calls)} invocations/s`,
    records !== null && `${number(records)} records/s`,
    `${Math.round(share * 100)} % of it here`,
    waiting > 0 && `${number(waiting)} waiting`,
  ]);
}
