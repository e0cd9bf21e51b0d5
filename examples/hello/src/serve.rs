//! The server: accepts connections, serves HTTP/1.1 and h2c, and drains requests at shutdown.

use std::{sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::net::TcpListener;

use crate::behaviour::Function;

/// Pause after a failed accept, which is mostly caused by exhausted file descriptors, until a connection is closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then drains the requests in flight. Connections are bounded by the limit of open files, the shutdown
/// by SIGKILL.
pub(crate) async fn serve(listener: TcpListener, function: Arc<Function>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("Failed to accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("A connection was closed immediately: {error}");
            continue;
        }
        let function = Arc::clone(&function);
        let service = service_fn(move |request| {
            let function = Arc::clone(&function);
            async move { function.respond(request).await }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that leaves is no news.
            watched.await.ok();
        });
    }
    drop(listener);
    graceful.shutdown().await;
    function.tunnels.close();
    function.tunnels.wait().await;
}

#[cfg(test)]
mod tests;
