//! Free ports of the loopback interface for the servers of a test.

use std::{
    net::{TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use anyhow::{Result, ensure};

/// Ports that nothing listens on, below those that the kernel gives to outgoing connections.
///
/// # Errors
///
/// When none are found.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut found = [0; N];
    // Test processes run concurrently; each starts at another port.
    let offset = u16::try_from(std::process::id() % 600)? * 20;
    let mut tries = 0;
    for port in &mut found {
        *port = loop {
            ensure!(tries < 2000, "no free ports");
            tries += 1;
            let port = 20_000 + (offset + NEXT.fetch_add(1, Relaxed)) % 12_000;
            let address = ("127.0.0.1", port);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                break port;
            }
        };
    }
    Ok(found)
}
