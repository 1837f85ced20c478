/** Owns the bearer token: it is kept for this tab alone, until it is closed. */

const NAME = 'poller.token';
const FORM = /^[!-~]{1,4096}$/;
/** The token where the browser keeps nothing for pages: it is then known until the page is loaded again. */
let unkept = '';

/** Whether a text can be sent as a token. */
export function isToken(text) {
  return FORM.test(text);
}

export function token() {
  return stored((storage) => storage.getItem(NAME)) ?? unkept;
}

export function keepToken(text) {
  unkept = text;
  stored((storage) => storage.setItem(NAME, text));
}

export function forgetToken() {
  unkept = '';
  stored((storage) => storage.removeItem(NAME));
}

/** A browser that blocks cookies throws at the mere name of the storage, and a full one when something is kept. */
function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}

/** The headers of a request with the token, if there is one. */
export function credentials() {
  const known = token();
  return known === '' ? {} : { Authorization: `Bearer ${known}` };
}
