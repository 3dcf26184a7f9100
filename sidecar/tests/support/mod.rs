//! What the tests stand on: a real Redis, random numbers from a printed seed, and waiting for events.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]

pub mod arbitrary;
pub mod certificates;
pub mod model;
pub mod running;
pub mod trial;

use std::{
    env,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long an event is waited for before the test fails: far longer than it takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A Redis of the test's own, ended when dropped.
pub struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    /// Starts one on a free port and waits until it answers.
    pub fn start() -> Self {
        Self::start_on(free_port())
    }

    pub fn start_on(port: u16) -> Self {
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(&program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", env!("CARGO_TARGET_TMPDIR")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{program} cannot be run ({error}): install it (apt-get install redis-server), or name one in \
                     REDIS_SERVER"
                )
            });
        let server = Self { child, port };
        wait_for("Redis to answer", || {
            let mut connection = server.client().get_connection().ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("the URL is right")
    }

    pub fn connection(&self) -> redis::Connection {
        self.client().get_connection().expect("the test's Redis is up")
    }

    /// How often `command` was executed since the start.
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query(&mut self.connection()).expect("INFO answers");
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
    }

    /// How many connections of sidecars were made since the start. Each says which protocol it speaks; those of tests do not.
    pub fn connections(&self) -> u64 {
        self.calls("hello")
    }

    /// How many runs of the script were begun since the start, without the one by which each connection is found fit.
    pub fn runs(&self) -> u64 {
        self.calls("evalsha") - self.connections()
    }

    /// How many of them had to be sent anew with the whole script. Each connection tries whether it may.
    pub fn whole_scripts(&self) -> u64 {
        self.calls("eval") - self.connections()
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success(), "SIG{name} was not sent");
    }

    /// Ends it at once and gives its port back.
    pub fn kill(mut self) -> u16 {
        self.end();
        self.port
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Polls until there is something; fails the test where there is nothing for 20 s.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Polls until it is true; fails the test where it is not for 20 s.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, mut poll: impl FnMut() -> F) {
    let started = Instant::now();
    while !poll().await {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Random numbers that a seed determines (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in SLUICE_TEST_SEED, otherwise another one each time; printed, so that a failure can be repeated.
    pub fn from_environment() -> Self {
        let seed =
            env::var("SLUICE_TEST_SEED").ok().map(|seed| seed.parse().expect("SLUICE_TEST_SEED is a number"));
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.expect("after 1970").as_nanos() as u64
        });
        println!("SLUICE_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether a thing of that chance happened.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// From 1 to 2^bits − 1, every order of magnitude as likely as another.
    pub fn magnitude(&mut self, bits: u64) -> u64 {
        let bits = 1 + self.below(bits);
        let top = 1 << (bits - 1);
        top + self.below(top)
    }

    pub fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
