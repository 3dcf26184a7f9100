//! What it meets: hostile keys, a sidecar that wants a token, and one that goes away.

use std::fs;

use e2e::PATIENCE;
use fleet::{Key, RunDir, eventually};
use serde_json::json;

use crate::{Page, sidecar, take};

#[test]
fn keys_are_text_whatever_they_are() {
    let sidecar = sidecar(|sidecar| sidecar);
    let image = "header:x-api-key=<img src=x onerror=alert(1)>";
    let script = "header:x-api-key=\"><script>alert(2)</script><svg onload=alert(3)>";
    let marks = "header:x-api-key=\u{202e}gnp.exe\u{0}\n\t\u{200b}\u{7f}\u{feff}";
    let long = format!("header:x-api-key={}", "ab".repeat(500));
    let hebrew = "header:x-api-key=שלום";
    for (times, key) in [image, script, marks, &long, hebrew, "", "__proto__", "%2F/../..", "a?b#c&d=e"]
        .iter()
        .rev()
        .enumerate()
    {
        (0..=times).for_each(|_| take(&sidecar, "per-client", key));
    }
    let page = Page::open(sidecar.admin_addr());
    let row = |number: usize| format!("#hottest tbody tr:nth-child({number})");
    page.await_text(&format!("{} .key", row(9)), "all keys", |shown| !shown.is_empty());
    // The whole of a key is in the row, whatever is cut from its middle to be seen.
    let whole = |number| {
        page.browser
            .run("return document.querySelector(arguments[0] + ' .key').textContent", &[row(number).into()])
            .expect("a row")
    };
    for (number, shown) in [
        (1, image),
        (2, script),
        (3, "header:x-api-key=\\u{202e}gnp.exe\\0\\n\\t\\u{200b}\\u{7f}\\u{feff}"),
        (4, &long),
        (5, hebrew),
        (6, "(empty)"),
        (7, "__proto__"),
        (8, "%2F/../.."),
        (9, "a?b#c&d=e"),
    ] {
        assert_eq!(whole(number), shown);
        // What the page sends to open it comes back as what it is.
        page.run("document.querySelector('#bucket').close()");
        page.browser.click(&format!("{} .open", row(number))).expect("clicked");
        let tokens = (10 - (10 - number)).to_string();
        page.await_text("#bucket-tokens", shown, |now| now == tokens);
        assert_eq!(page.text("#bucket-problem"), "", "{shown}");
        page.browser.click("#bucket-reset").expect("clicked");
        page.await_text("#bucket-said", shown, |said| said == "The bucket is full.");
    }
    let injected = page.run("return document.querySelectorAll('main img, main svg, main script, dialog img, dialog svg, dialog script').length");
    assert_eq!(injected, 0);
    page.keep_picture("hostile");
    page.assert_clean();
}

#[test]
fn a_token_is_asked_for_and_is_in_no_address() {
    const TOKEN: &str = "a-token-of-sixteen-and-more";
    let run = RunDir::new().expect("a directory");
    let file = run.path().join("token");
    fs::write(&file, TOKEN).expect("written");
    let sidecar = sidecar(|sidecar| sidecar.args(["--admin-token-file", &file.display().to_string()]));
    take(&sidecar, "per-client", "header:x-api-key=alice");
    let page = Page::open(sidecar.admin_addr());
    page.await_text("#token-heading", "a question", |shown| !shown.is_empty());
    page.keep_picture("token");
    page.browser.write("#token input", "not-the-token-of-this-one").expect("written");
    page.browser.click("#token .primary").expect("clicked");
    page.await_text("#token .problem", "that it is wrong", |shown| {
        shown == "The sidecar does not know this token."
    });
    page.browser.write("#token input", TOKEN).expect("written");
    page.browser.click("#token .primary").expect("clicked");
    page.await_live();
    // What changes something carries it, too.
    page.browser.click("#hottest tbody tr:first-child .open").expect("clicked");
    page.await_text("#bucket-tokens", "its tokens", |shown| shown == "9");
    page.browser.click("#bucket-reset").expect("clicked");
    page.await_text("#bucket-tokens", "a full bucket", |shown| shown == "10");
    let addresses = page.run(
        "return [location.href, ...performance.getEntriesByType('resource').map(({name}) => name)].join(' ')",
    );
    assert!(!addresses.as_str().expect("text").contains(TOKEN));
    assert_eq!(page.run("return document.cookie + localStorage.length"), "0");
    page.load();
    page.await_live();
    assert_eq!(
        page.run("return document.getElementById('token').open"),
        false,
        "a reload need not ask again"
    );
    assert!(!sidecar.log().contains(TOKEN));
}

#[test]
fn the_question_for_the_token_stays_until_it_is_answered() {
    const TOKEN: &str = "a-token-of-sixteen-and-more";
    let run = RunDir::new().expect("a directory");
    let file = run.path().join("token");
    fs::write(&file, TOKEN).expect("written");
    let sidecar = sidecar(|sidecar| sidecar.args(["--admin-token-file", &file.display().to_string()]));
    let page = Page::open(sidecar.admin_addr());
    for _ in 0..3 {
        page.await_text("#token-heading", "a question", |shown| !shown.is_empty());
        page.browser.press(Key::Escape).expect("pressed");
    }
    page.await_text("#token-heading", "the question again", |shown| !shown.is_empty());
    page.browser.write("#token input", TOKEN).expect("written");
    page.browser.click("#token .primary").expect("clicked");
    page.await_live();
    assert_eq!(page.run("return document.getElementById('token').open"), false);
}

#[test]
fn a_sidecar_that_accepts_and_does_not_answer_is_asked_again() {
    let sidecar = sidecar(|sidecar| sidecar);
    let page = Page::open(sidecar.admin_addr());
    page.await_live();
    page.run(
        "const asked = window.fetch;
         window.ended = 0;
         window.fetch = (path, of) => {
           of.signal.addEventListener('abort', () => { window.ended += 1; });
           return asked(path, of);
         };",
    );
    sidecar.process().freeze();
    page.await_text("#connection", "that it is missed", |shown| shown == "Connection lost, trying again");
    // Its kernel still accepts: without an end of its own such an attempt waits for ever.
    let given_up = eventually(PATIENCE, "an attempt that is given up", || {
        (page.run("return window.ended").as_u64()? >= 1).then_some(())
    });
    sidecar.process().thaw();
    given_up.expect("an attempt that is given up");
    page.await_live();
}

#[test]
fn a_sidecar_that_goes_away_is_missed_and_found_again() {
    let mut sidecar = sidecar(|sidecar| sidecar);
    let page = Page::open(sidecar.admin_addr());
    page.await_live();
    assert_eq!(page.text("#store .words"), "Decides in its own memory");
    sidecar.process().kill();
    page.await_text("#connection", "that it is missed", |shown| shown == "Connection lost, trying again");
    page.browser.write("#find [name=policy]", "per-client").expect("it can be used meanwhile");
    sidecar.restart().expect("it is there again");
    page.await_live();
    take(&sidecar, "per-client", "header:x-api-key=alice");
    page.await_text("#policies tbody .name", "what happens since", |shown| shown == "per-client");
    let typed = page.run("return document.querySelector('#find [name=policy]').value");
    assert_eq!(typed, json!("per-client"), "nothing was lost");
}

#[test]
fn a_stream_that_is_open_keeps_no_sidecar_from_ending() {
    let sidecar = sidecar(|sidecar| sidecar.args(["--shutdown-grace", "30s"]));
    let page = Page::open(sidecar.admin_addr());
    page.await_live();
    sidecar.process().signal(15);
    let bound = std::time::Duration::from_secs(5);
    let status = eventually(bound, "its end", || sidecar.process().exit_status()).expect("it ends");
    assert!(
        status.success() && sidecar.log().contains("every request that was under way was answered"),
        "{}",
        sidecar.log()
    );
}
