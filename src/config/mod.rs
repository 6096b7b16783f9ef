//! The configuration: what the file may say ([`mod@file`]) and what the program may believe ([`settings`]).
//!
//! ```text
//! text ─ sources ─→ tree ─ environment ─→ tree ─ load ─→ File ─ convert ─→ Settings ─ check ─→ Settings
//! ```
//! A new key is named in five places, and the compiler or a test asks for each: `file` (how it is written),
//! `settings` (what it means), `defaults`, `convert` with `write`, and the shipped `config.toml`.

pub mod command;
pub mod error;
pub mod file;
pub mod settings;
pub mod values;

mod addresses;
mod check;
mod convert;
mod defaults;
mod environment;
mod leaf;
mod least;
mod load;
mod redis;
mod reference;
mod reload;
mod schema;
mod show;
mod sources;
mod tree;
mod write;

pub use command::ConfigCommand;
pub use error::{ConfigError, ConfigErrors, Place};
pub use leaf::{OneOrMany, Text};
pub use reference::reference;
pub use reload::{Asked, Changes, Reload, ReloadError, differences, keep_until_restart};
pub use schema::schema;
pub use settings::Settings;

#[cfg(test)]
mod tests;
