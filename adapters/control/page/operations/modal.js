/** Owns modal dialogs: each is made when it opens and is gone when it closes, and the focus goes back to where it was. */

import { element } from '../elements.js';

const HOME = 'mappings-heading';
let made = 0;

/** Opens a dialog with a heading and these children; returns the dialog. */
export function openModal(heading, ...children) {
  const opener = document.activeElement;
  const id = `dialog-${(made += 1)}`;
  const title = element('h2', { id, tabindex: '-1' }, heading);
  const dialog = element('dialog', { 'aria-labelledby': id }, title, ...children);
  dialog.addEventListener('close', () => {
    dialog.remove();
    returnTo(opener);
  });
  document.body.append(dialog);
  dialog.showModal();
  title.focus();
  return dialog;
}

/** What opened the dialog may be gone meanwhile: then the focus goes to the list of mappings, not to nowhere. */
function returnTo(opener) {
  const usable = opener?.isConnected && opener !== document.body && opener.checkVisibility();
  (usable ? opener : document.getElementById(HOME))?.focus();
}
