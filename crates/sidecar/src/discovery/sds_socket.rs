//! Secrets for other programs in the pod, on a Unix socket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::ResourceSet;
use outrider_xds::sds;
use tokio::sync::watch;

/// The environment variable that names the socket.
pub const SDS_SOCKET: &str = "OUTRIDER_SDS_SOCKET";

/// Only the proxy's own user (and root): whoever connects gets the key.
const MODE: u32 = 0o600;

/// How long to wait before the socket is tried again: its folder may be mounted later, and a
/// process that is being replaced may hold it.
const RETRY: Duration = Duration::from_secs(5);

/// The path that `OUTRIDER_SDS_SOCKET` gives, looked up by `variable`; `None`: no socket.
pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    variable(SDS_SOCKET)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Serves `secrets` at `path`, in both forms of SDS, for as long as the process lives; the socket
/// that it leaves is replaced at the next start. It begins once there are secrets: before that,
/// clients see that nobody is there and come again, instead of being told that what they want does
/// not exist. A socket that cannot be made is logged and tried again.
pub async fn serve(path: PathBuf, mut secrets: watch::Receiver<Arc<ResourceSet>>) {
    let filled = |set: &Arc<ResourceSet>| !set.kind(ResourceType::Secret).is_empty();
    if secrets.wait_for(filled).await.is_err() {
        return;
    }
    loop {
        let service = sds::service(secrets.clone(), "outrider-sidecar");
        let shutdown = std::future::pending::<()>();
        tracing::info!(path = %path.display(), "serving secrets to other programs in the pod");
        match sds::serve_unix(&path, MODE, service, shutdown).await {
            Ok(()) => return,
            Err(error) => tracing::error!(
                %error,
                "cannot serve secrets ({SDS_SOCKET}); trying again in {RETRY:?}"
            ),
        }
        tokio::time::sleep(RETRY).await;
    }
}
