//! What memory the process has, as the kernel counts it: the allocator's own count would cost
//! something at each allocation.

/// Bytes; all 0 where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages of the program's own data that are in memory.
    pub data: u64,
    /// All pages that are in memory, with those of the program itself.
    pub resident: u64,
}

impl Memory {
    /// As it is now.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::of_status(&status)
    }

    fn of_status(status: &str) -> Self {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        Memory {
            data: bytes("RssAnon:"),
            resident: bytes("VmRSS:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let status = "VmPeak:\t 9 kB\nVmRSS:\t    30 kB\nRssAnon:\t      10 kB\n";
        let expected = Memory {
            data: 10 * 1024,
            resident: 30 * 1024,
        };
        assert_eq!(Memory::of_status(status), expected);
        assert_eq!(Memory::of_status(""), Memory::default());
        assert!(Memory::now().resident > 0);
    }
}
