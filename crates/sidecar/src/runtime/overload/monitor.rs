//! How much of a resource is used.

use std::path::Path;

use super::config::Monitor;
use crate::runtime::memory::Memory;

/// Why a resource's use is not known.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{0}: not a number from 0 to 1")]
    NoNumber(String),
    /// The cgroup has no limit of memory, and none is configured.
    #[error("the cgroup has no limit of memory: set max_memory_bytes")]
    NoLimit,
}

impl Monitor {
    /// The pressure, from 0 to 1 or above. `open` is how many connections are open.
    pub fn pressure(&self, open: usize) -> Result<f64, MonitorError> {
        match self {
            Monitor::Heap(most) => Ok(Memory::now().data as f64 / *most as f64),
            Monitor::Connections(most) => Ok(open as f64 / *most as f64),
            Monitor::Cgroup(most) => cgroup(*most),
            Monitor::Injected(path) => {
                let text = read(path)?;
                let number = text.trim().parse::<f64>().ok();
                let number = number.filter(|number| (0.0..=1.0).contains(number));
                number.ok_or_else(|| MonitorError::NoNumber(path.display().to_string()))
            }
        }
    }
}

fn read(path: &Path) -> Result<String, MonitorError> {
    std::fs::read_to_string(path).map_err(|source| MonitorError::Read {
        path: path.display().to_string(),
        source,
    })
}

/// Of the second version of cgroups, else of the first: as a container sees its own.
fn cgroup(most: Option<u64>) -> Result<f64, MonitorError> {
    let number = |text: String| text.trim().parse::<u64>().ok();
    let of = |used: &str, limit: &str| -> Result<(u64, Option<u64>), MonitorError> {
        let used = number(read(Path::new(used))?).unwrap_or(0);
        Ok((used, number(read(Path::new(limit))?)))
    };
    let (used, limit) =
        of("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max").or_else(|_| {
            of(
                "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            )
        })?;
    let limit = limit.into_iter().chain(most).min();
    let limit = limit
        .filter(|limit| *limit > 0)
        .ok_or(MonitorError::NoLimit)?;
    Ok(used as f64 / limit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_a_share_of_the_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pressure");
        let injected = Monitor::Injected(path.clone());
        assert!(injected.pressure(0).is_err());
        for (text, expected) in [("0.25\n", Some(0.25)), ("2", None), ("x", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(injected.pressure(0).ok(), expected, "{text}");
        }
        assert!(Monitor::Heap(1).pressure(0).unwrap() > 1.0);
        assert_eq!(Monitor::Connections(4).pressure(1).unwrap(), 0.25);
    }
}
