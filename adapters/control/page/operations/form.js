/** Owns the fields of a dialog: how they are made from their descriptions, and how their values are read. */

import { element, show } from '../elements.js';

let made = 0;

/** Makes the fields. Returns `{node, values()}`; `changed()` is called when somebody changes a value. */
export function fieldset(descriptions, changed) {
  const fields = descriptions.map(makeField);
  const values = () => Object.fromEntries(fields.map(({ name, read }) => [name, read()]));
  const refresh = () => {
    const now = values();
    for (const field of fields) field.showFor(now);
    changed();
  };
  const node = element(
    'div',
    { class: 'fields', on: { input: refresh } },
    ...fields.map((field) => field.node),
  );
  for (const field of fields) field.showFor(values());
  return { node, values };
}

function makeField(description) {
  const id = `field-${(made += 1)}`;
  const control = makeControl(description, id);
  const hint = description.hint ? element('small', { id: `${id}-hint` }, description.hint) : null;
  const label = element('label', { for: id }, description.label);
  const parts = description.type === 'checkbox' ? [control, label] : [label, control];
  const node = element('p', { class: `field ${description.type}` }, ...parts, hint);
  const showFor = (values) => {
    const wanted = description.when ? description.when(values) : true;
    show(node, wanted);
    control.required = wanted && Boolean(description.required || description.when);
  };
  return { name: description.name, node, showFor, read: () => readValue(description.type, control) };
}

function makeControl({ name, type, options = [], hint, min, value }, id) {
  const common = { id, name, 'aria-describedby': hint ? `${id}-hint` : null };
  if (type === 'choice') {
    return element(
      'select',
      common,
      ...options.map(([word, text]) => element('option', { value: word, selected: word === value }, text)),
    );
  }
  if (type === 'lines') return element('textarea', { ...common, rows: 3, spellcheck: 'false' });
  if (type === 'checkbox') return element('input', { ...common, type, checked: Boolean(value) });
  const bounds =
    type === 'number' ? { min: min === 'any' ? '0' : min, step: min === 'any' ? 'any' : '1' } : {};
  return element('input', { ...common, type, autocomplete: 'off', spellcheck: 'false', value, ...bounds });
}

function readValue(type, control) {
  if (type === 'checkbox') return control.checked;
  if (type === 'lines') return control.value.split(/[\s,]+/).filter(Boolean);
  const text = control.value.trim();
  return type === 'number' && text !== '' ? Number(text) : text;
}
