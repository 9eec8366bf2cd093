//! A trim server that ends every connection in order (GOAWAY, `NO_ERROR`) once it has reached an age.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::trim_server::TrimServer;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::transport::Server;

use crate::Trimmer;

/// A server on a real socket, as long as it is not dropped.
#[derive(Debug)]
pub struct AgedServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl AgedServer {
    /// A server whose connections end at this age. Calls in flight are answered.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn start(age: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let incoming = TcpListenerStream::new(listener).map(move |stream| {
            counted.fetch_add(1, Ordering::SeqCst);
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        });
        let serving = tokio::spawn(async move {
            let mut server = Server::builder().max_connection_age(age);
            // A failed connection does not end the server: this returns when the task is aborted.
            let _ended = server
                .add_service(TrimServer::new(Trimmer))
                .serve_with_incoming(incoming)
                .await;
        });
        Ok(Self {
            address,
            connections,
            serving,
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for AgedServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
