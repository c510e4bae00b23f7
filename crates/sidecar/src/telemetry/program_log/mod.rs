//! The program's own log: what of it is written, in which form, and where to.

mod components;
mod levels;
mod pattern;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

pub use levels::{LevelError, Levels};
pub use pattern::{Pattern, PatternError};

use crate::bootstrap::options::Options;

/// Why the log cannot be opened as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `--log-level`
    #[error("--log-level: {0}")]
    Level(#[from] LevelError),
    /// `--component-log-level`
    #[error(
        "--component-log-level {list}: {error}; it is a list such as upstream:debug,config:trace. \
         The levels are trace, debug, info, warning, error, critical and off; the names are {}",
        names()
    )]
    Component {
        /// What was given.
        list: String,
        /// What is wrong.
        error: LevelError,
    },
    /// `--log-format`
    #[error("--log-format: {0}")]
    Format(#[from] PatternError),
    /// `--log-path`
    #[error("--log-path {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was opened before.
    #[error("the log is open already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

fn names() -> String {
    let names: Vec<&str> = components::COMPONENTS
        .iter()
        .map(|(name, _)| *name)
        .collect();
    names.join(", ")
}

/// What the admin API changes of the log.
struct ProgramLog {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
    /// What is written to instead of standard error.
    file: Option<(PathBuf, Mutex<File>)>,
}

static LOG: OnceLock<ProgramLog> = OnceLock::new();
/// `--log-format`, or that of the bootstrap.
static PATTERN: ArcSwapOption<Pattern> = ArcSwapOption::const_empty();

/// Opens the log as the options want it.
///
/// # Errors
/// An option that is wrong, or a file that cannot be opened.
pub fn open(options: &Options) -> Result<(), LogError> {
    let mut levels = Levels::new(&options.log_level)?;
    if let Some(list) = &options.component_log_level {
        levels.set_list(list).map_err(|error| LogError::Component {
            list: list.clone(),
            error,
        })?;
    }
    if let Some(text) = &options.log_format {
        set_pattern(Pattern::parse(text, options.log_format_escaped)?);
    } else if options.log_format_escaped {
        set_pattern(Pattern::parse(pattern::DEFAULT, true)?);
    }
    let file = match &options.log_path {
        None => None,
        Some(path) => {
            let file = append(path).map_err(|source| LogError::File {
                path: path.clone(),
                source,
            })?;
            Some((path.clone(), Mutex::new(file)))
        }
    };
    let colours = file.is_none() && io::stderr().is_terminal();
    let (filter, handle) = reload::Layer::new(levels.filter());
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        .event_format(Form(Format::default().with_ansi(colours)))
        .with_writer(|| Out);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    let log = ProgramLog {
        levels: Mutex::new(levels),
        filter: handle,
        file,
    };
    // Only the first call comes so far.
    let _ = LOG.set(log);
    Ok(())
}

/// Writes lines in another form from now on.
pub fn set_pattern(pattern: Pattern) {
    PATTERN.store(Some(Arc::new(pattern)));
}

/// Changes levels, and says what they are then.
///
/// # Errors
/// What `change` says; then nothing is changed.
pub fn change_levels(
    change: impl FnOnce(&mut Levels) -> Result<(), LevelError>,
) -> (Result<(), LevelError>, Vec<(&'static str, &'static str)>) {
    let Some(log) = LOG.get() else {
        return (Ok(()), Vec::new());
    };
    let mut levels = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = change(&mut levels);
    if outcome.is_ok()
        && let Err(error) = log.filter.reload(levels.filter())
    {
        tracing::warn!(%error, "cannot change the levels of the log");
    }
    (outcome, levels.list().collect())
}

/// `/reopen_logs`: the file of `--log-path` by its name, after it was moved away.
///
/// # Errors
/// It cannot be opened; the one before is written to still.
pub fn reopen() -> io::Result<()> {
    if let Some((path, file)) = LOG.get().and_then(|log| log.file.as_ref()) {
        *file.lock().unwrap_or_else(PoisonError::into_inner) = append(path)?;
    }
    Ok(())
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The pattern, or else the usual form.
struct Form(Format);

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        match &*PATTERN.load() {
            Some(pattern) => pattern.format(writer, event),
            None => self.0.format_event(context, writer, event),
        }
    }
}

/// Where lines go.
struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match LOG.get().and_then(|log| log.file.as_ref()) {
            Some((_, file)) => file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
