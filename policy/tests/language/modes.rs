//! Enforced, in shadow, or off; and for how many.

use serde_json::{Value, json};

use crate::sent::{Sent, asks, error, policies, read};

fn with_mode(mode: &str) -> Value {
    json!({"name": mode, "key": [], "limit": "1 per day", "mode": mode})
}

/// `name`, and `?` where it is in shadow, of what is asked.
fn told(policies: &policy::Policies, sent: &Sent) -> Vec<String> {
    let name = |ask: &policy::Ask| policies.get(ask).expect("known").name().to_owned();
    asks(policies, sent).iter().map(|ask| name(ask) + if ask.shadow { "?" } else { "" }).collect()
}

#[test]
fn what_is_off_is_not_asked_and_what_is_in_shadow_is_asked_apart() {
    let policies = policies(json!([
        with_mode("shadow"),
        with_mode("off"),
        with_mode("enforce"),
        // What Envoy's YAML makes of the bare word `off`.
        {"name": "no", "key": [], "limit": "1 per day", "mode": false},
    ]));
    assert_eq!(told(&policies, &Sent::get("/")), ["shadow?", "enforce"]);
    let asks = asks(&policies, &Sent::get("/"));
    let takes = policies.takes(&asks);
    let shape: Vec<(&str, bool, bool)> =
        takes.iter().map(|take| (take.buckets[0].policy.as_ref(), take.follows, take.shadow)).collect();
    assert_eq!(shape, [("enforce", false, false), ("shadow", true, true)]);
    assert_eq!(policy::Policies::take_count(&asks), 2);
}

#[test]
fn shadows_stand_alone_where_nothing_is_enforced() {
    let config = json!({
        "sidecar": {"cluster": "s"}, "mode": "shadow",
        "policies": [
            {"name": "a", "key": [], "limit": "1 per day"},
            {"name": "b", "key": [], "limit": "1 per day"},
        ],
    });
    let policies = read(&config).expect("valid");
    let asks = asks(&policies, &Sent::get("/"));
    let takes = policies.takes(&asks);
    let shape: Vec<(bool, bool)> = takes.iter().map(|take| (take.follows, take.shadow)).collect();
    assert_eq!(shape, [(false, true), (false, true)]);
}

#[test]
fn shadows_make_way_for_what_is_enforced() {
    let policy = |number: usize, mode: &str| {
        json!({
            "name": format!("{mode}{number}"), "key": [], "mode": mode,
            "limits": (1..=8).map(|days| json!({"limit": format!("1 per {days}d")})).collect::<Vec<_>>(),
        })
    };
    let enforced = (0..7).map(|number| policy(number, "enforce"));
    let all = [policy(0, "shadow"), policy(1, "shadow")].into_iter().chain(enforced).collect();
    let policies = policies(Value::Array(all));
    let asks = asks(&policies, &Sent::get("/"));
    assert_eq!(policies.bucket_count(&asks), 64);
    let answers = policies.answers(&Sent::get("/"));
    assert_eq!(answers.iter().flatten().cloned().collect::<Vec<_>>(), asks);
    assert!(answers.contains(&Err(policy::Unasked::MadeWay)), "{answers:?}");
    assert_eq!(asks.iter().filter(|ask| ask.shadow).count(), 1, "the last one is left out");
}

#[test]
fn a_share_of_the_keys_is_enforced_always_the_same_and_ever_more() {
    let enforced = |percent: Value| -> Vec<bool> {
        let policy = json!([{"name": "p", "key": [{"header": "a"}], "limit": "1 per day", "enforce_percent": percent}]);
        let policies = policies(policy);
        let shadow = |key: usize| asks(&policies, &Sent::get("/").header("a", key.to_string()))[0].shadow;
        (0..2_000).map(|key| !shadow(key)).collect()
    };
    let [none, tenth, half, all] = [json!(0), json!(10), json!("50"), json!(100)].map(enforced);
    let count = |of: &[bool]| of.iter().filter(|enforced| **enforced).count();
    assert_eq!((count(&none), count(&all)), (0, 2_000));
    assert!((140..260).contains(&count(&tenth)), "{}", count(&tenth));
    assert!((900..1_100).contains(&count(&half)), "{}", count(&half));
    assert!(tenth.iter().zip(&half).all(|(tenth, half)| !tenth || *half), "who is enforced stays so");
}

#[test]
fn where_all_share_one_key_a_share_of_the_requests_is_meant() {
    let half = policies(json!([{"name": "p", "key": [], "limit": "1 per day", "enforce_percent": 50}]));
    let enforced = (0..2_000_u32).filter(|draw| told(&half, &Sent::get("/").drawing(*draw)) == ["p"]).count();
    assert!((900..1_100).contains(&enforced), "{enforced}");
}

#[test]
fn who_is_enforced_does_not_depend_on_who_is_matched() {
    let policy = json!([{
        "name": "p", "match": {"percent": 50}, "key": [], "limit": "1 per day", "enforce_percent": 50,
    }]);
    let policies = policies(policy);
    let drawn: Vec<String> = (0..2_000_u32)
        .flat_map(|draw| told(&policies, &Sent::get("/").drawing(draw.wrapping_mul(2_654_435_761))))
        .collect();
    let enforced = drawn.iter().filter(|told| *told == "p").count();
    assert!((900..1_100).contains(&drawn.len()), "{}", drawn.len());
    assert!((400..600).contains(&enforced), "{enforced}");
}

#[test]
fn a_mistake_in_a_mode_is_told() {
    let found = error("mode", json!("shaddow"));
    assert!(found.contains("policies[0].mode: found `shaddow`; expected one of `enforce`, `shadow`, `off`; did you mean `shadow`?"), "{found}");
    let config = json!({"sidecar": {"cluster": "s"}, "policies": [
        {"name": "p", "key": [], "limit": "1 per day", "mode": "shadow", "enforce_percent": 5},
    ]});
    let found = read(&config).expect_err("refused");
    assert!(
        found.contains(
            "policies[0].enforce_percent: found a share to enforce in a policy that is not enforced"
        ),
        "{found}"
    );
}
