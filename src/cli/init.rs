//! `init`: asks for addresses, writes a short configuration, checks it, and builds the index.

use std::fs::OpenOptions;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::{fail, refuse, setup};
use crate::config::{ConfigDraft, ConfigOrigin, Settings};
use crate::index::Index;
use crate::index::command::{self, Exit, IndexCommand};
use crate::presentation::gateway;

/// Options of `init`; it asks for those that are missing, on a terminal.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    draft: ConfigDraft,
    /// Replace a configuration file that exists
    #[arg(long)]
    force: bool,
}

/// Default path of the new configuration.
const FILE: &str = "config.toml";

/// Runs `init`; missing answers are asked for on the terminal.
pub(super) fn run(args: &InitArgs, config: Option<&Path>, out: &mut dyn Write) -> Result<ExitCode, ExitCode> {
    let path = config.unwrap_or(Path::new(FILE));
    if path.exists() && !args.force {
        let text = format!(
            "{} is there already: it stays as it is. Write over it with --force, or name another file with --config",
            path.display()
        );
        return Err(fail(&text, Exit::Usage));
    }
    let mut draft = args.draft.clone();
    if !draft.names_services()
        && io::stdin().is_terminal()
        && io::stderr().is_terminal()
        && let Err(error) = ask(&mut draft, &mut io::stdin().lock(), &mut io::stderr().lock())
    {
        return Err(fail(&format!("the answers cannot be read: {error}"), Exit::Usage));
    }
    from_its_folder(&mut draft, path);
    let text = draft.to_toml().map_err(|error| fail(&error.to_string(), Exit::Usage))?;
    // A configuration with mistakes is not written.
    let settings = Settings::from_text(path, &text, std::env::vars_os()).map_err(refuse)?;
    write(path, &text, args.force)
        .map_err(|error| fail(&format!("cannot write {}: {error}", path.display()), Exit::Broken))?;
    let _ = writeln!(out, "{} is written\n", path.display());
    let built = command::run(&IndexCommand::Build { sources: Vec::new() }, &settings, false, out);
    let exit = built.map_err(|error| fail(&error.to_string(), error.exit()))?;
    let _ = setup::tell_of_all(&ConfigOrigin::File(path.to_owned()), true, out);
    let _ = tell_what_to_do(config, &settings, out);
    Ok(exit.into())
}

/// Relative paths are meant from where the command runs, and in the file they begin in its folder.
fn from_its_folder(draft: &mut ConfigDraft, path: &Path) {
    let is_here = path.parent().is_none_or(|folder| folder.as_os_str().is_empty());
    for source in draft.manifests.iter_mut().filter(|source| !is_here && !source.contains("://")) {
        if let Ok(whole) = std::path::absolute(&*source) {
            *source = whole.to_string_lossy().into_owned();
        }
    }
}

fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut open = OpenOptions::new();
    // Another process may have written the file since the check.
    let open = if force { open.create(true).truncate(true) } else { open.create_new(true) };
    open.write(true).open(path)?.write_all(text.as_bytes())
}

/// Asks for required answers.
fn ask(draft: &mut ConfigDraft, answers: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    let text = "Image server and canvas service, such as https://api.library.tamu.edu: ";
    while let Some(upstream) = answer(text, answers, out)? {
        draft.upstream = Some(upstream);
        let Err(error) = draft.to_toml() else { break };
        writeln!(out, "{error}")?;
        draft.upstream = None;
    }
    if draft.manifests.is_empty() {
        let text = "Folder or URL of manifests (empty: they are learned as they pass): ";
        while let Some(source) = answer(text, answers, out)? {
            if source.contains("://") || Path::new(&source).exists() {
                draft.manifests.push(source);
                break;
            }
            writeln!(out, "there is no file or folder {source}")?;
        }
    }
    if draft.listen.is_none() {
        let text = format!("Address for viewers [{}]: ", draft.listen());
        while let Some(address) = answer(&text, answers, out)? {
            if let Ok(address) = address.parse() {
                draft.listen = Some(address);
                break;
            }
            writeln!(out, "{address} is no address and port, such as 127.0.0.1:8080")?;
        }
    }
    Ok(())
}

/// Reads a line from the terminal. `None`: empty line, or end of input.
fn answer(question: &str, answers: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<Option<String>> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    Ok(Some(line.trim().to_owned()).filter(|line| !line.is_empty()))
}

/// Prints the next command, and the URL to open then.
fn tell_what_to_do(config: Option<&Path>, settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let named = config.map(|path| format!(" --config {}", path.display())).unwrap_or_default();
    writeln!(out, "\nNext:\n\n  iiif-mender{named} serve\n")?;
    let index = Index::open(&settings.index.path, 0).ok();
    let first = index.and_then(|index| index.stored_list(0, 1).ok()?.into_iter().next());
    if let (Some(own), Some(first)) = (&settings.rewrite.public_url, first) {
        let url = format!("{}://{}{}", own.scheme, own.authority, gateway::path_of(&first));
        writeln!(out, "Then open this manifest in a viewer: {url}")?;
        writeln!(out, "All of them are a collection: {}://{}{}", own.scheme, own.authority, gateway::ROOT)?;
    }
    if let Some(address) = settings.admin.listen {
        writeln!(out, "The dashboard: http://{address}/")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(given: &str, draft: &mut ConfigDraft) -> String {
        let mut out = Vec::new();
        ask(draft, &mut given.as_bytes(), &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_answered_is_taken_and_what_is_empty_is_left_out() {
        let mut draft = ConfigDraft::default();
        let out = asked("lib.example\n https://lib.example \ngone/\nsrc/\n8080\n0.0.0.0:80\n", &mut draft);
        assert!(out.contains("lib.example") && out.contains("there is no file or folder gone/"), "{out}");
        assert_eq!(draft.upstream.as_deref(), Some("https://lib.example"));
        assert_eq!(draft.manifests, ["src/"]);
        assert_eq!(draft.listen, Some(([0, 0, 0, 0], 80).into()));
        assert!(out.contains("8080 is no address and port"), "{out}");
        let mut draft = ConfigDraft::default();
        asked("https://lib.example\n\n\n", &mut draft);
        assert!(draft.manifests.is_empty() && draft.listen.is_none());
        // The end of the input ends the questions.
        let mut draft = ConfigDraft::default();
        asked("", &mut draft);
        assert_eq!(draft, ConfigDraft::default());
    }
}
