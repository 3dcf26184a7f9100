//! The sidecar's life: read what was asked for, open the store and the listeners, serve, and drain.

use std::{env, io::Write, process::ExitCode, sync::Arc, time::Duration};

use sluice::{
    command::{self, CommandLine, complain, misused},
    config::{Config, EXIT_USAGE, StoreConfig, without_passwords},
    descriptors::{self, TooFew},
    http::{
        self, ListenError, Listener, Purpose, Service,
        room::Room,
        serve::{Clients, Door, serve},
        tls::{self, TlsError},
    },
    logging::LogLevels,
    spans::{InvalidReceiver, Receiver, Spans},
    store::{
        Store,
        redis::{RedisStore, cluster::ClusterStore},
    },
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{info, warn};

// musl's own allocator takes a fifth of the sidecar's time, and a third where batches are large.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Operators are few, and have room of their own.
const ADMIN_CONNECTIONS: usize = 64;
/// That much more where they ask from this machine.
const LOCAL_ADMIN_CONNECTIONS: usize = 8;

/// How long the last spans may take once everything else has ended.
const SPANS_GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match CommandLine::read(env::args_os()) {
        Ok((Some(task), args)) => command::run(&task, &args),
        Ok((None, args)) => Config::try_from(args).map_or_else(|error| misused(&error), serve_until_told),
        Err(error) => misread(&error),
    }
}

/// Help and version are errors to the library, and not to us. Nothing can be told where printing fails.
fn misread(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let said = without_passwords(&error.render().ansi().to_string());
    let _ = write!(anstream::stderr(), "{said}");
    ExitCode::from(EXIT_USAGE)
}

// One thread: the work of a request is small, and was measured to be no quicker on two.
fn serve_until_told(config: Config) -> ExitCode {
    let logging = LogLevels::start(config.log_format, config.log_filter.clone());
    let ended =
        Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime).and_then(|runtime| {
            let ended = runtime.block_on(run(config, logging));
            // A name that is still looked up is not waited for: a resolver that never answers may take a minute.
            runtime.shutdown_background();
            ended
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    #[error(transparent)]
    Spans(#[from] InvalidReceiver),
    #[error("this program's runtime cannot begin: {0}")]
    Runtime(std::io::Error),
    #[error("signals cannot be heard: {0}")]
    Signals(#[from] std::io::Error),
}

async fn run(mut config: Config, logging: Arc<LogLevels>) -> Result<(), RunError> {
    let signals = Signals::hear()?;
    config.limits.max_connections = affordable(config.limits.max_connections)?;
    let (tls, admin_tls) = config.tls.map(tls::start).transpose()?.unzip();
    let mut listeners = Vec::with_capacity(config.listen.len());
    for address in &config.listen {
        listeners.push(Listener::open(address, Purpose::Data(config.socket_mode)).await?);
    }
    let admin = match config.admin {
        None => None,
        Some((address, guard)) => {
            // Nobody between reads what stays on this machine, and a token that leaves it is to be encrypted.
            let tls = admin_tls.filter(|_| !address.is_local());
            Some((Listener::open(&address, Purpose::Admin).await?, guard, tls))
        }
    };
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(signals.tell(stop, config.shutdown_delay));
    let store = tokio::select! {
        store = open_store(config.store) => store,
        _ = &mut stopped => return Ok(()),
    };
    let spans = start_spans(config.spans.as_ref(), config.spans_unusable, &store)?;
    let service = Service::told(store, config.limits, logging, spans);
    tokio::select! {
        // Before it is said to be ready, so that what an operator has blocked is blocked from the first take on.
        () = service.tried() => {}
        _ = &mut stopped => return Ok(()),
    }
    let mut doors = Vec::with_capacity(listeners.len() + 1);
    // The admin listener first: whoever waits for the line of the data listener may ask at both.
    if let Some((listener, guard, tls)) = admin {
        info!(address = listener.address(), tls = tls.is_some(), "operators may ask");
        let (router, connections) =
            (http::admin::router(Arc::clone(&service), guard), Room::new(ADMIN_CONNECTIONS));
        let clients = Clients::Operators(Room::new(LOCAL_ADMIN_CONNECTIONS));
        doors.push(Door { listener, router, tls, connections, clients });
    }
    for listener in listeners {
        let tls = tls.clone().filter(|_| matches!(listener, Listener::Tcp(_)));
        info!(address = listener.address(), tls = tls.is_some(), "listening");
        doors.push(Door {
            listener,
            router: http::router(Arc::clone(&service)),
            tls,
            connections: service.connections(),
            clients: Clients::Envoys,
        });
    }
    let shutdown = async {
        // The teller lives as long as the process, so an error cannot come.
        stopped.await.unwrap_or_default()
    };
    let finished = serve(doors, Arc::clone(&service), shutdown, config.shutdown_grace).await;
    service.flush_spans(SPANS_GRACE).await;
    if finished {
        info!("stopped; every request that was under way was answered");
    } else {
        warn!("stopped; some requests were not finished within --shutdown-grace");
    }
    Ok(())
}

/// Spans are told where somebody asks for them by our flag; where only the environment does, as well as can be.
fn start_spans(
    receiver: Option<&Receiver>,
    unusable: Option<String>,
    store: &Store,
) -> Result<Option<Spans>, InvalidReceiver> {
    let started = receiver.map(|receiver| Spans::start(receiver, store.kind())).transpose();
    let (spans, unusable) = match started {
        Err(error) if receiver.is_some_and(|receiver| !receiver.is_asked_for()) => {
            (None, Some(error.to_string()))
        }
        started => (started?, unusable),
    };
    if let Some(reason) = unusable {
        warn!(
            reason,
            "no spans are told, since what the environment says of their receiver cannot be obeyed"
        );
    }
    if let Some(receiver) = receiver.filter(|_| spans.is_some()) {
        info!(receiver = receiver.origin(), "sampled takes are told as spans");
    }
    Ok(spans)
}

/// As many connections as are wanted, or as there are files for. Without any left Redis could not be reached again.
fn affordable(wanted: usize) -> Result<usize, TooFew> {
    let affordable = descriptors::for_connections()?;
    if affordable < wanted {
        warn!(
            wanted,
            max = affordable,
            "--max-connections is lowered, since this process may not have more files open: allow more by `ulimit -n`, \
             LimitNOFILE of systemd or --ulimit of Docker"
        );
    }
    Ok(wanted.min(affordable))
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
        StoreConfig::Redis { address, asking } => {
            info!(redis = %address, "buckets are kept in Redis: limits hold for all sidecars that share it");
            Store::Redis(RedisStore::start(address, asking).await)
        }
        StoreConfig::Cluster { address, asking } => {
            info!(redis = %address, "buckets are kept in a Redis Cluster: limits hold for all sidecars that share it");
            Store::Cluster(ClusterStore::start(address, asking).await)
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

    /// Tells of the first signal, and how long to go on deciding after it: a person at a terminal does not want to wait. At
    /// the second the process ends at once.
    async fn tell(mut self, stop: tokio::sync::oneshot::Sender<Duration>, delay: Duration) {
        let terminated = self.next().await;
        let _ = stop.send(if terminated { delay } else { Duration::ZERO });
        self.next().await;
        complain(&"ended at once by a second signal; requests under way were not answered");
        std::process::exit(1);
    }

    /// Whether the next one is SIGTERM.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => false,
        }
    }
}
