/**
 * Owns how elements are made and changed. Texts are only ever set as text, and nothing is written that is there already.
 */

const SVG = 'http://www.w3.org/2000/svg';

const FOCUSABLE = 'button:enabled, summary, input, select, textarea, a[href], [tabindex]';

/** The views that `reconcile` made, by the element that holds them. */
const HELD = new WeakMap();

/**
 * Makes an element. Attributes that are null, undefined or false are left out; `on` has listeners by event.
 * Children are elements or texts; null is passed over.
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Makes an element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A button with a text. */
export function button(text, act, attributes = {}) {
  return element('button', { type: 'button', on: { click: act }, ...attributes }, text);
}

/** Sets the text of an element that holds nothing else. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or removes an attribute. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Shows or hides an element. */
export function show(node, visible) {
  if (visible) setAttribute(node, 'hidden', false);
  else keepingFocus(node, () => setAttribute(node, 'hidden', true));
}

/** Shows an element with this text, or hides it if there is none. */
export function showText(node, text) {
  setText(node, text);
  show(node, text !== '');
}

/**
 * Makes the children of `parent` show `items`, in their order.
 *
 * `make(item)` returns a view: `{node, update(item)}`. A view lives as long as an item has its key. It is only asked to update
 * when its item is another object than before, so items that are the same cost nothing.
 */
export function reconcile(parent, items, keyOf, make) {
  const before = HELD.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const held = before.get(key) ?? { view: make(item), item: null };
    if (held.item !== item) held.view.update(item);
    after.set(key, { view: held.view, item });
  }
  HELD.set(parent, after);
  keepingFocus(parent, () => {
    arrange(parent, after);
    for (const [key, held] of before) {
      if (!after.has(key)) held.view.node.remove();
    }
  });
}

function arrange(parent, held) {
  let next = parent.firstElementChild;
  for (const { view } of held.values()) {
    if (next !== null && next.nextElementSibling === view.node) {
      // What stands here goes further down. It waits at the end for its turn, so that the others need not move.
      parent.append(next);
      next = view.node;
    }
    if (view.node === next) next = next.nextElementSibling;
    else parent.insertBefore(view.node, next);
  }
}

/**
 * Changes `within` so that the focus stays there. What is moved, removed or hidden loses it, and the keyboard would be at the top
 * of the page. What is gone hands it over to what stands in its place, or near it.
 */
function keepingFocus(within, change) {
  const focused = document.activeElement;
  if (focused === null || !within.contains(focused)) return change();
  const places = placesOf(focused);
  change();
  if (!usable(focused)) return successor(places)?.focus();
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** Where an element is: in each element around it, from the nearest on, the number of the child that it is in. */
function placesOf(node) {
  const places = [];
  for (let child = node; child.parentElement; child = child.parentElement) {
    places.push({ parent: child.parentElement, number: [...child.parentElement.children].indexOf(child) });
  }
  return places;
}

function successor(places) {
  for (const { parent, number } of places) {
    const there = parent.children[Math.min(number, parent.children.length - 1)];
    const found = [...(there ? focusable(there) : []), ...focusable(parent)].find(usable);
    if (found) return found;
  }
  return null;
}

function focusable(node) {
  const inside = node.querySelectorAll(FOCUSABLE);
  return node.matches(FOCUSABLE) ? [node, ...inside] : [...inside];
}

function usable(node) {
  return node.isConnected && node.checkVisibility();
}

/** Makes the next `reconcile` of `parent` make all of its views again. */
export function forgetViews(parent) {
  HELD.delete(parent);
  parent.replaceChildren();
}
