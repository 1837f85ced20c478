/** Owns the texts that change with time alone, such as "blocked for 4 min". All of them are looked at once a second. */

import { setText } from './elements.js';

const EVERY_MS = 1_000;

/** The daemon's time, as far as this browser knows it: the clocks of two machines may be far apart. */
export class DaemonClock {
  #aheadS = 0;

  /** The daemon has just said what time it is; no number if it did not. The browser's own clock may be set meanwhile. */
  heard(epoch) {
    if (Number.isFinite(epoch)) this.#aheadS = epoch - Date.now() / 1000;
  }

  /** Seconds since 1970 at the daemon. */
  now() {
    return Date.now() / 1000 + this.#aheadS;
  }
}

export class Ticker {
  #texts = new Map();

  start() {
    setInterval(() => this.#tick(), EVERY_MS);
  }

  /** Keeps the text of `node` at what `textOf()` returns, for as long as the node is in the document. */
  keep(node, textOf) {
    this.#texts.set(node, textOf);
    setText(node, textOf());
  }

  #tick() {
    for (const [node, textOf] of this.#texts) {
      if (node.isConnected) setText(node, textOf());
      else this.#texts.delete(node);
    }
  }
}
