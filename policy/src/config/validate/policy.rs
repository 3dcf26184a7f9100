//! One policy, from written to valid.

use std::sync::Arc;

use super::{Defaults, answer, condition, key, lease, limit, local, mode, name, on_error};
use crate::config::scalar::Percent;
use crate::config::spot::Spot;
use crate::config::written::{WrittenMissing, WrittenPolicy};
use crate::cost::Cost;
use crate::matcher::Condition;
use crate::share::Share;
use crate::{Mode, Policy};

/// The policy at `spot`, the item `place` of the list; `None` where it is too wrong to go on.
pub fn policy(written: WrittenPolicy, place: usize, spot: &Spot<'_>, defaults: &Defaults) -> Option<Policy> {
    name::of_limit(&written.name, &spot.field("name"));
    let matches = spot.field("match");
    let condition = written.matches.read(&matches);
    let condition = condition.map(|found| condition::condition(found, &matches, &defaults.regexes));
    let missing = written.missing.read(&spot.field("missing")).unwrap_or_default();
    let skip_missing = matches!(missing, WrittenMissing::Skip);
    let parts = written.key.read(&spot.field("key")).unwrap_or_default();
    let key = key::key(parts, skip_missing, &spot.field("key"), defaults.secret.as_ref());
    let cost = written.cost.read(&spot.field("cost")).map(|found| limit::cost(found, &spot.field("cost")));
    let cost = cost.unwrap_or(Cost::Fixed(1));
    let settle = spot.field("settle");
    let settle = written.settle.read(&settle).and_then(|found| limit::settle(found, &settle));
    if settle.is_some() && cost.bounds().0 == 0 {
        spot.field("cost").problem(
            "found a cost that may be 0 beside `settle`: what takes nothing is never denied, however much is owed; write \
             at least 1, as a number or as `min`",
        );
    }
    let own_mode = written.mode.read(&spot.field("mode")).map_or(defaults.mode, mode);
    let enforce = spot.field("enforce_percent");
    let percent = written.enforce_percent.read(&enforce);
    if percent.is_some() && own_mode != Mode::Enforce {
        enforce.problem("found a share to enforce in a policy that is not enforced; write `mode: enforce`, or leave it out");
    }
    let denied = spot.field("denied");
    let own_on_error = written.on_error.read(&spot.field("on_error"));
    let limits = limit::WrittenLimits { limit: written.limit, burst: written.burst, limits: written.limits };
    let limits = limit::limits(&written.name, limits, spot);
    let on_error = own_on_error.map_or(defaults.on_error, on_error);
    let local = written.local.read(&spot.field("local"));
    let local =
        local::limits(local, on_error, defaults.local_share, limits.as_deref().unwrap_or_default(), spot);
    Some(Policy {
        place,
        condition: condition.unwrap_or(Condition::All(Vec::new())),
        key,
        cost,
        lease: written
            .lease
            .read(&spot.field("lease"))
            .map(|found| lease::lease(found, &spot.field("lease"))),
        settle,
        refund_on: written.refund_on.read(&spot.field("refund_on")).unwrap_or_default(),
        mode: own_mode,
        enforced: percent.map_or(Share::WHOLE, |Percent(share)| share),
        only_if_chosen: written.only_if_chosen.read(&spot.field("only_if_chosen")).unwrap_or_default(),
        on_error,
        local,
        denied: written
            .denied
            .read(&denied)
            .map(|found| Arc::new(answer::denied(found, &denied)))
            .or_else(|| defaults.denied.clone()),
        limits: limits?,
        name: written.name,
    })
}
