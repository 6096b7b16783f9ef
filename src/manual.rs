//! Manual pages: one for the program and one for each command, with exit status, files, variables and examples.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// Additions to a manual page that the command line does not know. Lines of each text are `head: text`.
struct Extra {
    command: &'static str,
    exit: &'static str,
    examples: &'static str,
}

impl Extra {
    /// A line for each exit status.
    fn exit_lines(&self) -> impl Iterator<Item = &'static str> {
        self.exit.lines().chain((!self.exit.contains("\n2: ")).then_some(FAILS))
    }
}

const FAILS: &str = "2: Wrong usage, or a configuration that cannot be used.";

const EXTRAS: [Extra; 11] = [
    Extra {
        command: "iiif-mender",
        exit: "0: All is well.\n1: Something is broken or unknown.",
        examples: "iiif-mender config check && iiif-mender index build && iiif-mender serve: \
            Check the configuration, read the manifests, run.",
    },
    Extra {
        command: "init",
        exit: "0: The configuration is written, and the index is built.\n1: A source could not be read to its end, or the \
            file could not be written.",
        examples: "iiif-mender init --upstream https://api.library.tamu.edu --manifests manifests: Both services under one \
            name, manifests in a folder.\n\
            iiif-mender init: Ask for the addresses on the terminal.",
    },
    Extra {
        command: "serve",
        exit: "0: Stopped, and every request was answered.\n1: Stopped before every request was answered: \
            [server] drain was over, or a second signal came.\n2: Wrong usage, a configuration that cannot be used, or an \
            address that cannot be listened on.",
        examples: "iiif-mender -c /etc/iiif-mender/config.toml serve: Run the proxy. SIGTERM stops it, SIGHUP reads the \
            configuration anew, SIGUSR2 starts a successor on the same sockets.\n\
            iiif-mender serve --upstream https://api.library.tamu.edu --manifests manifests: Without a configuration.",
    },
    Extra {
        command: "index",
        exit: "0: Done.\n1: A source could not be read to its end or is not known, a file cannot be read, or no canvas of the \
            index owns the image.\n2: Wrong usage, a configuration that cannot be used, \
            or an index of another program or a later version.",
        examples: "iiif-mender index build: Read all sources.\n\
            iiif-mender index lookup 8ef7a1b0-0b7a-3a49-a1b2-2f4f2b2e5a11: Which canvases own this image?",
    },
    Extra {
        command: "check",
        exit: "0: Nothing is broken.\n1: Something is broken, or could not be read, or the run was stopped.\n\
            2: Wrong usage, a configuration that cannot be used, or a named source that cannot be read at all; \
            no answer to --live.",
        examples: "iiif-mender check: All images of the index.\n\
            iiif-mender check manifests/ --report broken.html --report broken.csv: A folder, with two reports.\n\
            iiif-mender check --live --json: What readers do not get now, as a running iiif-mender knows it.",
    },
    Extra {
        command: "heal",
        exit: "0: Nothing is broken any more.\n1: Something is still broken or could not be read, or the run was stopped.\n\
            2: Wrong usage, a configuration that cannot be used, a named source that cannot be read at all, or a journal \
            that another run has.",
        examples: "iiif-mender heal --dry-run: List what would be requested.\n\
            iiif-mender heal --resume: Go on after an interruption.",
    },
    Extra {
        command: "top",
        exit: "0: Ended by q, or printed.\n1: The admin listener gives no answer, or there is no terminal to draw on.",
        examples: "iiif-mender top --url http://proxy.example:9090 --once: The state of another machine.",
    },
    Extra {
        command: "purge",
        exit: "0: Done.\n1: The admin listener gives no answer, or does not know the manifest.",
        examples: "iiif-mender purge --identifier 8ef7a1b0-0b7a-3a49-a1b2-2f4f2b2e5a11: Remove the answers of an image that has changed.\n\
            iiif-mender purge --all: Empty the cache.",
    },
    Extra {
        command: "config",
        exit: "0: The configuration is in order, whatever `config check` finds at the servers and in the index; or the text was \
            printed.\n1: The text cannot be written.",
        examples: "iiif-mender config check: Every mistake with its place.\n\
            iiif-mender config show: Every value, and where it came from.",
    },
    Extra {
        command: "completions",
        exit: "0: Printed.\n1: The script cannot be written.",
        examples: "iiif-mender completions bash > ~/.local/share/bash-completion/completions/iiif-mender: For bash.",
    },
    Extra {
        command: "man",
        exit: "0: Printed, or written.\n1: A page cannot be written.",
        examples: "iiif-mender man --to /usr/local/share/man/man1: A page for each command.",
    },
];

const FILES: &str = "config.toml: The configuration, unless --config names another file.\n\
    /etc/iiif-mender/config.toml: The configuration where there is no config.toml in the folder.\n\
    [index] path: The index, with files of the same name and another ending beside it.";

const ENVIRONMENT: &str = "IIIF_MENDER__SECTION__KEY: A key of the configuration, such as \
    IIIF_MENDER__SERVER__LISTEN, which counts instead of the one in the file.\n\
    IIIF_MENDER_TOKEN: The token that top, purge and check --live send to the admin listener.\n\
    LISTEN_FDS, LISTEN_PID: Sockets that systemd has opened.\n\
    NOTIFY_SOCKET, WATCHDOG_USEC: Set by systemd, which is told that the program is ready and alive.";

/// Text below the options of `--help`: the meaning of the exit status.
pub(crate) fn with_exit_status(command: Command) -> Command {
    let below = |command: Command, name: &str| {
        let Some(extra) = EXTRAS.iter().find(|extra| extra.command == name) else { return command };
        let lines = extra.exit_lines().map(|line| format!("\n  {line}"));
        command.after_long_help(format!("Exit status:{}", lines.collect::<String>()))
    };
    EXTRAS[1..].iter().fold(below(command, EXTRAS[0].command), |command, extra| {
        command.mut_subcommand(extra.command, |command| {
            below(command, extra.command).mut_subcommands(|part| below(part, extra.command))
        })
    })
}

/// Writes the page of the program.
pub(crate) fn print(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    page(command, &EXTRAS[0], out)
}

/// Writes the page of the program and one for each command into a directory: `iiif-mender.1`, `iiif-mender-serve.1`, …
pub(crate) fn write_all(mut command: Command, folder: &Path) -> io::Result<()> {
    command.build();
    std::fs::create_dir_all(folder)?;
    let write = |name: &str, command: &Command, extra: &Extra| {
        let mut out = io::BufWriter::new(std::fs::File::create(folder.join(format!("{name}.1")))?);
        page(command, extra, &mut out)?;
        out.flush()
    };
    write(&page_name(EXTRAS[0].command), &command, &EXTRAS[0])?;
    for extra in &EXTRAS[1..] {
        let Some(sub) = command.find_subcommand(extra.command) else { continue };
        let name = page_name(extra.command);
        let bin_name = format!("{} {}", EXTRAS[0].command, extra.command);
        write(&name, &sub.clone().display_name(name.clone()).bin_name(bin_name), extra)?;
    }
    Ok(())
}

/// The name of a command's page: `iiif-mender`, `iiif-mender-serve`, …
fn page_name(command: &str) -> String {
    let program = EXTRAS[0].command;
    if command == program { program.to_owned() } else { format!("{program}-{command}") }
}

fn page(command: &Command, extra: &Extra, out: &mut dyn Write) -> io::Result<()> {
    let man = Man::new(command.clone().after_long_help(None::<&str>))
        .source(concat!("iiif-mender ", env!("CARGO_PKG_VERSION")));
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    let has_pages = extra.command == EXTRAS[0].command;
    let mut parts = command.get_subcommands().filter(|part| part.get_name() != "help").peekable();
    if parts.peek().is_some() {
        writeln!(out, ".SH COMMANDS")?;
    }
    for part in parts {
        let name = part.get_name();
        let name = if has_pages { format!("{}(1)", page_name(name)) } else { name.to_owned() };
        entry(&name, &part.get_about().map(ToString::to_string).unwrap_or_default(), out)?;
    }
    section("EXIT STATUS", extra.exit_lines(), out)?;
    section("FILES", FILES.lines(), out)?;
    section("ENVIRONMENT", ENVIRONMENT.lines(), out)?;
    section("EXAMPLES", extra.examples.lines(), out)?;
    let others = EXTRAS.iter().filter(|other| other.command != extra.command);
    let others = others.map(|other| format!("{}(1)", page_name(other.command)));
    writeln!(out, ".SH SEE ALSO\n{}", escaped(&others.collect::<Vec<_>>().join(", ")))
}

/// A section of `head: text` lines. A head that is a command holds no colon followed by a space.
fn section<'a>(title: &str, lines: impl Iterator<Item = &'a str>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, ".SH {title}")?;
    for line in lines {
        let (head, text) = line.split_once(": ").unwrap_or((line, ""));
        entry(head, text, out)?;
    }
    Ok(())
}

fn entry(head: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, ".TP\n\\fB{}\\fR\n{}", escaped(head), escaped(text))
}

/// Text as roff takes it: a backslash, a hyphen that can be copied, and no line that begins like a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
