//! What the filter decides itself, from written to valid.

use crate::OnError;
use crate::answer::policy_item;
use crate::config::scalar::{Percent, Rate, Whole};
use crate::config::spot::Spot;
use crate::config::written::{WrittenLocal, WrittenPolicyLocal};
use crate::policies::{Local, NamedLimit};
use crate::share::{Share, WHOLE_PPM};

/// About a hundred bytes each, and a kilobyte where the key is as long as one may be.
const DEFAULT_BUCKETS: u64 = 16_384;
const MIN_BUCKETS: u64 = 16;
const MAX_BUCKETS: u64 = 1_000_000;

/// What is written at `spot` for all policies: the buckets, and the share.
pub fn local(written: &WrittenLocal, spot: &Spot<'_>) -> (Local, Share) {
    let Whole(buckets) = written.buckets.unwrap_or(Whole(DEFAULT_BUCKETS));
    if !(MIN_BUCKETS..=MAX_BUCKETS).contains(&buckets) {
        let message = format!("found {buckets}; it must be between {MIN_BUCKETS} and {MAX_BUCKETS}");
        spot.field("buckets").problem(message);
    }
    let share =
        written.share_percent.map_or(Share::WHOLE, |found| share(found, &spot.field("share_percent")));
    (Local { buckets: usize::try_from(buckets).unwrap_or_default() }, share)
}

fn share(Percent(share): Percent, spot: &Spot<'_>) -> Share {
    if share.ppm() == 0 {
        spot.problem("found 0; write more than 0, or `on_error: deny` to let nothing pass");
    }
    share
}

/// The limits of a policy, at its share: `written` at the field `local` of the policy at `spot`.
pub fn limits(
    written: Option<WrittenPolicyLocal>,
    on_error: OnError,
    default: Share,
    whole: &[NamedLimit],
    spot: &Spot<'_>,
) -> Vec<NamedLimit> {
    let spot = spot.field("local");
    if on_error != OnError::Local {
        if written.is_some() {
            spot.problem("found a share in a policy whose `on_error` is not `local`; write `on_error: local`, or leave it out");
        }
        return Vec::new();
    }
    let (share, spot) = match written {
        Some(WrittenPolicyLocal { share_percent }) => {
            let spot = spot.field("share_percent");
            (share(share_percent, &spot), spot)
        }
        None => (default, spot),
    };
    if share.ppm() == 0 {
        return Vec::new();
    }
    whole.iter().filter_map(|named| limit(named, share, &spot)).collect()
}

/// A share of a limit: of its rate exactly, of its burst rounded down to whole tokens, at least one.
fn limit(named: &NamedLimit, share: Share, spot: &Spot<'_>) -> Option<NamedLimit> {
    let (ppm, whole_ppm) = (u128::from(share.ppm()), u128::from(WHOLE_PPM));
    let limit = named.limit.share(share.ppm());
    let Ok(limit) = limit else {
        spot.problem(format!(
            "a share of {} percent of the limit {:?} cannot be counted exactly; write a rounder share, or a rounder limit",
            decimal(ppm, whole_ppm / 100),
            named.name
        ));
        return None;
    };
    let Rate { tokens, period_us } = named.rate;
    let shared = u128::from(tokens) * ppm;
    let text = named.text.split_once(' ').map_or("", |(_, per)| per);
    Some(NamedLimit {
        name: named.name.clone(),
        limit,
        text: format!("{} {text}", decimal(shared, whole_ppm)),
        item: policy_item(&named.name, tokens, period_us, share),
        rate: named.rate,
    })
}

/// `of` divided by a power of ten, as a person writes it.
fn decimal(of: u128, by: u128) -> String {
    let digits = by.to_string().len() - 1;
    let text = format!("{}.{:0digits$}", of / by, of % by);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
