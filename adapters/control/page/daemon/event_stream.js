/** Owns how the text of an event stream becomes events (server-sent events, as the HTML standard has them). */

/** The longest event that is read: more than the status of a daemon with 100,000 shards. */
export const EVENT_CHARS_MAX = 128 * 1024 * 1024;

export class EventStreamReader {
  #line = [];
  #chars = 0;
  #name = '';
  #data = [];

  /** Reads a piece of text, and yields `{name, data}` for each event that it ends. Throws if an event is too long. */
  *feed(text) {
    const lines = text.split('\n');
    const rest = lines.pop();
    for (const line of lines) {
      this.#keep(line);
      const event = this.#ended(this.#line.join('').replace(/\r$/, ''));
      this.#line = [];
      if (event) yield event;
    }
    this.#keep(rest);
  }

  #keep(text) {
    this.#chars += text.length;
    if (this.#chars > EVENT_CHARS_MAX) throw new Error('an event is too long');
    if (text !== '') this.#line.push(text);
  }

  /** A line has ended; returns the event if this was the empty line behind one. */
  #ended(line) {
    if (line === '') return this.#event();
    const [field] = line.split(':', 1);
    const value = line.slice(field.length + 1).replace(/^ /, '');
    if (field === 'event') this.#name = value;
    if (field === 'data') this.#data.push(value);
    return null;
  }

  #event() {
    const event = this.#data.length > 0 ? { name: this.#name, data: this.#data.join('\n') } : null;
    this.#name = '';
    this.#data = [];
    this.#chars = 0;
    return event;
  }
}
