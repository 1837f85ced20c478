/** Owns the dialog that shows records of a shard. Nothing moves by it. */

import { records } from '../daemon/requests.js';
import { button, element, setText, show, showText } from '../elements.js';
import { openModal } from '../operations/modal.js';
import { describedFully } from '../operations/targets.js';
import { joined, moment, number, shown, shownLines } from '../words.js';

const PAYLOAD_CHARS_MAX = 20_000;
const PLACES = [
  ['', 'the batch at fault, or where the mapping goes on'],
  ['position', 'where the mapping goes on'],
  ['TRIM_HORIZON', 'the oldest record'],
];

/** Opens the dialog for the shard of a target. */
export function openRecords(target) {
  const list = new RecordList(target);
  const dialog = openModal(
    `Records: ${describedFully({ mapping: target.mapping, shard: target.shard })}`,
    list.node,
  );
  dialog.classList.add('wide');
  list.node.append(
    element(
      'p',
      { class: 'buttons' },
      button('Close', () => dialog.close()),
    ),
  );
  list.read();
}

class RecordList {
  #target;
  #next = '';
  /** What was asked last. An answer to something else is not shown. */
  #asked = null;
  #note = element('p', { role: 'status' });
  #error = element('p', { class: 'error', role: 'alert', hidden: true });
  #list = element('ol', { class: 'peeked' });
  #more = button('More', () => this.read(this.#next), { hidden: true });
  #from;

  constructor(target) {
    this.#target = target;
    const options = PLACES.map(([value, text]) => element('option', { value }, text));
    this.#from = element('select', { id: 'from', on: { change: () => this.#again() } }, ...options);
    const from = element('p', { class: 'field' }, element('label', { for: 'from' }, 'From'), this.#from);
    this.node = element('div', {}, from, this.#note, this.#error, this.#list, this.#more);
  }

  #again() {
    this.#list.replaceChildren();
    this.#next = '';
    return this.read();
  }

  /** Shows the records from a place on, behind those that are there. */
  async read(from = this.#from.value) {
    showText(this.#error, '');
    const asked = (this.#asked = {});
    show(this.#more, false);
    const parameters = { shard: this.#target.shard.shard, limit: '10', ...(from ? { from } : {}) };
    try {
      const answer = await records(this.#target.mapping.id, parameters);
      if (asked === this.#asked) this.#show(answer);
    } catch (error) {
      if (asked !== this.#asked) return;
      showText(this.#error, error.message);
      show(this.#more, this.#next !== '');
    }
  }

  #show(answer) {
    this.#next = answer.next;
    this.#list.append(...answer.records.map((record) => recordItem(record, answer.fault)));
    const none = this.#list.childElementCount === 0 ? 'There are no records from here on.' : '';
    setText(
      this.#note,
      joined([none, ...answer.notes.map((note) => shown(note)), shown(answer.missing)], ' '),
    );
    show(this.#more, answer.next !== '' && answer.records.length > 0);
  }
}

function recordItem(record, fault) {
  const title = joined([
    shown(record.sequence_number),
    fault?.first === record.sequence_number && 'the first at fault',
  ]);
  const line = joined([
    record.key && `key ${shown(record.key)}`,
    moment(record.arrived),
    `${number(record.size_bytes)} bytes`,
    `lane ${record.lane}`,
    shown(record.verdict),
    shown(record.event_name),
  ]);
  const reasons = record.reasons.map((reason) => element('p', { class: 'reason' }, shown(reason)));
  return element(
    'li',
    {},
    element('h3', {}, title),
    element('p', {}, line),
    ...reasons,
    ...payloadsOf(record),
  );
}

function payloadsOf({ payload, user_records: packed, keys, new_image: after, old_image: before }) {
  const named = [
    ['Payload', payload],
    ['Item key', keys],
    ['New image', after],
    ['Old image', before],
    ...packed.map((each) => [`Packed record, key ${shown(each.key)}`, each.payload]),
  ];
  return named.filter(([, found]) => found !== null).map(([name, found]) => payloadBlock(name, found));
}

function payloadBlock(name, { text, form, cut, gzip }) {
  const how = joined([name, form !== 'json' && shown(form), gzip && 'unpacked', cut && 'only its beginning']);
  return element(
    'div',
    { class: 'payload' },
    element('p', {}, how),
    element('pre', {}, shownLines(text, PAYLOAD_CHARS_MAX)),
  );
}
