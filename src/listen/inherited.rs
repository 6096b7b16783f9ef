//! Inherited sockets: from systemd, or from the process that this one replaces.
//!
//! `sd_listen_fds(3)`: `LISTEN_FDS` sockets from file descriptor 3 on, for `LISTEN_PID`. The address that a socket is bound
//! to identifies it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Sockets that another process has bound.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<(SocketAddr, TcpListener)>);

impl InheritedSockets {
    /// Takes the sockets that the environment names. Once only: a second call finds none.
    pub fn from_environment() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for number in 0..passed.len() {
            if let Some(socket) = passed.take_tcp_listener(number)? {
                sockets.push((socket.local_addr()?, socket));
            }
        }
        Ok(Self(sockets))
    }

    /// Takes the socket for an address of the configuration. Port 0 matches any.
    pub fn take(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let is_it =
            |own: &SocketAddr| own.ip() == wanted.ip() && (own.port() == wanted.port() || wanted.port() == 0);
        let at = self.0.iter().position(|(own, _)| is_it(own))?;
        Some(self.0.remove(at).1)
    }

    /// Addresses of inherited sockets that no listener uses.
    pub fn unclaimed(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(address, _)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_by_its_address_and_port_0_takes_any() {
        let bind = || {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
            (socket.local_addr().expect("an address"), socket)
        };
        let (one, two) = (bind(), bind());
        let (first, second) = (one.0, two.0);
        let mut inherited = InheritedSockets(vec![one, two]);
        assert!(inherited.take("[::1]:0".parse().expect("an address")).is_none());
        let taken = inherited.take(second).expect("the second");
        assert_eq!(taken.local_addr().expect("an address"), second);
        assert!(inherited.take(second).is_none());
        assert_eq!(inherited.unclaimed(), [first]);
        assert!(inherited.take("127.0.0.1:0".parse().expect("an address")).is_some());
    }
}
