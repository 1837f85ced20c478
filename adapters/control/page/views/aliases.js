/** Owns how aliases of functions are shown: which version gets how many of the calls, and the shift that runs or ran last. */

import { mayOperate } from '../daemon/caller.js';
import { ACTIONS } from '../operations/actions.js';
import { element, reconcile, setText, show, showText } from '../elements.js';
import { joined, moment, number, shown } from '../words.js';
import { badge, buttonRow } from './parts.js';

const KINDS = { before: 'paused', shifting: 'failing', after: 'failing', rolled_back: 'blocked' };
const STATES = {
  before: 'waits for the function before',
  shifting: 'shifting',
  after: 'waits for the function after',
  done: 'done',
  rolled_back: 'rolled back',
};
const ENDED = ['done', 'rolled_back'];

/** Shows the aliases, or hides the section if there are none. */
export function aliasesView(context, section) {
  const list = section.querySelector('ul');
  const make = () => new AliasRow(context);
  return (aliases) => {
    show(section, aliases.length > 0);
    reconcile(list, aliases, (each) => each.arn, make);
  };
}

/** Whether a shift of the alias runs. */
export function isShifting(alias) {
  return alias.shift !== null && !ENDED.includes(alias.shift.state);
}

class AliasRow {
  #context;
  #alias = null;
  #title = element('h3');
  #shares = element('p');
  #state = badge();
  #shift = element('span');
  #reason = element('p', { class: 'error-text' });
  #calls = element('p');
  #buttons = buttonRow((name) => this.#context.act(name, { alias: this.#alias }));

  constructor(context) {
    this.#context = context;
    const shift = element('p', {}, this.#state.node, ' ', this.#shift);
    const parts = [this.#title, this.#shares, shift, this.#reason, this.#calls, this.#buttons.node];
    this.node = element('li', { class: 'function' }, ...parts);
  }

  update(alias) {
    this.#alias = alias;
    const { shift } = alias;
    const name = aliasName(alias);
    setText(this.#title, name);
    setText(this.#shares, joined([shares(alias), alias.from_file && 'of the configuration file']));
    this.#state.set(shift ? (STATES[shift.state] ?? shown(shift.state)) : '', KINDS[shift?.state] ?? '');
    setText(this.#shift, shift ? shiftText(shift) : '');
    showText(this.#reason, shown(shift?.ended_because ?? ''));
    showText(this.#calls, isShifting(alias) ? callsText(alias) : '');
    const names = mayOperate(this.#context.caller()) ? [isShifting(alias) ? 'rollback' : 'shift'] : [];
    this.#buttons.set(
      names.map((each) => ({ name: each, label: ACTIONS[each].label })),
      name,
    );
  }
}

/** An alias by what people call it: `orders:live`. */
export function aliasName({ function: of, name }) {
  return `${shown(of)}:${shown(name)}`;
}

/** Which version gets how many of the calls. */
export function shares({ version, weights }) {
  const others = Object.entries(weights).filter(([, weight]) => weight > 0);
  if (others.length === 0) return `version ${shown(version)}`;
  const rest = 1 - others.reduce((sum, [, weight]) => sum + weight, 0);
  return [[version, rest], ...others]
    .map(([each, share]) => `version ${shown(each)} ${number(Math.round(share * 1000) / 10)} %`)
    .join(', ');
}

function shiftText(shift) {
  return joined([
    `shift from version ${shown(shift.old)} to ${shown(shift.new)}`,
    shown(shift.strategy.name),
    `since ${moment(shift.began ?? shift.accepted)}`,
    shift.ended !== null && `ended ${moment(shift.ended)}`,
    shift.by && `by ${shown(shift.by)}`,
    shown(shift.reason),
  ]);
}

function callsText({ calls }) {
  const counts = Object.entries(calls).map(
    ([version, [all, failed]]) =>
      `version ${shown(version)}: ${number(failed)} of ${number(all)} calls failed here`,
  );
  return joined(counts);
}
