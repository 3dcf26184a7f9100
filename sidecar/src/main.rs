//! The sidecar's life: read what was asked for, open the store and the listeners, serve, and drain.

use std::process::ExitCode;

use clap::Parser;
use sluice::{
    config::{Args, Command, Config, EXIT_USAGE, LogFormat, StoreConfig},
    health,
    http::{ListenError, Listener, Service, serve::serve},
    store::{Store, redis::RedisStore},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

// musl's own allocator takes a fifth of the sidecar's time, and a third where batches are large.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

// One thread: the work of a request is small, and was measured to be no quicker on two.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match read_config() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if config.command == Some(Command::Health) {
        return ask_health(&config);
    }
    log(config.log_format, &config.log_filter);
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_config() -> Result<Config, ExitCode> {
    let args = Args::try_parse().map_err(|error| {
        // Help and version are errors to the library, and not to us. Nothing can be told where printing fails.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })?;
    Config::try_from(args).map_err(|error| {
        eprintln!("sluice: {error}");
        ExitCode::from(EXIT_USAGE)
    })
}

/// Of several listeners the first is asked: all are served by the same store.
fn ask_health(config: &Config) -> ExitCode {
    match config.listen.first().map(health::ask) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("sluice: {error}");
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}

fn log(format: LogFormat, filter: &str) {
    // It was parsed when the configuration was checked.
    let filter: Targets = filter.parse().unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("signals cannot be heard: {0}")]
    Signals(#[from] std::io::Error),
}

async fn run(config: Config) -> Result<(), RunError> {
    let signals = Signals::hear()?;
    let mut listeners = Vec::with_capacity(config.listen.len());
    for address in &config.listen {
        listeners.push(Listener::open(address).await?);
    }
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(signals.tell(stop));
    let store = tokio::select! {
        store = open_store(config.store) => store,
        _ = &mut stopped => return Ok(()),
    };
    for listener in &listeners {
        info!(address = listener.address(), "listening");
    }
    let service = Service::new(store, config.max_body_bytes);
    let shutdown = async {
        // The teller lives as long as the process, so an error cannot come.
        let _ = stopped.await;
    };
    if serve(listeners, service, shutdown, config.shutdown_grace).await {
        info!("stopped; every request that was under way was answered");
    } else {
        warn!("stopped; some requests were not finished within --shutdown-grace");
    }
    Ok(())
}

async fn open_store(config: StoreConfig) -> Store {
    match config {
        StoreConfig::Memory { max_buckets } => {
            info!(
                max_buckets,
                "buckets are kept in memory: limits hold for the Envoys that share this sidecar"
            );
            Store::memory(max_buckets)
        }
        StoreConfig::Redis { address, timeouts } => {
            info!(redis = %address, "buckets are kept in Redis: limits hold for all sidecars that share it");
            Store::Redis(RedisStore::start(address, timeouts).await)
        }
    }
}

/// The signals that end a process politely.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn hear() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Tells of the first signal; at the second the process ends at once.
    async fn tell(mut self, stop: tokio::sync::oneshot::Sender<()>) {
        self.next().await;
        let _ = stop.send(());
        self.next().await;
        eprintln!("sluice: ended at once by a second signal; requests under way were not answered");
        std::process::exit(1);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
