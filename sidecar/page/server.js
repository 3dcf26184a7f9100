// Asking the sidecar: with its token where it wants one, and again and again for as long as it is away.

import { find, say } from './element.js';

/** An answer that is none. */
export class Refused extends Error {
  constructor(status, code, reason) {
    super(reason);
    Object.assign(this, { status, code });
  }
}

// The tab's own, so that a reload need not ask again; never a part of an address.
const KEPT = 'sluice-token';
let token = sessionStorage.getItem(KEPT);
let asking = null;

/** Asks for a token, once however many requests want one. */
function askForToken(problem) {
  asking ??= new Promise((resolve) => {
    const dialog = find('token');
    const form = dialog.querySelector('form');
    say(dialog.querySelector('.problem'), problem);
    // Without a token there is nothing to go back to. A browser may close it all the same, so it is shown again.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => asking && !dialog.open && dialog.showModal();
    form.onsubmit = (event) => {
      event.preventDefault();
      token = form.elements.token.value.trim();
      sessionStorage.setItem(KEPT, token);
      form.reset();
      asking = null;
      dialog.close();
      resolve();
    };
    if (!dialog.open) dialog.showModal();
  });
  return asking;
}

/** The answer, whatever its status but that the token was missing. `begin()` is the signal that ends one attempt: no time runs
 *  while a person looks for the token. */
async function send(method, path, { body, begin }) {
  for (;;) {
    const used = token;
    const headers = { accept: 'application/json' };
    if (used) headers.authorization = `Bearer ${encodeHeader(used)}`;
    if (method === 'POST' || method === 'PUT') headers['content-type'] = 'application/json';
    const answer = await fetch(path, {
      method, headers, signal: begin(), body: body && JSON.stringify(body), cache: 'no-store', credentials: 'omit',
    });
    if (answer.status !== 401) return answer;
    if (used === token) await askForToken(used ? 'The sidecar does not know this token.' : '');
  }
}

/** A header has no more than printable ASCII: what else was pasted is wrong, and is said to be so by the sidecar. */
const encodeHeader = (text) => text.replace(/[^\x21-\x7e]/g, '?');

async function refusal(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Refused(answer.status, told.code ?? `status ${answer.status}`, told.reason ?? answer.statusText);
}

/** What is answered in JSON; throws what is refused. */
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await send(method, path, { body, begin: () => AbortSignal.timeout(10_000) });
  } catch {
    throw new Refused(0, 'no_answer', 'the sidecar does not answer; what was asked may have happened or not');
  }
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

/** The path of a bucket, or of what belongs to it. */
export function bucketPath({ domain, policy, key }, what = '') {
  const query = domain === undefined ? '' : `?domain=${encodeURIComponent(domain)}`;
  return `/v1/buckets/${encodeURIComponent(policy)}/${encodeURIComponent(key)}${what}${query}`;
}

/** Each event of a body as it comes: its name and its data. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      let [name, data] = ['message', ''];
      for (const line of block.split('\n')) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        else if (line.startsWith('data:')) data += line.slice(5).trimStart();
      }
      if (data) yield { name, data: JSON.parse(data) };
    }
  }
}

const PAUSES_S = [0.3, 1, 2, 4, 8];
/** An event comes each second, and an answer sooner: after this there is nobody. */
const SILENCE_MS = 5_000;

/**
 * Hears the events of a query until it is told to stop, and begins anew when the stream breaks off.
 * `tell.event(name, data)`, `tell.live()`, `tell.lost(seconds, refused)`.
 */
export function hear(query, tell) {
  let stopped = false;
  let abort = new AbortController();
  let wake = () => {};
  const run = async () => {
    for (let failures = 0; !stopped; failures += 1) {
      let [timer, refused, live] = [0, null, false];
      const wait = () => {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE_MS);
      };
      const begin = () => {
        abort = new AbortController();
        if (stopped) abort.abort();
        wait();
        return abort.signal;
      };
      try {
        const answer = await send('GET', `/v1/events${query}`, { begin });
        if (!answer.ok) throw await refusal(answer);
        for await (const { name, data } of events(answer.body)) {
          if (stopped) break;
          wait();
          if (!live) tell.live();
          [live, failures] = [true, 0];
          // A mistake of ours is no lost connection: the console has it, and the rest of the page goes on.
          try {
            tell.event(name, data);
          } catch (error) {
            reportError(error);
          }
        }
      } catch (error) {
        if (error instanceof Refused) refused = error;
      }
      clearTimeout(timer);
      // Whatever ended it, no connection stays open for it.
      abort.abort();
      if (stopped) return;
      const pause = PAUSES_S[Math.min(failures, PAUSES_S.length - 1)];
      tell.lost(pause, refused);
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, pause * 1_000);
      });
    }
  };
  run();
  return {
    stop() {
      stopped = true;
      abort.abort();
      wake();
    },
  };
}
