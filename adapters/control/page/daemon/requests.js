/** Owns the requests that read records or change something. Each throws Refused, with what the daemon said, or Unanswered. */

import { shown } from '../words.js';
import { credentials } from './token.js';

const ANSWER_MS_MAX = 20_000;
const MESSAGE_CHARS_MAX = 2_000;

/** The daemon said no. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** No answer came. Whether the daemon did what was asked is not known. */
export class Unanswered extends Error {}

/** Asks for an operation. With an `id` in the request it may be sent again: the same request is the same operation. */
export function submit(mapping, request) {
  return ask('POST', `/v1/mappings/${encodeURIComponent(mapping)}/operations`, request);
}

export function cancel(operation) {
  return ask('DELETE', `/v1/operations/${encodeURIComponent(operation)}`);
}

export function enable(mapping) {
  return ask('POST', `/v1/mappings/${encodeURIComponent(mapping)}/enable`);
}

export function disable(mapping) {
  return ask('POST', `/v1/mappings/${encodeURIComponent(mapping)}/disable`);
}

export function closeBreaker(name, reason) {
  return ask('POST', `/v1/functions/${encodeURIComponent(name)}/breaker/close`, { reason });
}

/** Begins to shift an alias. With an `id` in the request it may be sent again: the same request is the same shift. */
export function shiftAlias({ function: of, name }, request) {
  return ask('POST', `${aliasPath(of, name)}/shifts`, request);
}

/** Sends all calls of an alias to the old version. */
export function rollBack({ function: of, name }, reason) {
  return ask('POST', `${aliasPath(of, name)}/rollback`, { reason });
}

function aliasPath(of, name) {
  return `/v1/functions/${encodeURIComponent(of)}/aliases/${encodeURIComponent(name)}`;
}

/** Records of a shard; `parameters` are those of the query. */
export function records(mapping, parameters) {
  return ask('GET', `/v1/mappings/${encodeURIComponent(mapping)}/records?${new URLSearchParams(parameters)}`);
}

async function ask(method, path, body) {
  const headers = { ...credentials(), ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) };
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    answer = await response.json();
  } catch {
    if (!response || response.ok)
      throw new Unanswered('The daemon does not answer. Look whether it was done before you ask again.');
  }
  if (!response.ok) throw new Refused(response.status, messageOf(response, answer));
  return answer;
}

function messageOf(response, answer) {
  const said =
    typeof answer?.message === 'string' ? answer.message : `the answer has the status ${response.status}`;
  return shown(said, MESSAGE_CHARS_MAX);
}
