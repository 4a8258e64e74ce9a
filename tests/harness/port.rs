//! Port numbers that no other test uses: for a server that must be given its port, and for one that must not be there.
//!
//! Asking the kernel for a free port, closing it and starting a server on it is a race: any outgoing connection may get
//! that number in between. These lie below the range from which the kernel takes the ports of outgoing connections.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// From the first number beyond those of common services up to where Linux begins with outgoing connections.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A TCP port of 127.0.0.1 on which nothing listens. No other test, in this process or another, gets it before it is
/// dropped.
pub struct Port {
    number: u16,
    /// The same number of UDP, which none of our servers uses: it tells other tests that the port is taken, and the
    /// kernel takes it back however this process ends.
    _taken: UdpSocket,
}

impl Port {
    pub fn free() -> Self {
        // Processes start at different places, so that they seldom try the same numbers.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let begin = u16::try_from(std::process::id() % u32::from(COUNT)).expect("less than a u16");
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + u32::from(begin);
            let number = FIRST + u16::try_from(step % u32::from(COUNT)).expect("less than a u16");
            let Ok(taken) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _taken: taken };
            }
        }
        panic!("no free port from {FIRST} on");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.number).into()
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number.fmt(f)
    }
}

#[test]
fn each_port_is_given_once_and_again_when_it_is_dropped() {
    let ports: Vec<Port> = (0..50).map(|_| Port::free()).collect();
    let numbers: std::collections::HashSet<u16> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
    // A server can listen on one, and a second process sees by the UDP number that it is taken.
    TcpListener::bind(ports[0].address()).expect("free for a server");
    UdpSocket::bind(ports[0].address()).expect_err("taken for other tests");
    let address = ports[0].address();
    drop(ports);
    UdpSocket::bind(address).expect("free again");
}
