//! Things that are read from files, again whenever the files change: secrets whose parts are files,
//! and resources from a `path_config_source`.

mod path_source;
mod secrets;
mod watch;

pub use path_source::attach;
pub use secrets::keep_fresh;
pub use watch::{FileWatcher, WatchedFiles};
