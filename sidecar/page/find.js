// Opening the bucket of a key that is typed.

import { find, make, visible } from './element.js';

export class Find {
  constructor(open) {
    this.form = find('find');
    this.domain = find('find-domain');
    this.known = '';
    this.policies = [];
    const { policy } = this.form.elements;
    policy.addEventListener('input', () => this.offerDomains());
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      const { key, domain } = this.form.elements;
      const of = this.domains();
      // Where several domains have such a policy it is chosen; where none is known the sidecar may know.
      open({ policy: policy.value, key: key.value, domain: of.length > 1 ? domain.value : of[0] });
    });
  }

  /** Offers the policies that are known, where they are others than before. */
  know(policies) {
    const known = JSON.stringify(policies.map(({ domain, policy }) => [domain, policy]));
    if (known === this.known) return;
    [this.known, this.policies] = [known, policies];
    const names = [...new Set(policies.map(({ policy }) => policy))].sort();
    find('known-policies').replaceChildren(...names.map((value) => make('option', { value })));
    this.offerDomains();
  }

  domains() {
    const { policy } = this.form.elements;
    return this.policies.filter((of) => of.policy === policy.value).map((of) => of.domain).sort();
  }

  offerDomains() {
    const [select, of] = [this.form.elements.domain, this.domains()];
    this.domain.hidden = of.length < 2;
    select.replaceChildren(...of.map((value) => make('option', { value, text: visible(value) })));
  }
}
