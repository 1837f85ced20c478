/** Owns the small charts of the last hour. Each has its newest and highest value in words, which screen readers read. */

import { element, setAttribute, setText, show, svg } from '../elements.js';
import { number, span } from '../words.js';

const POINTS = 240;
const HEIGHT = 40;
const CHARTS = [
  { name: 'lag_ms', label: 'Lag', text: (value) => span(value / 1000) },
  { name: 'records_per_s', label: 'Records/s', text: number },
  { name: 'failures', label: 'Failures', text: number },
  { name: 'pollers', label: 'Pollers', text: number },
];

/** The charts of a mapping; `update(history)` draws those of which something is known. */
export function charts() {
  const drawn = CHARTS.map(chart);
  const node = element('div', { class: 'charts' }, ...drawn.map((each) => each.node));
  let shownHistory = null;
  return {
    node,
    update(history) {
      if (history === shownHistory) return;
      shownHistory = history;
      for (const each of drawn) each.update(history);
    },
  };
}

function chart({ name, label, text }) {
  const line = svg('path', { class: 'line' });
  const attributes = {
    viewBox: `0 0 ${POINTS} ${HEIGHT}`,
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  };
  const caption = element('figcaption');
  const node = element('figure', { hidden: true, 'data-chart': name }, caption, svg('svg', attributes, line));
  const update = (history) => {
    const values = history?.[name] ?? [];
    const known = values.filter((value) => value !== null);
    show(node, known.length > 0);
    if (known.length === 0) return;
    const most = known.reduce((one, other) => Math.max(one, other));
    const newest = values.at(-1);
    setText(caption, `${label}: ${newest === null ? 'not known now' : text(newest)}, at most ${text(most)}`);
    setAttribute(line, 'd', pathOf(values, most));
  };
  return { node, update };
}

/** The line of a chart; the newest value is at the right, and what is not known is a gap. */
export function pathOf(values, most) {
  const first = POINTS - values.length;
  const scale = most > 0 ? (HEIGHT - 2) / most : 0;
  let pen = 'M';
  let path = '';
  values.forEach((value, place) => {
    if (value === null) {
      pen = 'M';
      return;
    }
    path += `${pen}${first + place} ${(HEIGHT - 1 - value * scale).toFixed(1)}`;
    if (pen === 'M') path += 'h0.5';
    pen = 'L';
  });
  return path;
}
