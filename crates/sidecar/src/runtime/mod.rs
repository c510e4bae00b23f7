//! Threads and what runs on them: workers, drain, timers.

pub mod budget;
pub mod concurrency;
pub mod date;
pub mod drain;
pub mod ending;
pub mod http_server;
pub mod lifecycle;
pub mod memory;
pub mod overload;
pub mod random;
pub mod snapshot;
pub mod socket_option;
pub mod threads;
pub mod timer;
pub mod worker;
