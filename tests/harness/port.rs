//! Port numbers that no other test uses: for servers that need a fixed port, and for addresses without a server.
//!
//! Asking the kernel for a free port, closing it and starting a server on it is a race: an outgoing connection may get
//! the number in between. These numbers lie below the kernel's range for outgoing connections.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use super::eventually::eventually;

const SOON: Duration = Duration::from_secs(10);

/// The range starts above the ports of common services, and ends where Linux's range for outgoing connections starts.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A TCP port of 127.0.0.1 without a listener. No other test in any process gets it until this value is dropped.
pub(crate) struct Port {
    number: u16,
    /// The UDP port of the same number, which none of our servers uses. It marks the port as taken for other tests, and
    /// the kernel releases it when this process ends in any way.
    _reservation: UdpSocket,
}

impl Port {
    pub(crate) fn free() -> Self {
        // Each process starts at another number, so that processes rarely try the same ones.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let begin = u16::try_from(std::process::id() % u32::from(COUNT)).expect("less than a u16");
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + u32::from(begin);
            let number = FIRST + u16::try_from(step % u32::from(COUNT)).expect("less than a u16");
            let Ok(reservation) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("no free port from {FIRST} on");
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.number).into()
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number.fmt(f)
    }
}

#[tokio::test]
async fn a_port_is_unique_until_it_is_dropped() {
    let ports: Vec<Port> = (0..50).map(|_| Port::free()).collect();
    let numbers: std::collections::HashSet<u16> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
    let address = ports[0].address();
    // A server can listen on the port, and other tests see by its UDP port that it is taken. A process that another
    // test is starting has copies of our sockets until its `exec`.
    eventually("a server can listen", SOON, async || TcpListener::bind(address).is_ok()).await;
    UdpSocket::bind(address).expect_err("taken for other tests");
    drop(ports);
    eventually("the port is free again", SOON, async || UdpSocket::bind(address).is_ok()).await;
}
