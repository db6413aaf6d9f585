//! Ports for servers that have to be told one.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Where the kernel takes no port from, neither for who asks for any nor for who connects.
const PORTS: std::ops::Range<u16> = 12_000..20_000;

/// A port of the loopback that nobody else is given while this value lives.
///
/// Held by a socket of another protocol, which is in no TCP server's way.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _held: UdpSocket,
}

impl Port {
    pub(crate) fn hold() -> Self {
        for _ in 0..1000 {
            let number = rand::random_range(PORTS);
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
            if let Ok(held) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))
                && free
            {
                return Self {
                    number,
                    _held: held,
                };
            }
        }
        panic!("no port is free");
    }
}
