/**
 * Owns which tabs of this browser read updates. Each that reads keeps a connection, and a browser makes six at most to one server
 * (with HTTP/1.1), for loading pages and asking for operations too. So the tabs that somebody looked at last read, and others stand aside.
 */

const CHANNEL = 'poller.updates';
/** Tabs that read at once. */
export const READING_MAX = 3;

export class Tabs {
  #aside;
  #channel;
  #id = Math.random();
  #reading = false;
  /** Tabs that have begun since this one did. */
  #later = new Set();

  /** `aside()` is called when enough other tabs have begun to read since this one. */
  constructor(aside, channel = new BroadcastChannel(CHANNEL)) {
    this.#aside = aside;
    this.#channel = channel;
    channel.onmessage = ({ data }) => this.#heard(data);
  }

  /** This tab begins to read, or goes on as the one that somebody looks at. */
  begin() {
    this.#later.clear();
    this.#reading = true;
    this.#channel.postMessage({ id: this.#id, reads: true });
  }

  /** This tab is left. */
  end() {
    this.#reading = false;
    this.#channel.postMessage({ id: this.#id, reads: false });
  }

  #heard({ id, reads }) {
    if (reads) this.#later.add(id);
    else this.#later.delete(id);
    if (!this.#reading || this.#later.size < READING_MAX) return;
    this.#reading = false;
    this.#aside();
  }
}
