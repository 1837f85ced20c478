/**
 * Owns what is known of the daemon. Each event makes the next state.
 *
 * Whatever an event does not change stays the same object, so that views see by identity what they need not look at.
 */

const POINTS_MAX = 240;
/** Members of the status that a change replaces whole. */
const WHOLE = ['ready', 'alive', 'complete', 'problems', 'notes', 'functions', 'calls', 'workers'];

/**
 * A mapping as the views take it: its status without shards and lanes in `facts`, and these beside it.
 *
 * @typedef {{id: string, facts: object, shards: Map<string, object>, lanes: object[], history: object | null}} Mapping
 */

/** The state before anything was heard. */
export function nothingKnown() {
  return { caller: null, status: null, mappings: new Map(), open: [], ended: [], aliases: [], stepS: 15 };
}

/** The state after an event. Events that are not known change nothing. */
export function after(state, name, value) {
  const read = Object.hasOwn(READERS, name) ? READERS[name] : null;
  return read ? read(state, value) : state;
}

const READERS = {
  caller: (state, caller) => ({ ...state, caller }),
  status: withStatus,
  changed: withChanges,
  operations: (state, { open, ended }) => ({ ...state, open, ended }),
  aliases: withAliases,
  history: withHistory,
  point: withPoint,
};

function withStatus(state, { mappings, ...status }) {
  const found = mappings.map(({ shards, lanes, ...facts }) => ({
    id: facts.mapping,
    facts,
    shards: byShard(shards),
    lanes,
    history: state.mappings.get(facts.mapping)?.history ?? null,
  }));
  return { ...state, status, mappings: new Map(found.map((each) => [each.id, each])) };
}

/** An alias that is as before stays the same object. */
function withAliases(state, aliases) {
  const before = new Map(state.aliases.map((each) => [each.arn, each]));
  const same = (each) => JSON.stringify(before.get(each.arn)) === JSON.stringify(each);
  return { ...state, aliases: aliases.map((each) => (same(each) ? before.get(each.arn) : each)) };
}

function byShard(shards) {
  return new Map(shards.map((each) => [each.shard, each]));
}

function withChanges(state, changes) {
  const replaced = WHOLE.filter((name) => (changes[name] ?? null) !== null).map((name) => [
    name,
    changes[name],
  ]);
  const status = replaced.length > 0 ? { ...state.status, ...Object.fromEntries(replaced) } : state.status;
  const mappings = new Map(state.mappings);
  for (const { shards: _shards, lanes: _lanes, ...facts } of changes.mappings ?? []) {
    change(mappings, facts.mapping, () => ({ facts }));
  }
  for (const [id, shards] of Object.entries(changes.shards ?? {})) {
    change(mappings, id, (before) => ({ shards: new Map([...before.shards, ...byShard(shards)]) }));
  }
  for (const [id, lanes] of Object.entries(changes.lanes ?? {})) change(mappings, id, () => ({ lanes }));
  return { ...state, status, mappings };
}

/** Replaces members of a mapping; one that is not known is passed over. */
function change(mappings, id, membersOf) {
  const before = mappings.get(id);
  if (before) mappings.set(id, { ...before, ...membersOf(before) });
}

function withHistory(state, { step_s: stepS, mappings: histories }) {
  const mappings = new Map(state.mappings);
  for (const id of mappings.keys()) change(mappings, id, () => ({ history: histories[id] ?? null }));
  return { ...state, stepS, mappings };
}

/** A mapping that a point does not name has no history any more. */
function withPoint(state, { mappings: points }) {
  const mappings = new Map(state.mappings);
  for (const id of mappings.keys()) {
    change(mappings, id, ({ history }) => ({
      history: points[id] ? longer(history ?? {}, points[id]) : null,
    }));
  }
  return { ...state, mappings };
}

/** A history with one more point; the oldest goes. */
function longer(history, point) {
  const names = new Set([...Object.keys(history), ...Object.keys(point)]);
  const series = [...names].map((name) => {
    const values = [...(history[name] ?? []), point[name] ?? null];
    return [name, values.slice(-POINTS_MAX)];
  });
  return Object.fromEntries(series);
}
