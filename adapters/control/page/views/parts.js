/** Owns small parts that several views have: badges, facts, lists that open, and rows of buttons. */

import { button, element, reconcile, setAttribute, setText, show } from '../elements.js';

/** A short word with a colour of its own. The colour says nothing that the word does not. */
export function badge() {
  const node = element('span', { class: 'badge' });
  return {
    node,
    set(text, kind = '') {
      setText(node, text);
      setAttribute(node, 'data-kind', kind || null);
      show(node, text !== '');
    },
  };
}

/** A list of facts. `set(name, text)` shows one; without a text it is not shown. */
export function facts(...names) {
  const rows = new Map(names.map((name) => [name, factRow(name)]));
  return {
    node: element('dl', { class: 'facts' }, ...[...rows.values()].map((row) => row.node)),
    value: (name) => rows.get(name).value,
    set(name, text) {
      setText(rows.get(name).value, text);
      show(rows.get(name).node, text !== '');
    },
  };
}

function factRow(name) {
  const value = element('dd');
  return { node: element('div', { hidden: true }, element('dt', {}, `${name}: `), value), value };
}

/** Facts that change with time, too: `keep(name, textOf)` looks at it every second, and shows it while it says something. */
export function livingFacts(ticker, ...names) {
  const list = facts(...names);
  const keep = (name, textOf) => {
    ticker.keep(list.value(name), textOf);
    show(list.value(name).parentElement, textOf() !== '');
  };
  return { ...list, keep };
}

/** Something that opens. What it holds is made when it is first opened, and kept up to date while it is open. */
export function opening(className, update) {
  const title = element('span', { class: 'title' });
  const body = element('div', { class: 'body' });
  const node = element('details', { class: className }, element('summary', {}, title), body);
  const refresh = () => node.open && update(body);
  node.addEventListener('toggle', refresh);
  return {
    node,
    set(text) {
      setText(title, text);
      show(node, text !== '');
      refresh();
    },
  };
}

/** A row of buttons, one for each `{name, label}`; `act(name)` is called for the one that is pressed. */
export function buttonRow(act) {
  const node = element('div', { class: 'buttons', role: 'group' });
  const make = ({ name, label }) => ({
    node: button(label, () => act(name), { 'data-action': name }),
    update() {},
  });
  return {
    node,
    set(choices, label) {
      setAttribute(node, 'aria-label', label);
      reconcile(node, choices, ({ name }) => name, make);
      show(node, choices.length > 0);
    },
  };
}

/** A list of lines of text. */
export function textList(className) {
  const node = element('ul', { class: className });
  const make = (text) => ({ node: element('li', {}, text), update() {} });
  return {
    node,
    set(texts) {
      reconcile(node, [...new Set(texts)], (text) => text, make);
      show(node, texts.length > 0);
    },
  };
}
