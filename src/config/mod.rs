//! The configuration: from a file and environment variables to [`settings`].
//!
//! ```text
//! text ─ sources ─→ tree ─ environment ─→ tree ─ load ─→ Settings ─ check ─→ Settings
//! ```
//! A key is one field in `settings`: its text for readers, default, format, range and reload class stand there.

pub mod command;
pub mod error;
pub mod settings;

mod addresses;
mod check;
mod defaults;
mod draft;
mod environment;
mod headers;
mod load;
mod origin;
mod reference;
mod reload;
mod report;
mod schema;
mod show;
mod sources;
mod spanned;
mod value;
mod values;
mod viewer_url;

pub use command::ConfigCommand;
pub use draft::{ConfigDraft, DraftError};
pub use error::{ConfigError, ConfigErrors, SourceSpan};
pub use origin::ConfigOrigin;
pub use reference::reference;
pub use reload::{ConfigChanges, Reload, ReloadError, ReloadReply, differences, keep_until_restart};
pub use settings::Settings;

#[cfg(test)]
pub(crate) mod tests;
