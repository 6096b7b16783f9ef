//! PROXY protocol, versions 1 and 2: a proxy before us sends the client's address before anything else.
//!
//! Source: "The PROXY protocol, Versions 1 & 2", sections 2.1 and 2.2. The crate reads the header; here its bytes are
//! taken off the connection, and not one more.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Version 2 begins with this, version 1 with `PROXY `; both are longer.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 without addresses.
const LEAST: usize = 16;

/// Longest line of version 1 in bytes (section 2.1).
const LINE: usize = 107;

/// Longest version 2 header that is read, bytes. A header may carry more than addresses; 536 are always understood.
const LONGEST: usize = 4096;

/// Errors that close a connection before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    /// Header of a peer that is not trusted: any client could have written it.
    #[error("the peer is none of the trusted proxies ([server] trusted_proxies)")]
    Untrusted,
    /// The header did not come in time.
    #[error("it took too long")]
    Slow,
    /// The bytes are no PROXY header.
    #[error("it is malformed")]
    Malformed,
    /// The connection ended.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProxyHeaderError {
    /// Name in labels.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_protocol_untrusted",
            Self::Slow | Self::Malformed | Self::Io(_) => "proxy_protocol",
        }
    }
}

/// Reads the header off the connection: address of the client behind the peer. `None`: the peer speaks for itself
/// (LOCAL), or names no IP address (UNKNOWN, UNSPEC, unix sockets).
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_rest(stream, &mut header).await?;
    } else if header.starts_with(b"PROXY ") {
        read_line(stream, &mut header).await?;
    } else {
        return Err(ProxyHeaderError::Malformed);
    }
    said(&header)
}

/// Reads the rest of a version 2 header, whose length it holds.
async fn read_rest(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), ProxyHeaderError> {
    header.resize(LEAST, 0);
    stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
    let length = LEAST + usize::from(u16::from_be_bytes([header[LEAST - 2], header[LEAST - 1]]));
    if length > LONGEST {
        return Err(ProxyHeaderError::Malformed);
    }
    header.resize(length, 0);
    stream.read_exact(&mut header[LEAST..]).await?;
    Ok(())
}

/// Reads a version 1 header, which ends with its line. Bytes behind it belong to the request, so the line is peeked before
/// it is taken.
async fn read_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), ProxyHeaderError> {
    let mut seen = [0; LINE];
    // Twelve bytes are already read, which is shorter than any whole line.
    while header.last() != Some(&b'\n') {
        let left = LINE - header.len();
        let ahead = stream.peek(&mut seen[..left]).await?;
        let take = seen[..ahead].iter().position(|byte| *byte == b'\n').map_or(ahead, |end| end + 1);
        if take == 0 {
            // The line is too long, or the connection ended before it did.
            return Err(ProxyHeaderError::Malformed);
        }
        let begun = header.len();
        header.resize(begun + take, 0);
        stream.read_exact(&mut header[begun..]).await?;
    }
    Ok(())
}

/// Address behind the proxy that wrote these bytes, for fuzzing; `None` where they are refused.
#[doc(hidden)]
pub fn behind(header: &[u8]) -> Option<Option<SocketAddr>> {
    said(header).ok()
}

/// Client address of a whole header.
fn said(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    if !header.starts_with(SIGNATURE) {
        let header = v1::Header::try_from(header).map_err(|_| ProxyHeaderError::Malformed)?;
        return Ok(match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
            v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
        });
    }
    let header = v2::Header::try_from(header).map_err(|_| ProxyHeaderError::Malformed)?;
    if header.command == v2::Command::Local || header.protocol != v2::Protocol::Stream {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::IPv6(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &length, body].concat()
    }

    /// Reads a header from these bytes, sent at once or one by one; returns the result and the bytes left behind it.
    async fn read_from(bytes: &[u8], piece: usize) -> (Result<Option<String>, &'static str>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            let mut stream = socket.connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("an option");
            for some in bytes.chunks(piece.max(1)) {
                stream.write_all(some).await.expect("it takes it");
                tokio::task::yield_now().await;
            }
        });
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let read = read(&mut stream).await;
        let mut left = Vec::new();
        let _ = stream.read_to_end(&mut left).await;
        writing.await.expect("no panic");
        (read.map(|behind| behind.map(|address| address.to_string())).map_err(|error| error.kind()), left)
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

    #[rstest]
    #[case(b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n".to_vec(), Some("192.0.2.7:8080"))]
    #[case(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), Some("[2001:db8::7]:1"))]
    #[case(b"PROXY UNKNOWN\r\n".to_vec(), None)]
    #[case(b"PROXY UNKNOWN ff:ff:: what ever 65535\r\n".to_vec(), None)]
    #[case(v2(1, 0x11, &V4), Some("192.0.2.7:8080"))]
    #[case(v2(1, 0x11, &[&V4[..], &[4, 0, 3, 1, 2, 3]].concat()), Some("192.0.2.7:8080"))]
    #[case(v2(1, 0x21, &[[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], [0; 16]].concat().iter().copied().chain([0, 1, 0, 2]).collect::<Vec<_>>()), Some("[2001:db8::7]:1"))]
    #[case(v2(0, 0x11, &V4), None)]
    #[case(v2(0, 0, b""), None)]
    #[case(v2(1, 0, b""), None)]
    #[case(v2(1, 0x31, &[7; 216]), None)]
    #[case(v2(1, 0x12, &V4), None)]
    #[tokio::test]
    async fn a_header_is_read_whole_and_nothing_behind_it(
        #[case] header: Vec<u8>,
        #[case] expected: Option<&str>,
    ) {
        for piece in [1, 7, 5000] {
            let (read, left) = read_from(&[&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat(), piece).await;
            assert_eq!(read, Ok(expected.map(str::to_owned)), "in pieces of {piece}");
            assert_eq!(left, b"GET / HTTP/1.1\r\n\r\n");
        }
    }

    #[rstest]
    #[case(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec())]
    #[case(b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\n".to_vec())]
    #[case(b"PROXY TCP4 999.0.2.7 10.0.0.1 8080 80\r\n".to_vec())]
    #[case(b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 80\r\n".to_vec())]
    #[case(b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n".to_vec())]
    #[case(b"PROXY TCP4 \r\n".to_vec())]
    #[case(b"PROXY \r\n\r\n\r\n\r\n".to_vec())]
    #[case([b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat())]
    #[case(b"PROXY TCP4 192.0".to_vec())]
    #[case(b"".to_vec())]
    #[case(v2(1, 0x11, &V4[..11]))]
    #[case(v2(2, 0x11, &V4))]
    #[case(v2(1, 0x41, &V4))]
    #[case([SIGNATURE.as_slice(), &[0x31, 0x11, 0, 12], &V4].concat())]
    #[case([SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff], &[0; 5000]].concat())]
    #[case([SIGNATURE.as_slice(), &[0x21, 0x11, 0, 12], &V4[..5]].concat())]
    #[tokio::test]
    async fn what_is_no_header_is_refused(#[case] bytes: Vec<u8>) {
        for piece in [1, 5000] {
            let (read, _) = read_from(&bytes, piece).await;
            assert_eq!(read, Err("proxy_protocol"), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
