//! Asks the sidecar each second and whenever something is wanted, apart from the screen: so a sidecar that hesitates
//! keeps nobody from leaving.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use super::{busiest, screen::Screen};
use crate::{
    admin_client::{
        Ask, AskError, Client,
        answers::{Bucket, Stats, Top, TopKey},
        bucket_path, encoded,
    },
    command::{By, TopArgs},
};

/// How often the numbers are asked for.
const EVERY: Duration = Duration::from_secs(1);

/// What is told each time.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) stats: Stats,
    pub(super) top: Top,
    /// Which of them.
    pub(super) by: By,
}

/// What the person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The keys by this from now on.
    By(By),
    /// How this key's bucket stands, from now on.
    Watch(TopKey),
    /// No bucket any more.
    Unwatch,
    /// A full bucket for this key, and how it stands from now on.
    Reset(TopKey),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Told {
    Seen(Result<Seen, AskError>),
    Bucket(Result<Bucket, AskError>),
    Reset(Result<Bucket, AskError>),
}

#[derive(Debug)]
pub(super) struct Asker {
    orders: Sender<Order>,
    told: Receiver<Told>,
}

impl Asker {
    /// Begins to ask, until this is dropped.
    pub(super) fn start(client: Client, args: TopArgs) -> Self {
        let (orders, ordered) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || ask_on(&client, &args, &ordered, &tell));
        Self { orders, told }
    }

    pub(super) fn order(&self, order: Order) {
        // It asks for as long as this is there.
        let _ = self.orders.send(order);
    }

    /// Shows all that was told meanwhile; whether there was anything.
    pub(super) fn answers(&self, screen: &mut Screen) -> bool {
        let mut any = false;
        while let Ok(told) = self.told.try_recv() {
            any = true;
            match told {
                Told::Seen(seen) => screen.see(seen),
                Told::Bucket(bucket) => screen.see_bucket(bucket),
                Told::Reset(bucket) => screen.see_reset(bucket),
            }
        }
        any
    }
}

fn ask_on(client: &Client, args: &TopArgs, orders: &Receiver<Order>, tell: &Sender<Told>) {
    let mut by = args.by;
    let mut watched: Option<TopKey> = None;
    loop {
        let order = match orders.recv_timeout(EVERY) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let told = match order {
            Some(Order::Unwatch) => {
                watched = None;
                continue;
            }
            Some(Order::Watch(key)) => {
                let told = Told::Bucket(bucket(client, &key, ""));
                watched = Some(key);
                told
            }
            Some(Order::Reset(key)) => {
                let told = Told::Reset(bucket(client, &key, "/reset"));
                watched = Some(key);
                told
            }
            Some(Order::By(other)) => {
                by = other;
                Told::Seen(look_at(client, args, by))
            }
            None => {
                if let Some(key) = &watched
                    && tell.send(Told::Bucket(bucket(client, key, ""))).is_err()
                {
                    return;
                }
                Told::Seen(look_at(client, args, by))
            }
        };
        if tell.send(told).is_err() {
            return;
        }
    }
}

/// Both answers that the screen shows.
pub(super) fn look_at(client: &Client, args: &TopArgs, by: By) -> Result<Seen, AskError> {
    let stats = client.ask(&Ask::get("/v1/stats"))?.read()?;
    let top = client.ask(&busiest(args, by.word()))?.read()?;
    Ok(Seen { stats, top, by })
}

fn bucket(client: &Client, key: &TopKey, of_it: &str) -> Result<Bucket, AskError> {
    let path = bucket_path(&key.policy, &key.key);
    let path = format!("{path}{of_it}?domain={}", encoded(&key.domain));
    let ask = if of_it.is_empty() { Ask::get(path) } else { Ask::post(path, None) };
    client.ask(&ask)?.read()
}
