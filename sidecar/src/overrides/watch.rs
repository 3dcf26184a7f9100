//! Keeps the table as the store has it: its version is asked for a few times a second, and all is read where it is another.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    ChangeError, Override,
    table::{Current, MAX_OVERRIDES, Table},
};
use crate::store::redis::{Change, Control, ControlError};

/// Between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// The most that have expired and are dropped from the store at each change.
const DROPPED_AT_ONCE: usize = 1_000;

/// For how many looks in a row nothing is heard before it is told: a store that is down tells of itself.
const SILENT_LOOKS: u32 = 10;

/// The table of a store that is shared. It is kept until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    state: Arc<State>,
    looking: AbortHandle,
    tried: watch::Receiver<bool>,
}

#[derive(Debug)]
struct State {
    control: Control,
    current: Arc<Current>,
    heard: Mutex<Option<Heard>>,
    /// The version of the table; the outer one is nothing until it was read. Whoever looks or changes holds it, so that
    /// nobody's change is undone by a look that began before it.
    version: tokio::sync::Mutex<Option<Option<Vec<u8>>>>,
}

/// When something was heard of the store.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    /// Its time then.
    now_us: u64,
}

impl Watched {
    /// Begins to keep `current`. Must live in a tokio runtime.
    pub(super) fn start(control: Control, current: Arc<Current>) -> Self {
        let state =
            State { control, current, heard: Mutex::default(), version: tokio::sync::Mutex::default() };
        let state = Arc::new(state);
        let (tell, tried) = watch::channel(false);
        let looking = tokio::spawn(Arc::clone(&state).keep_looking(tell)).abort_handle();
        Self { state, looking, tried }
    }

    /// Waits for the first look, whatever came of it.
    pub(super) async fn tried(&self) {
        // An error means that nobody looks any more.
        let _ = self.tried.clone().wait_for(|tried| *tried).await;
    }

    /// How long ago the table was known to be as the store has it; nothing where it never was.
    pub(super) fn age_us(&self) -> Option<u64> {
        let heard = (*self.state.lock_heard())?;
        Some(micros(heard.at.elapsed()))
    }

    /// The store's time; nothing before it was heard.
    pub(super) fn now_us(&self) -> Option<u64> {
        self.state.now_us()
    }

    pub(super) async fn put(&self, bucket_key: &str, with: Override) -> Result<(), ChangeError> {
        let value = with.to_value();
        let change = Change::Put { bucket_key, value: &value, most: MAX_OVERRIDES };
        match self.state.change(change).await? {
            true => Ok(()),
            false => Err(ChangeError::TooMany),
        }
    }

    pub(super) async fn remove(&self, bucket_key: &str) -> Result<bool, ChangeError> {
        self.state.change(Change::Remove { bucket_key }).await
    }

    /// An error is no matter: what others know to be denied they forget a moment later by themselves.
    pub(super) async fn tell_others(&self) {
        let _ = self.state.change(Change::Tell).await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl State {
    async fn keep_looking(self: Arc<Self>, tell: watch::Sender<bool>) {
        let mut ticks = interval(BETWEEN_LOOKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = 0_u32;
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(()) => {
                    if silent >= SILENT_LOOKS {
                        info!("the overrides of operators are known again");
                    }
                    silent = 0;
                }
                Err(error) => {
                    silent = silent.saturating_add(1);
                    if silent == SILENT_LOOKS {
                        warn!(%error, "the overrides of operators cannot be read; those that were known last stay");
                    }
                }
            }
            tell.send_replace(true);
        }
    }

    async fn look(&self) -> Result<(), ControlError> {
        let mut known = self.version.lock().await;
        let (now_us, version) = self.control.look().await?;
        if known.as_ref() != Some(&version) {
            *known = Some(self.read().await?);
            return Ok(());
        }
        let before = self.hear(now_us);
        // They stay in the table, and do nothing, until somebody changes something and drops them from the store.
        if self.current.get().expired(now_us).any(|(_, found)| found.holds(before)) {
            self.control.forget_denials();
        }
        Ok(())
    }

    /// Reads the whole table; its version.
    async fn read(&self) -> Result<Option<Vec<u8>>, ControlError> {
        let kept = self.control.read().await?;
        let count = kept.values.len();
        let entries = kept.values.into_iter();
        let overrides = entries.filter_map(|(bucket_key, value)| {
            String::from_utf8(bucket_key).ok().zip(Override::from_value(&value))
        });
        let table: Table = overrides.collect();
        if table.len() < count {
            let unknown = count - table.len();
            warn!(unknown, "some overrides in Redis are of a form that is not known, and do nothing here");
        }
        self.current.set(table);
        // What is known to be denied may have been denied by what holds no longer.
        self.control.forget_denials();
        self.hear(kept.now_us);
        Ok(kept.version)
    }

    async fn change(&self, change: Change<'_>) -> Result<bool, ChangeError> {
        let mut known = self.version.lock().await;
        let expired: Vec<String> = match self.now_us() {
            Some(now_us) => {
                let table = self.current.get();
                table.expired(now_us).take(DROPPED_AT_ONCE).map(|(key, _)| key.to_owned()).collect()
            }
            None => Vec::new(),
        };
        let unavailable = |error: ControlError| ChangeError::Unavailable(error.to_string());
        let done = self.control.change(change, &expired).await.map_err(unavailable)?;
        // It was done, and is known here by the next look at the latest.
        *known = self.read().await.ok();
        Ok(done)
    }

    /// When something was heard before, by the store's clock.
    fn hear(&self, now_us: u64) -> u64 {
        let before = self.lock_heard().replace(Heard { at: Instant::now(), now_us });
        before.map_or(0, |before| before.now_us)
    }

    fn now_us(&self) -> Option<u64> {
        let heard = (*self.lock_heard())?;
        Some(heard.now_us.saturating_add(micros(heard.at.elapsed())))
    }

    /// Nothing that holds it can panic halfway, so what a panic left is as good as before.
    fn lock_heard(&self) -> MutexGuard<'_, Option<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
