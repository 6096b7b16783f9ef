//! Origin of a configuration: a file that is named or found, or the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrors};
use super::load;
use super::settings::Settings;

/// Paths searched for a configuration when none is named; the first that exists is taken.
const SEARCHED: [&str; 2] = ["config.toml", "/etc/iiif-mender/config.toml"];

/// A configuration that can be read, and read anew.
#[derive(Debug, Clone)]
pub enum ConfigOrigin {
    /// A file.
    File(PathBuf),
    /// Text made from options of the command line.
    Options(String),
}

impl ConfigOrigin {
    /// The file at `named`, or the first that is found.
    pub fn find(named: Option<&Path>) -> Result<Self, ConfigErrors> {
        if let Some(named) = named {
            return Ok(Self::File(named.to_owned()));
        }
        // A file that cannot be read exists: the error says so, and the next path is not tried.
        let found = SEARCHED.iter().map(Path::new).find(|path| path.try_exists().unwrap_or(true));
        found.map(|path| Self::File(path.to_owned())).ok_or_else(|| {
            let tried = SEARCHED.join(" nor ");
            let help = "name a file with --config, let `iiif-mender init` write one, or do without: \
                iiif-mender serve --upstream https://api.library.tamu.edu --manifests DIR";
            ConfigErrors::new(vec![ConfigError::new(
                None,
                format!("there is no configuration: neither {tried} exists"),
                help,
            )])
        })
    }

    /// Reads the configuration, with `env` laid over it (`std::env::vars_os()`).
    pub fn load<K, V>(&self, env: impl IntoIterator<Item = (K, V)>) -> Result<Settings, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        match self {
            Self::File(path) => Settings::load(path, env),
            Self::Options(text) => Settings::from_text(self.path(), text, env),
        }
    }

    /// Path of the file, or its substitute in messages. Relative paths begin in its folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Options(_) => Path::new("(command line)"),
        }
    }

    /// The text, as it is.
    pub(super) fn text(&self) -> Result<String, ConfigErrors> {
        match self {
            Self::File(path) => load::read(path),
            Self::Options(text) => Ok(text.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_taken_whether_it_is_there_or_not() {
        let origin = ConfigOrigin::find(Some(Path::new("/nowhere/a.toml"))).expect("it is named");
        assert_eq!(origin.path(), Path::new("/nowhere/a.toml"));
        let none: [(String, String); 0] = [];
        let errors = origin.load(none).expect_err("it is not there");
        assert!(format!("{errors:#}").contains("/nowhere/a.toml"), "{errors:#}");
    }
}
