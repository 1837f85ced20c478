/** Owns how the asynchronous calls of functions are shown that are not over, or whose destinations do not have them yet. */

import { element, reconcile, setText, show, showText } from '../elements.js';
import { counted, functionName, joined, number, shown, span } from '../words.js';
import { badge } from './parts.js';

/** Shows the functions with such calls, the longest waiting first, or hides the section if there are none. */
export function callsView(context, section) {
  const list = section.querySelector('ul');
  const make = () => new CallsRow(context);
  return (status) => {
    const calls = [...(status?.calls ?? [])].sort((one, other) => one.oldest - other.oldest);
    show(section, calls.length > 0);
    reconcile(list, calls, (each) => each.function, make);
  };
}

class CallsRow {
  #context;
  #calls = null;
  #title = element('h3');
  #state = badge();
  #counts = element('span');
  #error = element('p', { class: 'error-text' });

  constructor(context) {
    this.#context = context;
    const line = element('p', {}, this.#state.node, ' ', this.#counts);
    this.node = element('li', { class: 'function' }, this.#title, line, this.#error);
  }

  update(calls) {
    this.#calls = calls;
    setText(this.#title, functionName(calls.function));
    this.#state.set(calls.last_error === '' ? '' : 'failing', 'failing');
    this.#context.ticker.keep(this.#counts, () => this.#words());
    showText(this.#error, shown(calls.last_error));
  }

  #words() {
    const { calls, seen, waiting, running, undelivered, oldest } = this.#calls;
    return joined([
      counted(calls, 'call'),
      waiting > 0 && `waiting: ${number(waiting)}`,
      running > 0 && `running: ${number(running)}`,
      undelivered > 0 && `over and not delivered: ${number(undelivered)}`,
      seen > 0 && seen < calls && `of the first ${number(seen)}`,
      `the oldest for ${span(this.#context.clock.now() - oldest)}`,
    ]);
  }
}
