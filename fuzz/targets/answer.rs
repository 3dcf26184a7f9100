//! Any verdicts and any response, under configurations that answer, settle and refund in every way.

#![no_main]

use arbitrary::{Result, Unstructured};
use hostile::{answered, configurations, holds, sent::Sent};
use libfuzzer_sys::{Corpus, fuzz_target};
use policy::Policies;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match configurations::with_all(|all| answer(all, &mut Unstructured::new(bytes))) {
        Ok(()) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});

fn answer(all: &[Policies], bytes: &mut Unstructured<'_>) -> Result<()> {
    let policies = bytes.choose(all)?;
    let asks = holds::asking(policies, &bytes.arbitrary::<Sent>()?);
    let verdicts = answered::verdicts(bytes, &policies.takes(&asks))?;
    let answer = holds::answering(policies, &asks, &verdicts, bytes.arbitrary()?);
    let charged = if bytes.ratio(1, 5)? { bytes.arbitrary()? } else { answer.charged };
    holds::billing(policies, &asks, &charged, &bytes.arbitrary()?, bytes.arbitrary()?);
    Ok(())
}
