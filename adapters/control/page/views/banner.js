/** Owns the head of the page: which worker it is, what is the matter in a few words, and how the connection is. */

import { Phase } from '../daemon/updates.js';
import { rankOf } from '../daemon/troubles.js';
import { element, setAttribute, setText, show, showText } from '../elements.js';
import { counted, joined, shown, span } from '../words.js';

const KINDS = ['blocked', 'failing', 'paused'];
const PHASES = {
  [Phase.CONNECTING]: 'Connecting …',
  [Phase.LIVE]: 'Live.',
  [Phase.TOKEN]: 'This daemon shows what runs to those who have a token.',
  [Phase.ASIDE]: 'Other tabs of this browser read instead. This one goes on when you look at it again.',
};
/** Phases in which nothing comes. */
const STILL = [Phase.LOST, Phase.TOKEN, Phase.ASIDE];

/** The banner. Its lines that are read aloud change only when there is something new to say. */
export class Banner {
  #ticker;
  #connection = document.getElementById('connection');
  #age = document.getElementById('age');
  #tryNow = document.getElementById('try-now');
  #phase = Phase.CONNECTING;
  #facts = {};
  #heardAt = null;

  constructor({ ticker, again }) {
    this.#ticker = ticker;
    this.#tryNow.addEventListener('click', again);
    this.#ticker.keep(this.#age, () => this.#ageText());
  }

  /** Something came from the daemon. */
  heard() {
    this.#heardAt = Date.now();
  }

  /** The connection has changed. */
  phase(phase, facts) {
    this.#facts = facts;
    if (phase === Phase.CONNECTING && STILL.includes(this.#phase)) return;
    this.#phase = phase;
    setText(this.#connection, PHASES[phase] ?? `Connection lost: ${facts.why}.`);
    setAttribute(document.documentElement, 'data-phase', phase);
    show(this.#tryNow, phase === Phase.LOST || phase === Phase.ASIDE);
    titled(TITLE.text);
    this.#ticker.keep(this.#age, () => this.#ageText());
  }

  #ageText() {
    if (!STILL.includes(this.#phase)) return '';
    const shownFor =
      this.#heardAt === null ? '' : `What is shown is ${span((Date.now() - this.#heardAt) / 1000)} old.`;
    if (this.#phase !== Phase.LOST) return shownFor;
    const waitS = ((this.#facts.nextTry ?? 0) - Date.now()) / 1000;
    return joined([shownFor, waitS > 0 ? `Next try in ${span(waitS)}.` : 'Trying now …'], ' ');
  }
}

const TITLE = { text: 'poller' };

/** The title of the tab, which says when it is not up to date. */
function titled(text) {
  TITLE.text = text;
  const still = STILL.includes(document.documentElement.dataset.phase);
  document.title = still ? `Not up to date: ${text}` : text;
}

/** Says that the page is not of the version that the daemon has, or cannot show what it sends; once, until it is loaded again. */
export function outdated() {
  const line = document.getElementById('outdated');
  setText(line, 'This page does not fit the daemon any more. Load it again.');
  document.getElementById('reload').hidden = false;
}

/** Shows the worker and the counts of mappings in trouble. */
export function summaryView() {
  const worker = document.getElementById('worker');
  const summary = document.getElementById('summary');
  return ({ status, mappings }) => {
    if (!status) return;
    setText(worker, shown(status.worker));
    const text = summaryText(status, [...mappings.values()]);
    setText(summary, text);
    titled(`${text} – ${shown(status.worker)} – poller`);
  };
}

function summaryText({ ready, alive }, mappings) {
  const counts = KINDS.map((kind, rank) => [kind, mappings.filter((each) => rankOf(each) === rank).length]);
  const troubles = joined(counts.map(([kind, count]) => count > 0 && `${count} ${kind}`));
  const all = counted(mappings.length, 'mapping');
  return joined([
    !alive && 'not alive',
    !ready && 'not ready',
    troubles ? `${troubles} of ${all}` : `${all}, nothing in trouble`,
  ]);
}

/** Shows problems and notes of the daemon. */
export function problemsView(section) {
  const list = section.querySelector('ul');
  return (status) => {
    const lines = status
      ? [...status.problems, ...status.notes.map((note) => `Note: ${note}`)].map((line) => shown(line, 1_000))
      : [];
    show(section, lines.length > 0);
    if (lines.join('\n') === [...list.children].map((child) => child.textContent).join('\n')) return;
    list.replaceChildren(...lines.map((line) => element('li', {}, line)));
  };
}
