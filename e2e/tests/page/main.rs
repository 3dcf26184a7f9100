//! The live page in a real browser: that what it shows is so, that what is done there is done, and that nothing that a client
//! sends can do anything there.

mod acts;
mod looks;
mod meets;

use std::{net::SocketAddr, path::PathBuf, thread};

use e2e::PATIENCE;
use fleet::{Browser, Programs, RunDir, Sidecar, SidecarBuilder, eventually, http, tools};
use serde_json::{Value, json};

/// Notes what a page must never do, from its first moment on.
const WITNESS: &str = "
    window.seen = {shifts: [], forbidden: [], errors: [], dialogs: 0};
    new PerformanceObserver((list) => list.getEntries().filter((entry) => !entry.hadRecentInput).forEach((entry) => seen.shifts.push({
        value: entry.value,
        of: entry.sources.map(({node}) => node && (node.id || node.className || node.nodeName)),
    }))).observe({type: 'layout-shift', buffered: true});
    addEventListener('securitypolicyviolation', (event) => seen.forbidden.push(event.violatedDirective + ' ' + event.blockedURI));
    addEventListener('error', (event) => seen.errors.push(String(event.message)), true);
    addEventListener('unhandledrejection', (event) => seen.errors.push(String(event.reason)));
    window.alert = window.confirm = window.prompt = () => { seen.dialogs += 1; };
";

/// The page of a sidecar, in a browser of its own.
struct Page {
    browser: Browser,
    address: SocketAddr,
    /// The browser's profile is in it.
    _run: RunDir,
}

impl Page {
    fn open(address: SocketAddr) -> Self {
        let run = RunDir::new().expect("a directory");
        let browser = Browser::start(&Programs::from_env(), &run).expect("a browser");
        browser.resize(1440, 900).expect("resized");
        browser.before_each_page(WITNESS).expect("watched");
        let page = Self { browser, address, _run: run };
        page.load();
        page
    }

    fn load(&self) {
        self.browser.open(&format!("http://{}/", self.address)).expect("the page");
    }

    fn run(&self, script: &str) -> Value {
        self.browser.run(script, &[]).expect("a script")
    }

    fn text(&self, selector: &str) -> String {
        self.browser.text(selector).expect("an element")
    }

    /// Waits until an element shows what is looked for.
    fn await_text(&self, selector: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let outcome = eventually(PATIENCE, what, || {
            last = self.browser.text(selector).unwrap_or_else(|error| error.to_string());
            holds(&last).then(|| last.clone())
        });
        outcome.unwrap_or_else(|error| panic!("{error}; {selector} shows {last:?}"))
    }

    fn await_live(&self) {
        self.await_text("#connection", "a live page", |shown| shown == "Live");
    }

    /// Waits for this many more updates, one a second.
    fn await_updates(&self, count: usize) {
        self.run("window.updates = 0; new MutationObserver(() => { window.updates += 1; }).observe(document.getElementById('uptime'), {childList: true, characterData: true, subtree: true})");
        let outcome = eventually(PATIENCE, "updates", || {
            (self.run("return window.updates").as_u64()? >= count as u64).then_some(())
        });
        outcome.expect("updates");
    }

    /// Fails where the page did what it must never do.
    fn assert_clean(&self) {
        let seen = self.run("return window.seen");
        for what in ["forbidden", "errors"] {
            assert_eq!(seen[what], json!([]), "{what}");
        }
        assert_eq!(seen["dialogs"], 0);
        assert_eq!(self.browser.complaints().expect("a log"), [""; 0]);
    }

    /// Keeps a picture below `target/sluice/page/`, for whoever wants to look.
    fn keep_picture(&self, name: &str) {
        let directory: PathBuf = tools::state_dir().join("page");
        std::fs::create_dir_all(&directory).expect("a directory");
        let picture = self.browser.picture().expect("a picture");
        std::fs::write(directory.join(format!("{name}.png")), picture).expect("written");
    }
}

/// A sidecar by itself, with its buckets in memory.
fn sidecar(prepare: impl FnOnce(SidecarBuilder) -> SidecarBuilder) -> Sidecar {
    let run = RunDir::new().expect("a directory");
    let programs = Programs::from_env();
    prepare(Sidecar::builder()).start(programs.sluice().expect("the sidecar"), &run).expect("a sidecar")
}

/// Has a sidecar take one of ten tokens a day, which do not come back while somebody looks at the page.
fn take(sidecar: &Sidecar, policy: &str, key: &str) {
    const DAY_US: u64 = 86_400_000_000;
    let bucket =
        json!({"policy": policy, "key": key, "tokens": 10, "period_us": DAY_US, "burst": 10, "cost": 1});
    let body = json!({"domain": "shop", "takes": [{"buckets": [bucket]}]}).to_string();
    let answer = http::post("/v1/take").body(body).send(sidecar.addr()).expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
}

/// Runs `during` while somebody asks again and again.
fn under_traffic<T>(ask: impl Fn() + Send + Sync, during: impl FnOnce() -> T) -> T {
    let over = std::sync::atomic::AtomicBool::new(false);
    /// Ends it also where the test fails.
    struct Over<'a>(&'a std::sync::atomic::AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        let ended = Over(&over);
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                ask();
            }
        });
        let outcome = during();
        drop(ended);
        outcome
    })
}
