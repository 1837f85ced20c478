/**
 * Owns the connection to `/v1/updates`, which says what runs and what changes.
 *
 * The stream of a fetch is read, since an EventSource sends no token. A connection that is lost is tried again after a time that
 * grows and has jitter, so that the readers of a daemon that comes back do not all come at once.
 */

import { EventStreamReader } from './event_stream.js';
import { credentials } from './token.js';

const PATH = '/v1/updates';
const SILENCE_MS_MAX = 25_000;
const DELAY_S_MIN = 0.5;
const DELAY_S_MAX = 30;
const UNAUTHORIZED = 401;

/**
 * How the connection is. `token`: it needs a token, or another one, and nothing is tried without it. `aside`: other tabs read, and
 * this one does when it is asked to.
 */
export const Phase = Object.freeze({
  CONNECTING: 'connecting',
  LIVE: 'live',
  LOST: 'lost',
  TOKEN: 'token',
  ASIDE: 'aside',
});

/** Seconds until the next try, after so many failures in a row. */
export function delayS(failures, random) {
  const most = Math.min(DELAY_S_MAX, DELAY_S_MIN * 2 ** failures);
  return most / 2 + (random() * most) / 2;
}

/** The daemon did not give what was asked for. */
class NotServed extends Error {
  constructor(response) {
    super(`the daemon answers with the status ${response.status}`);
    this.status = response.status;
    this.waitS = waitS(response);
  }
}

function waitS(response) {
  if (response.status === 503 || response.status === 429)
    return Number(response.headers.get('Retry-After')) || 0;
  return response.status >= 500 ? 0 : DELAY_S_MAX;
}

export class Updates {
  #onEvent;
  #onDate;
  #onPhase;
  #onBegin;
  #random;
  #failures = 0;
  #hurried = false;
  #aside = false;
  #reading = null;
  #wake = () => {};

  /**
   * `onEvent(name, value)` gets each event, and `onDate(epoch)` the time of the daemon when it answers.
   * `onPhase(phase, facts)` hears how the connection is; `facts` has `why` and `nextTry` (milliseconds, as Date.now has
   * them) of one that was lost. `onBegin()` is called when the page begins to read, and again when somebody wants it to.
   */
  constructor({ onEvent, onDate, onPhase, onBegin = () => {}, random = Math.random }) {
    this.#onEvent = onEvent;
    this.#onDate = onDate;
    this.#onPhase = onPhase;
    this.#onBegin = onBegin;
    this.#random = random;
  }

  /** Reads until the page is left. */
  async run() {
    this.#onBegin();
    for (;;) {
      const waitMs = await this.#connection();
      await this.#waited(waitMs);
    }
  }

  /** Ends the present connection or wait, and connects at once: there is another token, or somebody wants to. */
  again() {
    this.#aside = false;
    this.#onBegin();
    this.#failures = 0;
    this.#hurried = true;
    this.#reading?.abort();
    this.#wake();
  }

  /** Ends the present connection or wait, and reads nothing until `again` or `lookedAt`. */
  standAside() {
    this.#aside = true;
    this.#reading?.abort();
    this.#wake();
  }

  /** Somebody looks at the page. */
  lookedAt() {
    if (this.#aside) this.again();
  }

  /** One connection until its end; returns after how many milliseconds the next one is tried. */
  async #connection() {
    if (this.#aside) return this.#waitsFor(Phase.ASIDE);
    this.#onPhase(Phase.CONNECTING, {});
    this.#hurried = false;
    this.#reading = new AbortController();
    const asked = this.#reading;
    try {
      await this.#read(asked);
      return this.#lost('the daemon has ended the connection', 0);
    } catch (error) {
      if (this.#hurried || this.#aside) return 0;
      if (error.status === UNAUTHORIZED) return this.#waitsFor(Phase.TOKEN);
      return this.#lost(
        error instanceof NotServed ? error.message : 'the daemon does not answer',
        error.waitS ?? 0,
      );
    } finally {
      asked.abort();
    }
  }

  /** Nothing is tried until somebody does something. */
  #waitsFor(phase) {
    this.#onPhase(phase, {});
    return Infinity;
  }

  #lost(why, atLeastS) {
    const waitMs = 1000 * Math.max(atLeastS, delayS(this.#failures, this.#random));
    this.#failures += 1;
    this.#onPhase(Phase.LOST, { why, nextTry: Date.now() + waitMs });
    return waitMs;
  }

  async #read(asked) {
    const watch = new Watch(() => asked.abort());
    try {
      const headers = { ...credentials(), Accept: 'text/event-stream' };
      const response = await fetch(PATH, {
        headers,
        cache: 'no-store',
        redirect: 'error',
        signal: asked.signal,
      });
      if (!response.ok) throw new NotServed(response);
      this.#onDate(Date.parse(response.headers.get('Date')) / 1000);
      const events = new EventStreamReader();
      for await (const text of pieces(response)) {
        watch.heard();
        for (const event of events.feed(text)) this.#take(event);
      }
    } finally {
      watch.end();
    }
  }

  #take(event) {
    this.#onEvent(event.name, JSON.parse(event.data));
    if (event.name === 'status') {
      this.#failures = 0;
      this.#onPhase(Phase.LIVE, {});
    }
  }

  #waited(waitMs) {
    return new Promise((resolve) => {
      const timer = Number.isFinite(waitMs) ? setTimeout(resolve, waitMs) : null;
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** Calls `silent` when nothing was heard for too long. A connection may be gone without anybody saying so. */
class Watch {
  #silent;
  #timer;

  constructor(silent) {
    this.#silent = silent;
    this.heard();
  }

  heard() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#silent, SILENCE_MS_MAX);
  }

  end() {
    clearTimeout(this.#timer);
  }
}
