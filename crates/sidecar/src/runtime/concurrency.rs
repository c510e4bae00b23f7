//! How many workers: what the container may use, not what the node has (failure mode: threads that
//! ignore the cgroup's quota are throttled together).

use std::path::Path;

/// The number of workers where `--concurrency` does not say: the cgroup's CPU quota rounded up,
/// else the CPUs that this process may run on; at least 1.
pub fn default_workers() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
        .map_or(cpus, |quota| quota.min(cpus))
        .max(1)
}

/// The tightest CPU quota of this process's cgroup and its ancestors, rounded up to whole CPUs.
fn quota(own: &Path, mounts: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(own).ok()?;
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let path = Path::new(path.trim_start_matches('/'));
            if controllers.is_empty() {
                tightest(mounts, path, unified)
            } else if controllers.split(',').any(|controller| controller == "cpu") {
                tightest(&mounts.join(controllers), path, legacy)
                    .or_else(|| tightest(&mounts.join("cpu"), path, legacy))
            } else {
                None
            }
        })
        .min()
}

/// Looks at a group and all above it. Inside a container the path may not be visible: then the
/// mount itself is the group.
fn tightest(mount: &Path, path: &Path, read: fn(&Path) -> Option<usize>) -> Option<usize> {
    path.ancestors()
        .filter_map(|group| read(&mount.join(group)))
        .min()
}

/// cgroup v2: `cpu.max` holds `quota period` or `max period`, in microseconds.
fn unified(group: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota.parse().ok()?, period.parse().ok()?)
}

/// cgroup v1: a quota of -1 is none.
fn legacy(group: &Path) -> Option<usize> {
    let read = |file| {
        std::fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse::<i64>()
            .ok()
    };
    whole_cpus(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn whole_cpus(quota: i64, period: i64) -> Option<usize> {
    (quota > 0 && period > 0).then(|| (quota as usize).div_ceil(period as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)], own: &str) -> Option<usize> {
        let root = std::env::temp_dir().join(format!(
            "outrider-cgroup-{}-{}",
            std::process::id(),
            own.len()
        ));
        let _ = std::fs::remove_dir_all(&root);
        for (file, text) in files {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        std::fs::write(root.join("own"), own).unwrap();
        let got = quota(&root.join("own"), &root);
        std::fs::remove_dir_all(&root).unwrap();
        got
    }

    #[test]
    fn quotas_are_rounded_up_and_the_tightest_counts() {
        assert_eq!(
            with(&[("a/b/cpu.max", "150000 100000")], "0::/a/b\n"),
            Some(2)
        );
        assert_eq!(
            with(
                &[("a/b/cpu.max", "max 100000"), ("a/cpu.max", "50000 100000")],
                "0::/a/b\n\n"
            ),
            Some(1)
        );
        assert_eq!(with(&[("a/cpu.max", "max 100000")], "0::/a\n"), None);
        let legacy = [
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "250000"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000"),
        ];
        assert_eq!(with(&legacy, "4:cpu,cpuacct:/x\n\n\n"), Some(3));
        let none = [
            ("cpu/cpu.cfs_quota_us", "-1"),
            ("cpu/cpu.cfs_period_us", "100000"),
        ];
        assert_eq!(with(&none, "4:cpu:/\n\n\n\n"), None);
    }
}
