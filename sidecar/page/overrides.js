// The overrides in force, and their removal.

import { find, make, say, showKey, visible } from './element.js';
import { ask, bucketPath } from './server.js';
import { Rows } from './tables.js';
import { count, lasting, override } from './words.js';

const AGAIN_MS = 2_000;
const ROWS = 100;

export class Overrides {
  constructor(open) {
    this.note = find('overrides-note');
    this.askedAt = -Infinity;
    this.all = [];
    this.rows = new Rows('overrides', () => {
      const key = make('button', { type: 'button', class: 'open' }, make('span', { class: 'key' }), make('span', { class: 'note' }));
      const remove = make('button', { type: 'button', class: 'small', text: 'Remove' });
      const row = make('tr', {}, make('th', { scope: 'row' }, key), make('td'), make('td', { class: 'words' }), make('td'), make('td', {}, remove));
      key.addEventListener('click', () => open(row.of));
      remove.addEventListener('click', () => this.remove(row.of, remove));
      return row;
    });
  }

  /** Asks again where there may be others, and counts down. `told` is how many there are, where that is known. */
  look(told, nowUs) {
    this.nowUs = nowUs;
    const [at, changed] = [performance.now(), told !== undefined && told !== this.all.length];
    if (changed || (told !== 0 && at - this.askedAt >= AGAIN_MS)) this.ask();
    this.show();
  }

  async ask() {
    this.askedAt = performance.now();
    try {
      this.all = (await ask('GET', '/v1/overrides')).overrides;
      if (this.failed) say(this.note, '');
      this.failed = false;
    } catch (error) {
      this.failed = true;
      say(this.note, `${error.code}: ${error.message}`);
    }
    this.show();
  }

  show() {
    say(find('overrides-count'), count(this.all.length));
    this.rows.show(this.all.slice(0, ROWS), (row, of) => {
      row.of = of;
      const [key, note] = row.cells[0].firstChild.children;
      showKey(key, of.key);
      if (key.parentElement.title !== visible(of.key)) key.parentElement.title = visible(of.key);
      say(note, visible(of.policy));
      const [, instead, reason, ends, remove] = row.cells;
      say(instead, override(of));
      say(reason, visible(of.reason || '–'));
      reason.title = reason.textContent;
      say(ends, of.expires_at_us ? lasting((of.expires_at_us - this.nowUs) / 1e6) : 'never');
      remove.firstChild.ariaLabel = `Remove the override of ${visible(of.key)}`;
    });
    if (!this.failed && this.all.length > ROWS) say(this.note, `${count(this.all.length - ROWS)} more; ask GET /v1/overrides for all`);
  }

  async remove(of, button) {
    button.disabled = true;
    try {
      await ask('DELETE', bucketPath(of, '/override'));
      say(this.note, `Removed that of ${visible(of.key).slice(0, 60)}`);
    } catch (error) {
      say(this.note, `${error.code}: ${error.message}`);
    }
    button.disabled = false;
    await this.ask();
  }
}
