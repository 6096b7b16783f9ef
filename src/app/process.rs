//! Serving process: signals, reloads, handover, and notifications to systemd.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::file_watcher::FileWatcher;
use super::{App, StartError, handover};
use crate::config::settings::RouteSettings;
use crate::config::{ConfigChanges, ConfigOrigin, Reload, ReloadError, Settings};
use crate::index::Index;
use crate::listen::inherited::InheritedSockets;

/// End of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeEnd {
    /// Requests in flight have ended, or were cut at the deadline.
    Drained,
    /// A second signal came.
    AtOnce,
}

/// Action that a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalAction {
    Stop(&'static str),
    Reload,
    Successor,
}

/// Reason of the stop after a handover.
const HANDED_OVER: &str = "SIGUSR2";

/// Serves with the settings that were read from `config`, until a signal ends the process.
pub async fn serve(config: &ConfigOrigin, settings: Settings) -> Result<ServeEnd, StartError> {
    log_start(config, &settings);
    // Install signal handlers before READY=1: a SIGTERM right after it must drain, not kill.
    let mut signals = ProcessSignals::new().map_err(StartError::Process)?;
    let inherited = InheritedSockets::from_environment().map_err(StartError::Process)?;
    let mut files = FileWatcher::of(config.path(), &settings);
    let (reload, mut requests) = Reload::new();
    let mut app = App::start_on(settings, inherited).await?;
    app.set_reload_handle(reload);
    if let Some(address) = app.admin {
        let scheme = if app.settings().admin.tls.is_some() { "https" } else { "http" };
        tracing::info!(%address, url = format!("{scheme}://{address}/"), "admin pages: dashboard, /livez, /readyz, /metrics");
    }
    let index = Arc::clone(&app.index);
    let counting = tokio::task::spawn_blocking(move || log_index(&index));
    handover::tell_predecessor().map_err(StartError::Process)?;
    sd_notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    let watchdog = tokio::spawn(feed_watchdog());
    let why = loop {
        let reply_to = tokio::select! {
            action = signals.next() => match action {
                SignalAction::Stop(why) => break why,
                SignalAction::Successor if hand_over(&app).await => break HANDED_OVER,
                SignalAction::Successor => continue,
                SignalAction::Reload => None,
            },
            Some(reply_to) = requests.recv() => Some(reply_to),
            () = files.changed() => None,
        };
        let changes = reload_settings(config, &mut app);
        files.follow(&app.settings());
        if let Some(reply_to) = reply_to {
            let _ = reply_to.send(changes);
        }
    };
    tracing::info!(
        signal = why,
        drain_s = app.drain().as_secs(),
        "stopping: no new connections, requests in flight end; a second signal ends them at once"
    );
    // STOPPING=1 would end the whole unit, and with it the successor, whichever process sends it.
    if why != HANDED_OVER {
        sd_notify(&[NotifyState::Stopping, NotifyState::Status("requests in flight end")]);
    }
    let ended = tokio::select! {
        cut = app.stop() => {
            if cut > 0 {
                tracing::warn!(connections = cut, "cut at the deadline ([server] drain)");
            }
            tracing::info!("stopped");
            ServeEnd::Drained
        }
        why = signals.stops() => {
            tracing::warn!(signal = why, "stopped at once: requests in flight were cut");
            ServeEnd::AtOnce
        }
    };
    watchdog.abort();
    counting.abort();
    Ok(ended)
}

/// Logs the version, the configuration and the routes.
fn log_start(config: &ConfigOrigin, settings: &Settings) {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, configuration = %config.path().display(), "starting");
    for RouteSettings { prefix, upstream, kind, connect, hosts, .. } in &settings.routes {
        let upstream = format!("{}://{}{}", upstream.scheme, upstream.authority, upstream.path);
        let list = |all: Vec<String>| (!all.is_empty()).then(|| all.join(", "));
        let connect = list(connect.iter().map(ToString::to_string).collect());
        tracing::info!(prefix, upstream, kind = kind.as_str(), connect, hosts = list(hosts.clone()), "route");
    }
}

/// Logs the size and age of the index at the start.
fn log_index(index: &Index) {
    match index.stats() {
        Ok(stats) => {
            let read = stats.read.map(|at| UNIX_EPOCH + Duration::from_secs(at.unsigned_abs()));
            let age = read.and_then(|at| SystemTime::now().duration_since(at).ok());
            let age =
                age.map(|age| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string());
            let (images, canvases, manifests) = (stats.images, stats.canvases, stats.manifests);
            let path = stats.path.display();
            tracing::info!(%path, images, canvases, manifests, age, "opened the index");
        }
        Err(error) => tracing::warn!(%error, "the index cannot be counted"),
    }
}

/// Reads file and environment. A bad one changes nothing.
fn reload_settings(config: &ConfigOrigin, app: &mut App) -> Result<ConfigChanges, ReloadError> {
    let now = NotifyState::monotonic_usec_now();
    sd_notify(&[NotifyState::Reloading].into_iter().chain(now.ok()).collect::<Vec<_>>());
    let changes = match config.load(std::env::vars_os()) {
        Ok(settings) => app.apply(settings),
        Err(errors) => {
            app.metrics.edge.config_reload("refused");
            Err(errors.into())
        }
    };
    let status = match &changes {
        Ok(changes) => {
            let ConfigChanges { keys, after_restart, certificates } = changes;
            tracing::info!(changed = keys.join(", "), certificates, "the configuration was read anew");
            if !after_restart.is_empty() {
                tracing::warn!(keys = after_restart.join(", "), "these keys change only with a restart");
            }
            "serving"
        }
        Err(error) => {
            tracing::error!(%error, "the configuration was read anew and is of no use: the old one stays");
            "serving; the new configuration is of no use, the old one stays"
        }
    };
    sd_notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    changes
}

/// Starts a successor. True if it serves.
async fn hand_over(app: &App) -> bool {
    tracing::info!("starting a successor on our sockets");
    match handover::start(app).await {
        Ok(process) => {
            tracing::info!(process, "the successor serves");
            sd_notify(&[NotifyState::MainPid(process)]);
            true
        }
        Err(error) => {
            tracing::error!(%error, "there is no successor: going on");
            false
        }
    }
}

/// Notifies systemd, if `NOTIFY_SOCKET` is set.
fn sd_notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

/// Feeds systemd's watchdog, where one is set, as long as the runtime runs.
async fn feed_watchdog() {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut every = tokio::time::interval((within / 2).max(Duration::from_millis(10)));
    loop {
        every.tick().await;
        sd_notify(&[NotifyState::Watchdog]);
    }
}

/// The signals that mean something.
struct ProcessSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    second_user: Signal,
}

impl ProcessSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            second_user: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalAction::Stop("SIGINT"),
            _ = self.hang_up.recv() => SignalAction::Reload,
            _ = self.second_user.recv() => SignalAction::Successor,
        }
    }

    /// Waits for one that stops us, and names it.
    async fn stops(&mut self) -> &'static str {
        loop {
            if let SignalAction::Stop(why) = self.next().await {
                return why;
            }
        }
    }
}
