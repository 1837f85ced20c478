/**
 * Owns how values become words: durations, moments, numbers, and texts from outside.
 *
 * Texts from outside are hostile. What has no shape of its own, or changes how its neighbours look, is shown as its code.
 */

const TEXT_CHARS_MAX = 300;
const MARKS_MAX = 4;
const LENGTHS = [
  ['d', 86_400],
  ['h', 3_600],
  ['min', 60],
];
/** Letters and marks without a shape, such as U+3164. A variation selector has none either, but behind a picture it is a part of it. */
const SHAPELESS =
  '(?<!\\p{Extended_Pictographic})\\p{Variation_Selector}|(?!\\p{Variation_Selector})\\p{DI}|\\u2800';
const UNSEEN = new RegExp(`[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Co}\\p{Cn}\\p{Zl}\\p{Zp}]|${SHAPELESS}`, 'gu');
const UNSEEN_IN_LINES = new RegExp(
  `[\\p{Cf}\\p{Cs}\\p{Co}\\p{Cn}\\p{Zl}\\p{Zp}]|(?![\\n\\t])\\p{Cc}|${SHAPELESS}`,
  'gu',
);
const MARKS = new RegExp(`(\\p{M}{${MARKS_MAX}})\\p{M}+`, 'gu');

/** A text from outside on one line, at most `charsMax` long. */
export function shown(text, charsMax = TEXT_CHARS_MAX) {
  return cut(String(text ?? ''), charsMax)
    .replace(UNSEEN, codeOf)
    .replace(MARKS, '$1…');
}

/** A text from outside with its lines and tabulators. */
export function shownLines(text, charsMax) {
  return cut(String(text ?? ''), charsMax)
    .replace(UNSEEN_IN_LINES, codeOf)
    .replace(MARKS, '$1…');
}

/** A character of two code units is not cut in two. */
function cut(text, charsMax) {
  return text.length > charsMax ? `${text.slice(0, charsMax).replace(/[\ud800-\udbff]$/, '')}…` : text;
}

function codeOf(character) {
  return `\\u{${character.codePointAt(0).toString(16)}}`;
}

/** A duration in short form: 0.4 s, 12 s, 5 min, 3 h, 2 d. */
export function span(seconds) {
  const known = Math.max(0, seconds);
  for (const [unit, length] of LENGTHS) {
    if (known >= length) return `${Math.round(known / length)} ${unit}`;
  }
  return known >= 1 ? `${Math.round(known)} s` : `${known.toFixed(1)} s`;
}

/** A moment (seconds since 1970) as ISO text in UTC. One outside the calendar is shown as a number of seconds. */
export function moment(epoch) {
  const date = new Date(epoch * 1000);
  return Number.isNaN(date.getTime()) ? String(epoch) : `${date.toISOString().slice(0, 19)}Z`;
}

/** A number as people read it: 12, 3.4, 1,200,000. */
export function number(value) {
  const digits = Math.abs(value) < 10 ? 1 : 0;
  return value.toLocaleString('en', { maximumFractionDigits: digits });
}

/** A count with its word: `1 shard`, `2 shards`. */
export function counted(count, word) {
  return `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
}

/** The parts of a text that say something, with `separator` between them. */
export function joined(parts, separator = ', ') {
  return parts.filter(Boolean).join(separator);
}

/** A source by what people call it: `kinesis stream/orders`. What is no ARN stays as it is. */
export function sourceName(arn) {
  const [prefix, , service, , , ...rest] = arn.split(':');
  return shown(prefix === 'arn' && rest.length > 0 ? `${service} ${rest.join(':')}` : arn);
}

/** A function by its name, with its qualifier; what is no ARN of a function stays as it is. */
export function functionName(name) {
  const parts = name.split(':');
  return shown(parts[0] === 'arn' && parts[5] === 'function' ? parts.slice(6).join(':') : name);
}
