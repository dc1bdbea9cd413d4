//! The life of the server: bind, serve, stop on a signal.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::routes::router;
use crate::service::{CallerHeaders, Service};

/// Port that is used unless the user names another.
pub const DEFAULT_PORT: u16 = 8080;

/// Time that running answers have to finish after the first signal.
const GRACE: Duration = Duration::from_secs(10);

/// Why the server could not start or had to stop.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another process listens on the address.
    #[error("{address} is in use")]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The system refused threads, timers or signals, or accepting failed for good.
    #[error("the server stopped: {0}")]
    Io(#[from] io::Error),
}

impl ServeError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ServeError::PortInUse { address } => Some(format!(
                "another program listens on port {}; stop it or choose another port (0 lets the system choose)",
                address.port()
            )),
            ServeError::Bind { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 need privileges; choose a higher one".into())
            }
            ServeError::Bind { error, .. } if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Some("this machine has no such address; 127.0.0.1 and 0.0.0.0 always work".into())
            }
            ServeError::Bind { .. } | ServeError::Io(_) => None,
        }
    }
}

/// Serves until Ctrl-C or SIGTERM; then takes no more requests and gives running answers ten seconds, or until a
/// second signal. Owns its tokio runtime, so that the caller stays synchronous.
///
/// `headers` say who asks. `on_ready` gets the bound address, which tells the port if `address` had port 0.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    service: Arc<dyn Service>,
    address: SocketAddr,
    headers: CallerHeaders,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(run(service, address, headers, on_ready));
    // An answer that is still computed is not waited for: its client has been cut off.
    runtime.shutdown_background();
    served
}

async fn run(
    service: Arc<dyn Service>,
    address: SocketAddr,
    headers: CallerHeaders,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortInUse { address },
        _ => ServeError::Bind { address, error },
    })?;
    let mut signals = Signals::listen()?;
    on_ready(listener.local_addr()?);

    let (stop, stopped) = oneshot::channel();
    let serving = axum::serve(listener, router(service, headers)).with_graceful_shutdown(async {
        // An error means that nobody is left to say stop: the server is ending anyway.
        let _ = stopped.await;
    });
    let patience = async {
        signals.next().await;
        tracing::info!("stopping: running answers may finish");
        // The receiver lives in the server that is polled beside this.
        let _ = stop.send(());
        tokio::select! {
            () = tokio::time::sleep(GRACE) => {}
            () = signals.next() => {}
        }
    };
    tokio::select! {
        ended = serving => Ok(ended?),
        () = patience => Ok(()),
    }
}

/// Ctrl-C and SIGTERM.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ctrl-C.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Signals(tokio::signal::windows::ctrl_c()?))
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}
