//! The script that ships and the `bucket` crate decide and keep the same, to the last credit.

mod support;

use sluice::store::script::SCRIPT;
use support::{Random, RedisServer, trial::Trial};

const STEPS: usize = 25_000;

#[test]
fn the_script_and_the_model_never_differ() {
    let server = RedisServer::start();
    let mut trial = Trial::new(&server, SCRIPT, Random::from_environment());
    for step in 0..STEPS {
        if let Err(difference) = trial.step() {
            panic!("step {step}: {difference:?}");
        }
    }
    let Trial { allowed, denied, leased, uncertain, .. } = trial;
    println!("{allowed} allowed, {denied} denied, {leased} leased, {uncertain} uncertain");
    assert!(allowed > STEPS / 5 && denied > STEPS / 20 && leased > STEPS / 20, "the steps were one-sided");
    assert!(trial.uncertain < STEPS / 8, "too many runs could not be compared");
}
