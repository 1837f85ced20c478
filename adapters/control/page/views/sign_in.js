/** Owns the dialog that asks for the token, and the line that says who the caller is. */

import { mayHave, mayOperate } from '../daemon/caller.js';
import { forgetToken, isToken, keepToken, token } from '../daemon/token.js';
import { button, element, setText, showText } from '../elements.js';
import { openModal } from '../operations/modal.js';
import { shown } from '../words.js';

const WHAT =
  'A bearer token of the file that api.tokens_file names. This tab keeps it until it is closed, and sends it to this daemon alone.';
const NO_TOKEN = 'A token is one word of ASCII characters without blanks.';

/** Opens the dialog; `changed()` is called when there is another token, or none any more. */
export function openSignIn(changed, why = '') {
  const input = element('input', {
    id: 'token',
    type: 'password',
    autocomplete: 'off',
    required: true,
    'aria-describedby': 'token-hint',
  });
  const error = element('p', { class: 'error', role: 'alert', hidden: why === '' }, why);
  const finish = () => {
    dialog.close();
    changed();
  };
  const forget = button('Forget the token', () => {
    forgetToken();
    finish();
  });
  const submitted = (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!isToken(text)) return showText(error, NO_TOKEN);
    keepToken(text);
    return finish();
  };
  const field = element(
    'p',
    { class: 'field' },
    element('label', { for: 'token' }, 'Token'),
    input,
    element('small', { id: 'token-hint' }, WHAT),
  );
  const enter = element('button', { type: 'submit', class: 'confirm' }, 'Use it');
  const buttons = [enter, token() ? forget : null, button('Close', () => dialog.close())];
  const form = element(
    'form',
    { on: { submit: submitted } },
    field,
    error,
    element('p', { class: 'buttons' }, ...buttons.filter(Boolean)),
  );
  const dialog = openModal('Who you are', form);
  input.focus();
}

/** Says who the caller is, and why there are no buttons if there are none. */
export function callerLine(node, caller) {
  setText(node, caller ? textOf(caller) : '');
}

function textOf(caller) {
  const who = caller.role ? `${shown(caller.name)}, role ${shown(caller.role)}` : 'without a token';
  if (mayOperate(caller)) return `You are ${who}.`;
  const looks = `You look ${caller.role ? 'as ' : ''}${who}.`;
  if (mayHave(caller, 'operate')) return `${looks} This daemon takes no changes from a page.`;
  return `${looks} To act, enter a token with the role operate or admin.`;
}
