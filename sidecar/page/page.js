// The page: hears what happens, and shows it.

import { Bucket } from './bucket.js';
import { Charts } from './charts.js';
import { find, mark, say, visible } from './element.js';
import { Find } from './find.js';
import { Overrides } from './overrides.js';
import { hear } from './server.js';
import { Keys, Policies, idOf } from './tables.js';
import { count, lasting, latency, percent, rate } from './words.js';

/** What is leased is decided by the filters themselves, for the most part one request with each token. */
const decided = (of) => of.allowed + denials(of) + of.failed + of.leased_tokens;
/** What operators blocked is denied, too, and so is what the filters denied by themselves and told of later. */
const denials = (of) => of.denied + of.repeats + of.blocked;
/** What is counted of the last ten seconds, as rates: of nine to ten of them, and of less after a start. */
const lately = (of, seconds) => ({ decisions: decided(of) / seconds, denied: denials(of) / seconds });

const KINDS = { memory: 'its own memory', redis: 'Redis', 'redis-cluster': 'Redis Cluster' };

const charts = new Charts();
const policies = new Policies(charts);
const bucket = new Bucket((of) => listen(of));
const open = (of) => bucket.open({ domain: of.domain, policy: of.policy, key: of.key });
const tables = { requests: new Keys('hottest', 'requests', open), denied: new Keys('most-denied', 'denied', open) };
const overrides = new Overrides(open);
const finder = new Find(open);

const tell = {
  stats(stats) {
    showStore(stats.store);
    const [of, seconds] = [stats.last_10s, Math.max(1, stats.covers_us) / 1e6];
    const [all, denied] = [decided(of), denials(of)];
    say(find('decisions'), rate(all / seconds));
    const leased = of.leased_tokens > 0 ? `, ${percent(of.leased_tokens, all)} on lease` : '';
    say(find('decisions-note'), `over the last 10 s${leased}`);
    say(find('denied'), rate(denied / seconds));
    say(find('denied-note'), `${percent(denied, all)} of all`);
    say(find('failed'), rate(of.failed / seconds));
    say(find('failed-note'), `${percent(of.failed, all)} of all`);
    mark(find('failed').parentElement, 'data-much', of.failed > 0);
    for (const name of ['take', 'redis']) {
      // Where there is no Redis, nothing is told of it.
      const took = stats.latency_us[name];
      say(find(`${name}-p50`), latency(took?.count ? took.p50 : undefined));
      say(find(`${name}-p99`), latency(took?.count ? took.p99 : undefined));
    }
    say(find('connections'), count(stats.connections.open));
    say(find('uptime'), lasting(stats.uptime_s));
    say(find('version'), stats.version);
    charts.add(stats.now_us, stats.policies.map((policy) => ({
      id: idOf(policy), name: visible(policy.policy), decisions: decided(policy.totals), denied: denials(policy.totals),
    })));
    policies.show(stats.policies, (policy) => lately(policy.last_10s, seconds));
    finder.know(stats.policies);
    overrides.look(stats.overrides?.count, stats.now_us);
  },
  top(top) {
    for (const [by, table] of Object.entries(tables)) table.show(top[by], top.covers_us / 1e6);
  },
  bucket: (of) => bucket.show(of),
  bucket_refused: (refusal) => bucket.refuse(refusal),
};

function showStore({ kind, ready, reason }) {
  const [place, name] = [find('store'), KINDS[kind] ?? kind];
  mark(place, 'data-state', ready ? 'good' : 'bad');
  say(place.querySelector('.words'), ready ? `Decides in ${name}` : `${name[0].toUpperCase()}${name.slice(1)} cannot decide`);
  const usual = kind === 'memory' ? 'Limits hold for the Envoys that ask this sidecar.' : 'Limits hold for all sidecars that share it. Counted here is what this one decided.';
  say(place.querySelector('.why'), reason ? visible(reason) : usual);
}

function showConnection(state, words) {
  mark(find('connection'), 'data-state', state);
  say(find('connection').querySelector('.words'), words);
  mark(document.body, 'data-connection', state);
}

let stream = null;

/** Hears of everything, and of this bucket where there is one. */
function listen(of) {
  stream?.stop();
  let query = '';
  if (of) {
    const parts = { bucket: of.policy, key: of.key, ...(of.domain === undefined ? {} : { domain: of.domain }) };
    query = `?${new URLSearchParams(parts)}`;
  }
  stream = hear(query, {
    event: (name, data) => tell[name]?.(data),
    live: () => showConnection('good', 'Live'),
    lost: (_, refused) => showConnection('bad', refused ? `${refused.code}: ${refused.message}` : 'Connection lost, trying again'),
  });
}

listen(null);
