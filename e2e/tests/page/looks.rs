//! How it looks: nothing moves, everything is reached without a mouse, and everything has a name.

use fleet::Key;

use crate::{Page, sidecar, take, under_traffic};

const FIRST: &str = "#hottest tbody tr:first-child .open";

/// Below a tenth of what is held to be good.
const NOTHING: f64 = 0.01;

fn shifted(page: &Page) -> (f64, String) {
    let shifts = page.run("return window.seen.shifts");
    let sum = shifts.as_array().into_iter().flatten().filter_map(|shift| shift["value"].as_f64()).sum();
    (sum, shifts.to_string())
}

#[test]
fn nothing_moves_and_nothing_is_too_wide_at_any_size_in_the_light_and_in_the_dark() {
    let sidecar = sidecar(|sidecar| sidecar);
    let page = Page::open(sidecar.admin_addr());
    let long = format!("header:x-api-key={}", "long".repeat(250));
    let ask = || {
        for key in ["client_address=192.0.2.1", "client_address=2001:db8::1", "header:x-api-key=alice", &long]
        {
            for policy in ["per-client", "expensive"] {
                take(&sidecar, policy, key);
            }
        }
    };
    under_traffic(ask, || {
        for (dark, scheme) in [(false, "light"), (true, "dark")] {
            page.browser.dark(dark).expect("set");
            for (width, height) in [(1440, 900), (360, 800)] {
                page.browser.resize(width, height).expect("resized");
                page.load();
                page.await_live();
                page.await_updates(4);
                page.keep_picture(&format!("{scheme}-{width}"));
                page.run(&format!("document.querySelector('{FIRST}').click()"));
                page.await_text("#bucket-tokens", "its tokens", |shown| shown == "0");
                page.await_updates(2);
                page.keep_picture(&format!("{scheme}-{width}-bucket"));
                let (sum, shifts) = shifted(&page);
                assert!(sum < NOTHING, "{scheme} {width}: {sum}: {shifts}");
                let beyond =
                    page.run("const of = document.documentElement; return of.scrollWidth - of.clientWidth");
                assert_eq!(beyond, 0, "{scheme} {width}: it scrolls sideways");
                let over = page.run(
                    "return [...document.querySelectorAll('.facts :is(dt, dd)')]
                         .filter((of) => of.scrollWidth > of.clientWidth).map((of) => of.textContent)",
                );
                assert_eq!(over, serde_json::json!([]), "{scheme} {width}: it lies over its neighbour");
                page.run("document.getElementById('bucket').close()");
            }
        }
    });
    page.assert_clean();
}

/// What has focus: the id or the class of it, and whether the dialog has it.
fn focused(page: &Page) -> (String, bool) {
    let of = page.run(
        "const of = document.activeElement; return [of.id || of.className || of.name || of.nodeName, !!of.closest('dialog')]",
    );
    (of[0].as_str().unwrap_or_default().to_owned(), of[1].as_bool().unwrap_or_default())
}

#[test]
fn everything_is_reached_by_keyboard() {
    let sidecar = sidecar(|sidecar| sidecar);
    take(&sidecar, "per-client", "header:x-api-key=alice");
    let page = Page::open(sidecar.admin_addr());
    page.await_text(&format!("{FIRST} .key"), "a key", |shown| shown == "header:x-api-key=alice");
    let mut tabs = 0;
    while focused(&page).0 != "open" {
        page.browser.press(Key::Tab).expect("pressed");
        tabs += 1;
        assert!(tabs < 20, "no key has got focus");
    }
    let outline = page.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "focus is to be seen");
    page.browser.press(Key::Enter).expect("pressed");
    page.await_text("#bucket-key", "its bucket", |shown| shown == "header:x-api-key=alice");
    assert!(focused(&page).1, "focus is in the dialog");
    for _ in 0..30 {
        page.browser.press(Key::Tab).expect("pressed");
        let (of, inside) = focused(&page);
        // Between its end and its beginning is the browser itself.
        assert!(inside || of == "BODY", "{of} behind the dialog has got focus");
    }
    page.browser.press(Key::Escape).expect("pressed");
    assert_eq!(page.run("return document.getElementById('bucket').open"), false);
    assert_eq!(focused(&page).0, "open", "focus is where it was");
    page.assert_clean();
}

#[test]
fn everything_has_a_name_and_a_role() {
    let sidecar = sidecar(|sidecar| sidecar);
    take(&sidecar, "per-client", "header:x-api-key=alice");
    let page = Page::open(sidecar.admin_addr());
    page.await_text(&format!("{FIRST} .key"), "a key", |shown| !shown.is_empty());
    let nameless = page.run(
        "const named = (of) => of.ariaLabel || of.labels?.length || of.textContent.trim() || of.title;
         const wrong = [];
         for (const of of document.querySelectorAll('input, select')) if (!of.labels.length) wrong.push(of.outerHTML);
         for (const of of document.querySelectorAll('button, th, legend, h1, h2')) {
           if (of.checkVisibility() && !named(of)) wrong.push(of.outerHTML);
         }
         for (const of of document.querySelectorAll('img')) if (!of.hasAttribute('alt')) wrong.push(of.outerHTML);
         for (const of of document.querySelectorAll('[aria-labelledby]')) {
           if (!document.getElementById(of.getAttribute('aria-labelledby'))) wrong.push(of.outerHTML);
         }
         for (const of of document.querySelectorAll('th')) if (!of.scope) wrong.push(of.outerHTML);
         for (const of of document.querySelectorAll('[role=img], [role=meter], [role=region], dialog')) {
           if (!of.ariaLabel && !of.hasAttribute('aria-labelledby')) wrong.push(of.outerHTML);
         }
         const ids = [...document.querySelectorAll('[id]')].map(({id}) => id);
         if (new Set(ids).size !== ids.length) wrong.push('an id twice');
         return wrong",
    );
    assert_eq!(nameless, serde_json::json!([]));
    let says = page.run(
        "return [document.documentElement.lang, document.title !== '', document.querySelectorAll('h1').length,
                 document.querySelectorAll('main').length, document.querySelectorAll('[role=status]').length >= 3,
                 document.querySelectorAll('[role=alert]').length >= 2]",
    );
    assert_eq!(says, serde_json::json!(["en", true, 1, 1, true, true]));
}

/// Where the history of a policy ends after such events, each a time in seconds and how many decisions there were by then: the
/// last place of the axis, and how many places are filled.
fn history(page: &Page, events: &str) -> serde_json::Value {
    let script = "return import('/page/charts.js').then(({Charts}) => {
        const charts = new Charts();
        for (const [s, decisions] of EVENTS) charts.add(s * 1e6, [{id: 'a', name: 'a', decisions, denied: 0}]);
        const {decisions} = charts.histories.get('a') ?? {decisions: []};
        return [charts.times.at(-1), decisions.filter((value) => value !== null).length, Math.max(...decisions)];
    })";
    page.run(&script.replace("EVENTS", events))
}

#[test]
fn the_charts_go_by_the_clock_of_the_sidecar_whatever_it_does() {
    let sidecar = sidecar(|sidecar| sidecar);
    let page = Page::open(sidecar.admin_addr());
    page.await_live();
    for behind in ["-3600", "-120", "0", "90", "3600"] {
        let from = format!("Math.floor(Date.now() / 1000) + {behind}");
        let told = history(&page, &format!("[0, 1, 2, 3].map((s) => [{from} + s, 7 * s])"));
        assert_eq!((&told[1], &told[2]), (&3.into(), &7.into()), "{behind}: {told}");
    }
    // It goes back, and what was is told no more.
    let told = history(&page, "[[1000, 0], [1001, 5], [900, 6], [901, 8], [902, 10]]");
    assert_eq!(told, serde_json::json!([902, 2, 2]));
    // Nothing was heard for a while: what was before stays, and nothing is made up for the time between.
    let told = history(&page, "[[1000, 0], [1001, 5], [1101, 900], [1102, 905]]");
    assert_eq!(told, serde_json::json!([1102, 2, 5]));
    page.assert_clean();
}
