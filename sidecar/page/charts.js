// The charts, and what they remember: one place a second for the last five minutes.

import { find, make, say } from './element.js';
import { clock, rate } from './words.js';

const SECONDS = 300;
/** As many lines as there are colours; where there are more policies, the last is for all others. */
const LINES = 8;
const OTHERS = 'all others';
/** Where nothing was heard for longer, there is a gap; a clock that goes back by more begins anew. */
const GAP_S = 10;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Decisions and denials by policy, as two charts over one time. */
export class Charts {
  constructor() {
    this.begin(Math.floor(Date.now() / 1_000));
    const charts = () => [
      this.chart('decisions-chart', 'decisions-read', 'decisions'),
      this.chart('denied-chart', 'denied-read', 'denied'),
    ];
    this.redraw = () => {
      this.charts?.forEach((chart) => chart.destroy());
      this.charts = charts();
    };
    this.redraw();
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', this.redraw);
    new ResizeObserver(() => this.resize()).observe(find('decisions-chart'));
  }

  /** Forgets all, for an axis that ends at this second. */
  begin(at) {
    this.times = Array.from({ length: SECONDS }, (_, index) => at - SECONDS + 1 + index);
    this.histories = new Map();
    this.last = null;
    this.lines = [];
  }

  /** Adds what happened since the last time, by the sidecar's clock. `counts` is by policy: name, decisions and denied since the start. */
  add(nowUs, counts) {
    const at = Math.floor(nowUs / 1e6);
    const ahead = at - this.times[SECONDS - 1];
    if (!this.last || ahead < -GAP_S || ahead > SECONDS) this.begin(at);
    const before = this.last;
    this.last = { nowUs, counts: new Map(counts.map((of) => [of.id, of])) };
    const seconds = before && (nowUs - before.nowUs) / 1e6;
    // Of a sidecar that started anew nothing is known from before, and two events within a moment tell little.
    if (!before || seconds <= 0) return;
    const places = Math.max(0, at - this.times[SECONDS - 1]);
    if (places === 0) return;
    for (let place = 0; place < places; place += 1) {
      this.times.push(at - places + 1 + place);
      this.times.shift();
    }
    for (const id of this.last.counts.keys()) {
      if (!this.histories.has(id)) {
        this.histories.set(id, { decisions: Array(SECONDS).fill(null), denied: Array(SECONDS).fill(null) });
      }
    }
    for (const [id, history] of this.histories) {
      const [now, then] = [this.last.counts.get(id), before.counts.get(id)];
      for (const what of ['decisions', 'denied']) {
        // A policy that nobody met before had none; one that is told of no more, or began anew, leaves a gap.
        const since = now ? now[what] - (then ? then[what] : 0) : null;
        const value = since !== null && since >= 0 && seconds <= GAP_S ? since / seconds : null;
        for (let place = 0; place < places; place += 1) history[what].push(value);
        history[what].splice(0, places);
      }
      if (now) history.name = now.name;
      else if (history.decisions.every((value) => value === null)) this.histories.delete(id);
    }
    this.choose();
    this.charts.forEach((chart) => chart.setData(this.data(chart.what)));
  }

  /** Which policies have lines: those that had the most, and one that has a line keeps it for as long as it is among them. */
  choose() {
    const sums = [...this.histories].map(([id, { decisions }]) => [id, decisions.reduce((sum, value) => sum + value, 0)]);
    sums.sort(([, one], [, other]) => other - one);
    const own = sums.length > LINES ? LINES - 1 : LINES;
    const most = sums.slice(0, own).map(([id]) => id);
    const lines = this.lines.slice(0, own).map((id) => (most.includes(id) ? id : null));
    for (const id of most.filter((id) => !lines.includes(id))) {
      const free = lines.indexOf(null);
      if (free < 0) lines.push(id);
      else lines[free] = id;
    }
    this.lines = lines;
  }

  /** The colour of a policy: a number from 1, or 0 for those that have none of their own. */
  colour(id) {
    return this.lines.indexOf(id) + 1;
  }

  data(what) {
    const lines = Array.from({ length: LINES }, (_, index) => this.histories.get(this.lines[index])?.[what]);
    const rest = [...this.histories].filter(([id]) => !this.lines.includes(id));
    if (rest.length > 0) {
      lines[LINES - 1] = this.times.map((_, at) => rest.reduce((sum, [, of]) => sum + (of[what][at] ?? 0), 0));
    }
    return [this.times, ...lines.map((line) => line ?? Array(SECONDS).fill(null))];
  }

  name(index) {
    return this.histories.get(this.lines[index])?.name ?? OTHERS;
  }

  chart(id, readId, what) {
    const [place, read] = [find(id), find(readId)];
    const axis = { stroke: style('--muted'), font: '12px system-ui', grid: { stroke: style('--line'), width: 1 }, ticks: { show: false } };
    const series = Array.from({ length: LINES }, (_, index) => ({
      stroke: style(`--line-${index + 1}`), width: 1.75, points: { show: false }, spanGaps: false,
    }));
    const tell = (chart) => {
      const at = chart.cursor.idx;
      const values = at == null ? [] : chart.data.slice(1).map((line, index) => [this.name(index), line[at]]);
      const told = values.filter(([, value]) => value > 0).sort(([, one], [, other]) => other - one);
      say(read, at == null ? '' : [clock(chart.data[0][at]), ...told.map(([name, value]) => `${name} ${rate(value)}`)].join(' · '));
    };
    const chart = new uPlot({
      width: place.clientWidth, height: place.clientHeight, legend: { show: false }, padding: [8, 20, 0, 0],
      cursor: { sync: { key: 'policies' }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, nice(high)] } },
      axes: [
        { ...axis, size: 28, space: 60, values: (_, ticks) => ticks.map((tick) => clock(tick).slice(0, 5)), incrs: [60, 120, 300] },
        { ...axis, size: 52, space: 36, incrs: STEPS, values: (_, ticks) => ticks.map((tick) => rate(tick).replace('.0', '')) },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [tell] },
    }, this.data(what), place);
    chart.what = what;
    return chart;
  }

  resize() {
    for (const chart of this.charts) {
      const { clientWidth: width, clientHeight: height } = chart.root.parentElement;
      if (width > 0 && (width !== chart.width || height !== chart.height)) chart.setSize({ width, height });
    }
  }
}

/** How far apart the lines of an axis may be. */
const STEPS = [0.5, ...Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat()];

/** A round number above, so that the axis seldom changes. */
function nice(high) {
  if (!(high > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(high * 1.05));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * size).find((step) => step >= high * 1.05) ?? 10 * size;
}

const BUCKET_SECONDS = 30;

/** The tokens of one bucket over the last half minute. */
export class Level {
  constructor(place) {
    this.place = place;
    this.points = [[], []];
    place.replaceChildren();
    const axis = { stroke: style('--muted'), font: '12px system-ui', grid: { stroke: style('--line'), width: 1 }, ticks: { show: false } };
    this.chart = new uPlot({
      width: place.clientWidth, height: place.clientHeight, legend: { show: false }, cursor: { show: false }, padding: [8, 18, 0, 0],
      scales: {
        x: { time: false, range: () => [this.now - BUCKET_SECONDS, this.now] },
        y: { range: (_, low) => [Math.min(0, low ?? 0), this.burst] },
      },
      axes: [
        { ...axis, size: 24, values: (_, ticks) => ticks.map((tick) => (this.now - tick < 0.5 ? 'now' : `−${Math.round(this.now - tick)} s`)), splits: () => [this.now - 30, this.now - 20, this.now - 10, this.now] },
        { ...axis, size: 52, splits: () => [0, this.burst], values: (_, ticks) => ticks.map((tick) => rate(tick).replace('.0', '')) },
      ],
      series: [{}, { stroke: style('--accent'), width: 1.75, fill: style('--accent-wash'), points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
    }, [[0], [null]], place);
  }

  add(nowUs, tokens, burst) {
    [this.now, this.burst] = [nowUs / 1e6, Math.max(1, burst)];
    const [times, values] = this.points;
    times.push(this.now);
    values.push(tokens);
    while (times[0] < this.now - BUCKET_SECONDS - 1) {
      times.shift();
      values.shift();
    }
    this.chart.setData([times, values]);
  }

  end() {
    this.chart.destroy();
  }
}

/** The mark that says which line is whose. */
export const swatch = () => make('span', { class: 'swatch', ariaHidden: 'true' });
