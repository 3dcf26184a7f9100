//! Keeps the table as the store has it: its version is asked for a few times a second, and what was changed where it is
//! another. All of it is read only at first, and by whoever has missed too much.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{MutexGuard, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use super::{
    ChangeError, Override,
    table::{Current, MAX_OVERRIDES, Table},
};
use crate::store::redis::{Change, Control, ControlError, Seen, Since};

/// Between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// The most that have expired and are dropped from the store at each change.
const DROPPED_AT_ONCE: usize = 32;

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
    /// What was seen last; nothing until the table was read. Whoever looks or changes holds it, so that nobody's change is
    /// undone by a look that began before it.
    known: tokio::sync::Mutex<Option<Known>>,
}

/// By what is seen that there is anything new.
#[derive(Debug)]
struct Known {
    /// The version of the table.
    version: Vec<u8>,
    /// What else was told last.
    told: Vec<u8>,
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
        let state = State { control, current, heard: Mutex::default(), known: tokio::sync::Mutex::default() };
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
        let mut known = self.state.alone().await?;
        let value = with.to_value();
        let change = Change::Put { bucket_key, value: &value, most: MAX_OVERRIDES };
        let put = |table: &mut Table| table.put(bucket_key.to_owned(), with.clone());
        let mut done = self.state.change(&mut known, change, put).await?;
        if !done {
            // What has expired makes room, and all of that is not known here.
            *known = None;
            let read = self.state.see(&mut known).await;
            read.map_err(|error| ChangeError::Unasked(error.to_string()))?;
            done = self.state.change(&mut known, change, put).await?;
        }
        if done { Ok(()) } else { Err(ChangeError::TooMany) }
    }

    pub(super) async fn remove(&self, bucket_key: &str) -> Result<bool, ChangeError> {
        let mut known = self.state.alone().await?;
        let remove = |table: &mut Table| drop(table.remove(bucket_key));
        let done = self.state.change(&mut known, Change::Remove { bucket_key }, remove).await?;
        if !done {
            // It was not there, or had expired: nor is it here.
            self.state.current.change(|table| table.remove(bucket_key));
        }
        Ok(done)
    }

    /// An error is no matter: what others know to be denied they forget a moment later by themselves.
    pub(super) async fn tell_others(&self) {
        let _ = self.state.control.change(Change::Tell, &[]).await;
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
        let (mut silent, mut control) = (0_u32, self.control.clone());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // What is blocked is to be known before much is decided over it.
                () = control.relinked() => {}
            }
            match self.look().await {
                Ok(()) => {
                    if silent >= SILENT_LOOKS {
                        info!("the overrides of operators are known again");
                    }
                    silent = 0;
                }
                Err(error) => {
                    silent = silent.saturating_add(1);
                    if silent == SILENT_LOOKS && self.lock_heard().is_none() {
                        warn!(%error, "the overrides of operators have never been read; it is not ready until they are");
                    } else if silent == SILENT_LOOKS {
                        warn!(%error, "the overrides of operators cannot be read; those that were known last stay");
                    }
                }
            }
            tell.send_replace(true);
        }
    }

    async fn look(&self) -> Result<(), ControlError> {
        let mut known = self.known.lock().await;
        self.see(&mut known).await
    }

    /// Sees what is new, and brings the table to it.
    async fn see(&self, known: &mut Option<Known>) -> Result<(), ControlError> {
        let Seen { now_us, version, told } = self.control.look().await?;
        let at = Instant::now();
        let is_new = known.as_ref().is_none_or(|known| known.version != version || known.told != told);
        let version = match known.take() {
            Some(known) if known.version == version => version,
            Some(before) => match self.control.since(&before.version).await {
                Ok(Some(since)) => self.follow(since, now_us),
                Ok(None) => self.read().await?,
                Err(error) => {
                    *known = Some(before);
                    return Err(error);
                }
            },
            None => self.read().await?,
        };
        *known = Some(Known { version, told });
        self.lock_heard().replace(Heard { at, now_us });
        // They stay in the table, and do nothing, until somebody changes something and drops them from the store.
        let has_ended = self.current.change(|table| table.has_ended(now_us));
        if is_new || has_ended {
            // What is known to be denied may have been denied by what holds no longer.
            self.control.forget_denials();
        }
        Ok(())
    }

    /// Brings the table to a version by what was changed since its own; that version.
    fn follow(&self, since: Since, now_us: u64) -> Vec<u8> {
        let mut unknown = 0;
        self.current.change(|table| {
            for (bucket_key, value) in since.values {
                let Ok(bucket_key) = String::from_utf8(bucket_key) else { continue };
                match Override::from_value(&value) {
                    Some(with) => table.put(bucket_key, with),
                    None => {
                        unknown += usize::from(!value.is_empty());
                        table.remove(&bucket_key);
                    }
                }
            }
            if table.len() > MAX_OVERRIDES {
                // Others have dropped them from the store.
                table.forget_expired(now_us);
            }
        });
        tell_unknown(unknown);
        since.version
    }

    /// Reads the whole table; its version.
    async fn read(&self) -> Result<Vec<u8>, ControlError> {
        let kept = self.control.read().await?;
        let count = kept.values.len();
        let entries = kept.values.into_iter();
        let overrides = entries.filter_map(|(bucket_key, value)| {
            String::from_utf8(bucket_key).ok().zip(Override::from_value(&value))
        });
        let table: Table = overrides.collect();
        tell_unknown(count - table.len());
        self.current.set(table);
        Ok(kept.version)
    }

    /// Waits until nobody else looks or changes, for as long as Redis is waited for.
    async fn alone(&self) -> Result<MutexGuard<'_, Option<Known>>, ChangeError> {
        let patience = self.control.patience();
        let waited = timeout(patience, self.known.lock()).await;
        waited.map_err(|_| ChangeError::Unasked(format!("Redis has not told for {patience:?} what there is")))
    }

    /// Changes the store and, where that was done, the table likewise.
    async fn change(
        &self,
        known: &mut Option<Known>,
        change: Change<'_>,
        likewise: impl FnOnce(&mut Table),
    ) -> Result<bool, ChangeError> {
        let expired: Vec<String> = match self.now_us() {
            Some(now_us) => {
                let table = self.current.get();
                table.expired(now_us).take(DROPPED_AT_ONCE).map(|(key, _)| key.to_owned()).collect()
            }
            None => Vec::new(),
        };
        let made = self.control.change(change, &expired).await.map_err(|error| match error {
            ControlError::Unlinked | ControlError::Nowhere(_) | ControlError::Refused(_) => {
                ChangeError::Unasked(error.to_string())
            }
            error => ChangeError::Unavailable(error.to_string()),
        })?;
        self.current.change(|table| {
            for bucket_key in &expired {
                table.remove(bucket_key);
            }
            if made.is_some() {
                likewise(table);
            }
        });
        self.control.forget_denials();
        let Some(made) = made else { return Ok(false) };
        match known.take() {
            Some(before) if before.version == made.before => {
                *known = Some(Known { version: made.after, ..before });
            }
            // Others have changed something meanwhile. If that cannot be heard now, the next look reads all.
            Some(before) => {
                if let Ok(Some(since)) = self.control.since(&before.version).await {
                    let version = self.follow(since, self.now_us().unwrap_or(0));
                    *known = Some(Known { version, ..before });
                    self.control.forget_denials();
                }
            }
            None => {}
        }
        Ok(true)
    }

    fn now_us(&self) -> Option<u64> {
        let heard = (*self.lock_heard())?;
        Some(heard.now_us.saturating_add(micros(heard.at.elapsed())))
    }

    /// Nothing that holds it can panic halfway, so what a panic left is as good as before.
    fn lock_heard(&self) -> std::sync::MutexGuard<'_, Option<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_unknown(unknown: usize) {
    if unknown > 0 {
        warn!(unknown, "some overrides in Redis are of a form that is not known, and do nothing here");
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
