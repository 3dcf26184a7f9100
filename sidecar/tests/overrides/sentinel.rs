//! What operators put in the place of limits when the primary is another one.

use std::time::Duration;

use contract::Overridden;
use fleet::{RunDir, Sentinels};
use serde_json::{Value, json};

use super::{SOON, Sidecar, program, within};

const PATH: &str = "/v1/buckets/per-client/a/override";
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn they_are_kept_by_the_replica_that_is_promoted_and_changed_there() {
    let run = RunDir::new().expect("a directory");
    let sentinels = Sentinels::start(&program(), &run).expect("started");
    let [here, there] = [Sidecar::at(&sentinels.url()).await, Sidecar::at(&sentinels.url()).await];
    here.empty("per-client", "a").await;
    here.does("PUT", PATH, json!({ "unlimited": true })).await;
    within(SOON, "it there", async || there.lets_in("a").await.0).await;
    let replica = &sentinels.redises()[1];
    within(LONG, "the replica to have it", async || {
        let kept = replica.command(&["HGET", "sluice:1:{overrides}", "sluice:1:shop/per-client/{a}"]);
        kept.is_ok_and(|kept| kept.to_string().contains("unlimited"))
    })
    .await;
    sentinels.redises()[0].process().kill();
    within(LONG, "the new primary", async || {
        sentinels.primary() == Some(1) && here.is_ready().await && there.is_ready().await
    })
    .await;
    for sidecar in [&here, &there] {
        within(LONG, "what it has", async || {
            sidecar.lets_in("a").await == (true, Some(Overridden::Unlimited))
        })
        .await;
        assert_eq!(sidecar.overrides().await.len(), 1);
    }
    here.does("PUT", PATH, json!({ "blocked": true })).await;
    within(SOON, "the block there", async || there.lets_in("a").await == (false, Some(Overridden::Blocked)))
        .await;
    there.does("DELETE", PATH, Value::Null).await;
    within(SOON, "the removal here", async || here.lets_in("a").await.1.is_none()).await;
}
