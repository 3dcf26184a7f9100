// One bucket: how it drains and fills, and what is done about it.

import { fill, find, mark, say, showKey, visible } from './element.js';
import { Level } from './charts.js';
import { ask, bucketPath } from './server.js';
import { count, lasting, limit, override } from './words.js';

export class Bucket {
  /** `watch(of)` has the events of this bucket come, and those of none where it is null. */
  constructor(watch) {
    this.watch = watch;
    this.dialog = find('bucket');
    this.dialog.addEventListener('close', () => this.left());
    // A click beside it closes it, as Esc does.
    this.dialog.addEventListener('click', (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.querySelector('[data-close]').addEventListener('click', () => this.dialog.close());
    find('bucket-reset').addEventListener('click', (event) => this.act(event.target, 'POST', '/reset', {}, 'The bucket is full.'));
    const refund = find('bucket-refund');
    refund.addEventListener('submit', (event) => {
      event.preventDefault();
      const tokens = refund.elements.tokens.valueAsNumber;
      this.act(refund.querySelector('button'), 'POST', '/refund', { tokens }, `${count(tokens)} given back.`);
    });
    this.form = find('bucket-put');
    this.form.addEventListener('change', () => this.choose());
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.act(event.submitter, 'PUT', '/override', this.written(), 'In force on every sidecar within a second. What is in the bucket stays: Reset fills it.');
    });
    find('bucket-remove').addEventListener('click', (event) =>
      this.act(event.target, 'DELETE', '/override', undefined, 'Removed: the limit is as configured.'));
  }

  open(of) {
    [this.of, this.shownUs] = [of, 0];
    showKey(find('bucket-key'), of.key, false);
    say(find('bucket-policy'), of.domain === undefined ? visible(of.policy) : `${visible(of.policy)} in ${visible(of.domain)}`);
    for (const id of ['bucket-tokens', 'bucket-burst', 'bucket-limit', 'bucket-override']) say(find(id), '–');
    say(find('bucket-full'), '\u00a0');
    this.tell('', '');
    this.form.reset();
    this.choose();
    fill(find('bucket-meter').firstElementChild, 0);
    if (!this.dialog.open) this.dialog.showModal();
    this.level?.end();
    this.level = new Level(find('bucket-chart'));
    this.watch(of);
  }

  left() {
    this.watch(null);
    this.level?.end();
    [this.of, this.level] = [null, null];
  }

  /** Shows how it stands: what the events tell, and what is answered to an action. */
  show(bucket) {
    if (!this.of || bucket.policy !== this.of.policy || bucket.key !== this.of.key) return;
    this.of.domain = bucket.domain;
    const { tokens, now_us: nowUs, full_after_us: fullAfterUs } = bucket;
    const { burst } = bucket.override?.limit ?? bucket.limit;
    say(find('bucket-policy'), `${visible(bucket.policy)} in ${visible(bucket.domain)}`);
    say(find('bucket-tokens'), count(tokens));
    say(find('bucket-burst'), count(burst));
    let full = fullAfterUs > 0 ? `full in ${lasting(fullAfterUs / 1e6)}` : 'full';
    if (tokens < 0) full = `in debt, ${full}`;
    say(find('bucket-full'), full);
    const meter = find('bucket-meter');
    mark(meter, 'aria-valuemax', burst);
    mark(meter, 'aria-valuenow', Math.max(0, Math.min(tokens, burst)));
    mark(meter, 'data-low', tokens < 1);
    fill(meter.firstElementChild, tokens / burst);
    say(find('bucket-limit'), limit(bucket.limit));
    say(find('bucket-override'), this.instead(bucket.override, nowUs));
    mark(find('bucket-override'), 'data-in-force', bucket.override !== null);
    find('bucket-remove').disabled = !bucket.override;
    // Two answers may cross: time goes on only.
    if (!(nowUs <= this.shownUs)) this.level?.add(nowUs, tokens, burst);
    this.shownUs = nowUs;
    if (this.refused) {
      this.refused = false;
      this.tell('', '');
    }
  }

  instead(of, nowUs) {
    if (!of) return 'none';
    const ends = of.expires_at_us ? `ends in ${lasting((of.expires_at_us - nowUs) / 1e6)}` : 'never ends';
    return [override(of), ends, of.reason && visible(of.reason)].filter(Boolean).join(' · ');
  }

  /** Why its events do not come. */
  refuse({ code, reason }) {
    this.refused = true;
    this.tell('', `${code}: ${reason}`);
  }

  tell(said, problem) {
    say(find('bucket-said'), said);
    say(find('bucket-problem'), problem);
  }

  choose() {
    const { kind, limit: written } = this.form.elements;
    find('bucket-limit-fields').querySelectorAll('input').forEach((input) => {
      input.disabled = kind.value !== 'limit';
    });
    written.required = kind.value === 'limit';
  }

  written() {
    const { kind, limit: written, burst, reason, expires_in: expiresIn } = this.form.elements;
    const body = kind.value === 'limit' ? { limit: written.value } : { [kind.value]: true };
    if (kind.value === 'limit' && burst.value) body.burst = burst.valueAsNumber;
    if (reason.value) body.reason = reason.value;
    if (expiresIn.value) body.expires_in = expiresIn.value;
    return body;
  }

  async act(button, method, what, body, said) {
    const of = this.of;
    this.tell('', '');
    button.disabled = true;
    try {
      const bucket = await ask(method, bucketPath(of, what), body);
      if (this.of === of) {
        this.tell(said, '');
        this.show(bucket);
      }
    } catch (error) {
      if (this.of === of) this.tell('', `${error.code}: ${error.message}`);
    }
    button.disabled = false;
    if (button.id === 'bucket-remove') button.disabled = find('bucket-override').getAttribute('data-in-force') !== 'true';
  }
}
