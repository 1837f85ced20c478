/** Owns the dialog of an action: its fields, the sentence that says what will happen, the reason, the agreement, the answer. */

import { closeBreaker, cancel, disable, enable, rollBack, shiftAlias, submit } from '../daemon/requests.js';
import { button, element, setText, show, showText } from '../elements.js';
import { ACTIONS } from './actions.js';
import { fieldset } from './form.js';
import { openModal } from './modal.js';
import { sentence } from './sentences.js';
import { asNow, describedFully, laneAtFault, mappingNamed, targetMembers } from './targets.js';
import { shown } from '../words.js';

const REASON_CHARS_MAX = 200;
const ID_BYTES = 16;
const CHANGED = 'Another batch is at fault by now. Close this and look again.';

/** How each action is sent that is no operation on a mapping. */
const SENDERS = {
  enable: ({ target }) => enable(target.mapping.id),
  disable: ({ target }) => disable(target.mapping.id),
  cancel: ({ target }) => cancel(target.operation.id),
  close: ({ target, reason }) => closeBreaker(target.function.function, reason),
  shift: ({ target, request }) => shiftAlias(target.alias, request),
  rollback: ({ target, reason }) => rollBack(target.alias, reason),
};

/**
 * Opens the dialog. `context` has the `clock`, `mapping(id)`, which is a mapping as it is now, and `notify(text)`, which gets one
 * line about what was accepted, or was refused when the dialog was closed already.
 * Only one dialog opens at a time.
 */
export function openAction(name, target, context) {
  const request = new ActionRequest(name, target, context);
  request.dialog = openModal(headingOf(name, target), request.form());
  request.dialog.classList.add('action');
}

function headingOf(name, target) {
  const { label } = ACTIONS[name];
  if (target.operation) return `${label} ${shown(target.operation.action)}`;
  if (target.alias) return `${label}: ${shown(target.alias.function)}:${shown(target.alias.name)}`;
  if (target.function) return `${label} of ${shown(target.function.function)}`;
  return `${label}: ${describedFully(target)}`;
}

class ActionRequest {
  dialog = null;
  #name;
  #target;
  #context;
  #action;
  #fields;
  #sent = { content: '', id: '' };
  #what = element('output', { class: 'what' });
  #error = element('p', { class: 'error', role: 'alert', hidden: true });
  #reason = element('input', {
    id: 'reason',
    type: 'text',
    maxlength: REASON_CHARS_MAX,
    autocomplete: 'off',
  });
  #agree = element('input', { id: 'agree', type: 'checkbox' });
  #agreement;
  #confirm;

  constructor(name, target, context) {
    this.#name = name;
    this.#target = target;
    this.#context = context;
    this.#action = ACTIONS[name];
    this.#fields = fieldset(this.#action.fields(target), () => this.#refresh());
    const label = element('label', { for: 'agree' }, 'I know that these records will not be processed');
    this.#agreement = element('p', { class: 'field checkbox agreement' }, this.#agree, label);
    this.#confirm = element('button', { type: 'submit', class: 'confirm' }, this.#action.confirm);
  }

  form() {
    const reason = element(
      'p',
      { class: 'field' },
      element('label', { for: 'reason' }, 'Reason, for others to read'),
      this.#reason,
    );
    show(reason, !this.#action.plain);
    const buttons = element(
      'p',
      { class: 'buttons' },
      this.#confirm,
      button('Close', () => this.dialog.close()),
    );
    const parts = [this.#fields.node, this.#what, reason, this.#agreement, this.#error, buttons];
    this.#refresh();
    return element('form', { on: { submit: (event) => this.#submitted(event) } }, ...parts);
  }

  #members() {
    return this.#action.request(this.#fields.values(), this.#target);
  }

  #refresh() {
    const members = this.#members();
    const loses = this.#action.loses(members);
    setText(this.#what, sentence(this.#name, this.#target, members, this.#context.clock.now()));
    show(this.#agreement, loses);
    this.#agree.required = loses;
  }

  async #submitted(event) {
    event.preventDefault();
    if (this.#confirm.disabled) return;
    this.#confirm.disabled = true;
    showText(this.#error, '');
    try {
      await this.#send();
      this.#context.notify(`Accepted: ${this.#summary()}.`);
      this.dialog.close();
    } catch (error) {
      showText(this.#error, error.message);
      // Somebody may have closed the dialog meanwhile.
      if (!this.dialog.open) this.#context.notify(`Not accepted: ${this.#summary()}: ${error.message}`);
    } finally {
      this.#confirm.disabled = false;
    }
  }

  async #send() {
    const reason = this.#reason.value.trim();
    const sender = SENDERS[this.#name];
    if (sender) {
      const request = this.#identified({ ...this.#members(), ...(reason ? { reason } : {}) });
      return sender({ target: this.#target, reason, request });
    }
    const now = asNow(this.#target, this.#context.mapping(this.#target.mapping.id));
    const chosen =
      this.#name === 'skip' ? agreedRecords(this.#members(), this.#target, now) : this.#members();
    const members = { ...chosen, ...(reason ? { reason } : {}) };
    const shards = this.#name === 'seek' ? {} : targetMembers(this.#target);
    return submit(this.#target.mapping.id, this.#identified({ action: this.#name, ...shards, ...members }));
  }

  /** The same request has the same id, so that one that is sent again after a lost answer is the same operation. */
  #identified(request) {
    const content = JSON.stringify(request);
    if (content !== this.#sent.content) this.#sent = { content, id: freshId() };
    return { ...request, id: this.#sent.id };
  }

  #summary() {
    if (this.#target.mapping)
      return `${this.#action.label.toLowerCase()} of ${mappingNamed(this.#target.mapping)}`;
    return this.#action.confirm.toLowerCase();
  }
}

/**
 * The members of a skip with the records that the dialog names, by their ids: others may be at fault by now. A batch too long to be
 * named is compared with what is at fault now, and then by the worker that skips it; throws if it is another one.
 */
export function agreedRecords(members, target, now) {
  const lane = laneAtFault(target);
  if (!lane || Array.isArray(members.records)) return members;
  const ids = lane.records.map(({ identifier }) => identifier);
  if (members.records === 'first') return { ...members, records: ids.slice(0, 1) };
  if (ids.length === lane.records_count) return { ...members, records: ids };
  const found = laneAtFault(now);
  if (found?.records[0].identifier !== ids[0] || found.records_count !== lane.records_count)
    throw new Error(CHANGED);
  return { ...members, batch_first: ids[0], batch_count: lane.records_count };
}

/** Random, also where the page does not come over TLS and the browser makes no UUIDs. */
function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(ID_BYTES));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
