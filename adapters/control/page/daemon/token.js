/** Owns the bearer token: it is kept for this tab alone, until it is closed. */

const NAME = 'poller.token';
const FORM = /^[!-~]{1,4096}$/;

/** Whether a text can be sent as a token. */
export function isToken(text) {
  return FORM.test(text);
}

export function token() {
  return sessionStorage.getItem(NAME) ?? '';
}

export function keepToken(text) {
  sessionStorage.setItem(NAME, text);
}

export function forgetToken() {
  sessionStorage.removeItem(NAME);
}

/** The headers of a request with the token, if there is one. */
export function credentials() {
  const known = token();
  return known === '' ? {} : { Authorization: `Bearer ${known}` };
}
