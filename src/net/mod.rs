//! Sockets: binding listeners, and what stands between a socket and its codec.

pub mod sendfile;
pub mod vectored;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

pub use sendfile::{FileCopy, FromFiles};
pub use vectored::ShortWrites;

/// How a listening socket is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindOptions {
    /// Let several sockets share the port, the kernel spreading connections over them.
    pub reuse_port: bool,
    /// Allow an address that the machine does not have yet (`IP_FREEBIND`).
    pub freebind: bool,
}

/// Binds a TCP socket without listening yet, so that connections are refused until
/// [`listen`] is called. Port 0 lets the system choose.
pub fn bind(address: SocketAddr, options: BindOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if options.freebind && address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Starts to take connections on a bound socket; `backlog` is the length of the accept queue.
pub fn listen(socket: Socket, backlog: i32) -> io::Result<TcpListener> {
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// The address a socket is bound to, with the port the system chose.
pub fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP address"))
}
