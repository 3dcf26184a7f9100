//! A real browser without a window, driven by chromedriver: pages are opened, clicked, typed into and looked at as a person
//! would.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{Error, Process, Programs, Result, RunDir, free_port, http, wait};

/// How long its start may take, and how long it may need for one thing that it is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// To the next thing that has focus.
    Tab,
    /// On what has focus.
    Enter,
    /// Away from where one is.
    Escape,
}

/// A running browser with one tab, ended when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Process,
    addr: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one. Its profile is in the run directory, and empty.
    pub fn start(programs: &Programs, run: &RunDir) -> Result<Self> {
        let name = run.name("chromedriver");
        let port = free_port()?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(programs.chromedriver()?);
        command.arg(format!("--port={port}"));
        let driver = Process::start(&name, command, run.path())?;
        wait::try_eventually(PATIENCE, "chromedriver", || {
            driver.check_running()?;
            Ok(http::get("/status").send(addr).ok().filter(|answer| answer.status == 200))
        })?;
        let profile = run.path().join(format!("{name}-profile"));
        let options = json!({
            "binary": programs.chromium()?,
            "args": [
                "--headless=new",
                // It needs rights that containers do not give; what it is shown here is our own.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                format!("--user-data-dir={}", profile.display()),
            ],
        });
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            // A dialog that a script opens is not closed unseen: the next thing that is asked fails, and names it.
            "unhandledPromptBehavior": "ignore",
        });
        let mut browser = Self { driver, addr, session: String::new() };
        let begun = browser.send("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}))?;
        browser.session = begun["sessionId"].as_str().unwrap_or_default().to_owned();
        Ok(browser)
    }

    /// Opens a page, and returns when it was loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("/url", &json!({"url": url})).map(drop)
    }

    /// How large the page is shown.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size)
    }

    /// Whether the system is said to be dark.
    pub fn dark(&self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", &features)
    }

    /// Has a script run in each page that is opened from now on, before its own.
    pub fn before_each_page(&self, script: &str) -> Result<()> {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({"source": script}))
    }

    /// What a script returns, which is the body of a function with these `arguments`.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.ask("/execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// Clicks in the middle of the first element of a CSS selector. It fails where that is hidden, or lies under another.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.ask(&format!("/element/{element}/click"), &json!({})).map(drop)
    }

    /// Types at the end of a field.
    pub fn write(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.ask(&format!("/element/{element}/value"), &json!({"text": text})).map(drop)
    }

    /// Presses a key, on what has focus.
    pub fn press(&self, key: Key) -> Result<()> {
        let value = match key {
            Key::Tab => "\u{e004}",
            Key::Enter => "\u{e007}",
            Key::Escape => "\u{e00c}",
        };
        let strokes = ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": value}));
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.ask("/actions", &json!({"actions": [keyboard]})).map(drop)
    }

    /// What an element shows; nothing where it is not to be seen.
    pub fn text(&self, selector: &str) -> Result<String> {
        let element = self.element(selector)?;
        let text = self.send("GET", &self.path(&format!("/element/{element}/text")), &Value::Null)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// What the browser complained of since this was last asked: errors of scripts, and what a policy forbade.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.ask("/se/log", &json!({"type": "browser"}))?;
        let entries = log.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(entries.iter().map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect())
    }

    /// A picture of what is shown, as PNG.
    pub fn picture(&self) -> Result<Vec<u8>> {
        let picture = self.send("GET", &self.path("/screenshot"), &Value::Null)?;
        let decoded = BASE64_STANDARD.decode(picture.as_str().unwrap_or_default());
        decoded.map_err(|error| wrong(format!("a picture that is no base64: {error}")))
    }

    fn element(&self, selector: &str) -> Result<String> {
        let found = self.ask("/element", &json!({"using": "css selector", "value": selector}))?;
        let id = found.as_object().and_then(|found| found.values().next()?.as_str());
        id.map(str::to_owned).ok_or_else(|| wrong(format!("no element: {found}")))
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<()> {
        self.ask("/goog/cdp/execute", &json!({"cmd": command, "params": parameters})).map(drop)
    }

    fn path(&self, what: &str) -> String {
        format!("/session/{}{what}", self.session)
    }

    fn ask(&self, what: &str, body: &Value) -> Result<Value> {
        self.send("POST", &self.path(what), body)
    }

    /// The value that is answered; an error tells what was asked.
    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut request = http::request(method, path).patience(PATIENCE);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send(self.addr)?;
        let mut told = answer.json()?;
        if answer.status == 200 {
            return Ok(told["value"].take());
        }
        let (kind, message) = (&told["value"]["error"], &told["value"]["message"]);
        let message = message.as_str().unwrap_or_default().lines().next().unwrap_or_default();
        Err(wrong(format!("{kind} for {method} {path} {body}: {message}")))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with its session; where it cannot any more, there is nobody to tell.
        let _ = self.send("DELETE", &self.path(""), &Value::Null);
        self.driver.stop();
    }
}

fn wrong(detail: String) -> Error {
    Error::Answer { from: "the browser".into(), detail }
}
