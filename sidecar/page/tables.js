// The tables of policies and of keys.

import { fill, find, make, mark, say, showKey, visible } from './element.js';
import { swatch } from './charts.js';
import { latency, limit, rate } from './words.js';

/** Rows that are made once and filled anew: nothing on the page moves when the numbers change. */
class Rows {
  constructor(id, make) {
    this.table = find(id);
    this.body = this.table.tBodies[0];
    this.empty = this.table.parentElement.querySelector('.empty');
    this.make = make;
  }

  show(items, set) {
    while (this.body.rows.length < items.length) this.body.append(this.make());
    [...this.body.rows].forEach((row, index) => {
      row.hidden = index >= items.length;
      if (!row.hidden) set(row, items[index]);
    });
    this.empty.hidden = items.length > 0;
  }
}

/** What a policy is known by. */
export const idOf = ({ domain, policy }) => JSON.stringify([domain, policy]);

const cells = (row) => row.cells;

/** All policies, the busiest first. */
export class Policies {
  constructor(charts) {
    this.charts = charts;
    this.rows = new Rows('policies', () => make('tr', {},
      make('th', { scope: 'row' }, swatch(), make('span', { class: 'name' }), make('span', { class: 'note' })),
      make('td'), make('td'), make('td')));
  }

  show(policies, busy) {
    const shown = [...policies].sort((one, other) => busy(other).decisions - busy(one).decisions || (one.policy < other.policy ? -1 : 1));
    const domains = new Set(policies.map(({ domain }) => domain));
    this.rows.show(shown.slice(0, 200), (row, policy) => {
      const [mark_, name, note] = row.cells[0].children;
      const { decisions, denied } = busy(policy);
      mark(mark_, 'data-line', this.charts.colour(idOf(policy)) || 8);
      const called = visible(policy.policy);
      say(name, called);
      name.title = called;
      const limits = policy.limits.map(limit).join(' or ') || 'limit not known yet';
      say(note, domains.size > 1 ? `${visible(policy.domain)} · ${limits}` : limits);
      note.title = note.textContent;
      const [, decided, refused, p99] = cells(row);
      say(decided, rate(decisions));
      say(refused, rate(denied));
      mark(refused, 'data-much', denied > 0);
      say(p99, latency(policy.latency_us?.count ? policy.latency_us.p99 : undefined));
    });
  }
}

const ROWS = 10;

/** How long the keys keep their places after somebody last moved among them. */
const HELD_MS = 4_000;

/** The keys that had most of something. While somebody moves among them they keep their places. */
export class Keys {
  constructor(id, by, open) {
    this.by = by;
    this.shown = [];
    this.rows = new Rows(id, () => {
      const button = make('button', { type: 'button', class: 'open' }, make('span', { class: 'key' }), make('span', { class: 'note' }));
      const row = make('tr', {}, make('th', { scope: 'row' }, button, make('span', { class: 'bar', ariaHidden: 'true' })), make('td'), make('td'));
      row.addEventListener('click', () => open(row.of));
      return row;
    });
    this.note = this.rows.table.closest('.card').querySelector('[data-note]');
    this.usual = this.note.textContent;
    this.movedAt = -Infinity;
    for (const what of ['pointermove', 'pointerdown', 'keydown', 'keyup']) {
      this.rows.body.addEventListener(what, () => {
        this.movedAt = performance.now();
      });
    }
  }

  /** Whether somebody is about to choose one: a mouse that rests there, and focus that was left there, do not. */
  get held() {
    return performance.now() - this.movedAt < HELD_MS && this.rows.body.matches(':hover, :focus-within');
  }

  /** `seconds` is how long was counted. */
  show(keys, seconds) {
    const next = keys.slice(0, ROWS);
    const held = this.held && this.shown.length > 0;
    say(this.note, held ? 'held while you choose' : this.usual);
    if (held) {
      const now = new Map(keys.map((of) => [JSON.stringify([of.domain, of.policy, of.key]), of]));
      this.shown = this.shown.map((of) => now.get(JSON.stringify([of.domain, of.policy, of.key])) ?? { ...of, requests: 0, denied: 0 });
    } else {
      this.shown = next;
    }
    const most = Math.max(1, ...this.shown.map((of) => of[this.by]));
    this.rows.show(this.shown, (row, of) => {
      row.of = of;
      const [button, bar] = row.cells[0].children;
      const [key, note] = button.children;
      showKey(key, of.key);
      if (button.title !== visible(of.key)) button.title = visible(of.key);
      say(note, visible(of.policy));
      fill(bar, of[this.by] / most);
      const [, requests, denied] = cells(row);
      say(requests, rate(of.requests / seconds || 0));
      say(denied, rate(of.denied / seconds || 0));
      mark(denied, 'data-much', of.denied > 0);
    });
  }
}

export { Rows };
