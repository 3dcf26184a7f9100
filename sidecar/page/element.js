// Putting values on the page. Whatever comes from outside is set as text and never as markup.

/** The element with this id. */
export const find = (id) => document.getElementById(id);

/** A new element: `text`, `class` and other properties, and what is in it. */
export function make(tag, { text, class: names, ...properties } = {}, ...children) {
  const element = document.createElement(tag);
  if (names) element.className = names;
  if (text !== undefined) element.textContent = text;
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/** Sets a text where it is another: what stays the same is not announced and not laid out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute where it is another. */
export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** How much of a bar is filled, from 0 to 1. It moves nothing else. */
export function fill(bar, part) {
  const scale = `scaleX(${Math.min(1, Math.max(0, part || 0)).toFixed(4)})`;
  if (bar.style.transform !== scale) bar.style.transform = scale;
}

// What a reader would not see, or would see in another place than where it is: controls, marks of direction, spaces
// without width, and spaces that look like others.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;

const WRITTEN = { '\0': '\\0', '\t': '\\t', '\n': '\\n', '\r': '\\r' };
const seen = (character) => WRITTEN[character] ?? `\\u{${character.codePointAt(0).toString(16)}}`;

/** A key as one line in which everything is to be seen. */
export const visible = (key) => (key === '' ? '(empty)' : key.replace(UNSEEN, seen));

/** Letters that are written from right to left: they belong together. */
const LEFTWARD = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
/** What of a key is shown however little room there is: keys differ at their ends. */
const TAIL = 8;

/** Text in which what is not to be seen by itself is set apart from the same characters written out. */
function parts(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > from) parts.push(text.slice(from, match.index));
    parts.push(make('span', { class: 'unprintable', text: seen(match[0]) }));
    from = match.index + match[0].length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

/** Shows a key; in one line it is cut in its middle where it is too long. */
export function showKey(element, key, inOneLine = true) {
  if (element.shownKey === key) return;
  element.shownKey = key;
  const tail = [...key.slice(-2 * TAIL)].slice(-TAIL).join('');
  const cut = inOneLine && key.length > 2 * TAIL && !LEFTWARD.test(key) && tail.search(UNSEEN) < 0;
  if (key === '') element.replaceChildren(make('span', { class: 'unprintable', text: '(empty)' }));
  else if (!cut) element.replaceChildren(...parts(key));
  else {
    const head = make('span', { class: 'head' }, ...parts(key.slice(0, key.length - tail.length)));
    element.replaceChildren(head, make('span', { class: 'tail', text: tail }));
  }
  element.classList.toggle('cut', cut);
}
