// Numbers and times as a person reads them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

/** A count: exact up to a million. */
export const count = (value) => (Math.abs(value) < 1e6 ? whole : short).format(value);

/** So many in a second. */
export function rate(value) {
  if (value === 0) return '0';
  if (value < 0.05) return '<0.1';
  return value < 99.95 ? value.toFixed(1) : count(value);
}

/** A part of a whole. */
export function percent(part, all) {
  if (!part || !all) return '0%';
  const value = (100 * part) / all;
  if (value < 0.1) return '<0.1%';
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)}%`;
}

/** How long something takes. */
export function latency(us) {
  if (us === undefined || us === null) return '–';
  if (us < 1_000) return `${Math.round(us)} µs`;
  if (us < 10_000) return `${(us / 1_000).toFixed(1)} ms`;
  if (us < 1_000_000) return `${Math.round(us / 1_000)} ms`;
  return `${(us / 1_000_000).toFixed(1)} s`;
}

const UNITS = [
  ['day', 86_400], ['h', 3_600], ['min', 60], ['s', 1],
];

/** How long something lasts: the two largest units of it. */
export function lasting(seconds) {
  const total = Math.max(0, Math.ceil(seconds));
  const from = UNITS.findIndex(([, size]) => total >= size);
  if (from < 0) return '0 s';
  const [[name, size], next] = [UNITS[from], UNITS[from + 1]];
  const many = Math.floor(total / size);
  const rest = next ? Math.floor((total - many * size) / next[1]) : 0;
  const first = `${count(many)} ${name}${name === 'day' && many > 1 ? 's' : ''}`;
  return rest ? `${first} ${rest} ${next[0]}` : first;
}

const PERIODS = [['second', 1e6], ['minute', 60e6], ['hour', 3_600e6], ['day', 86_400e6]];

/** A limit as people say it: what is asked for as 1 in 6 seconds, 10 per minute. */
export function limit({ tokens, period_us: periodUs, burst }) {
  const unit = PERIODS.find(([, us]) => us % periodUs === 0);
  const longer = PERIODS.findLast(([, us]) => periodUs % us === 0);
  let rate = `${count(tokens)} per ${periodUs / 1e6} s`;
  if (unit) rate = `${count((tokens * unit[1]) / periodUs)} per ${unit[0]}`;
  else if (longer) rate = `${count(tokens)} per ${count(periodUs / longer[1])} ${longer[0]}s`;
  return `${rate}, burst ${count(burst)}`;
}

/** What is in the place of a limit. */
export function override(of) {
  if (of.unlimited) return 'Unlimited';
  if (of.blocked) return 'Blocked';
  return of.limit ? limit(of.limit) : '–';
}

/** A time of day. */
export const clock = (seconds) => new Date(seconds * 1_000).toLocaleTimeString('en-GB');
