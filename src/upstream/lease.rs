//! What an answer's body holds: its place, its share of a server, and its connection.

use super::connection::Connection;
use super::server::Load;

/// A connection that carries a body. Dropping it early closes the connection: what is left of the body can
/// not be told from the next answer.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Option<Connection>,
    load: Option<Load>,
}

impl Lease {
    pub(super) fn new(connection: Connection, load: Load) -> Self {
        Self { connection: Some(connection), load: Some(load) }
    }

    /// The body was read to its end: the connection may carry the next request.
    pub(super) fn end(&mut self) {
        if let (Some(connection), Some(load)) = (self.connection.take(), self.load.take()) {
            load.give_back(connection);
        }
    }
}
