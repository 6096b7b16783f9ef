//! The configuration: what the file may say ([`file`]) and what the program may believe ([`settings`]).

pub mod settings;

pub use settings::Settings;
