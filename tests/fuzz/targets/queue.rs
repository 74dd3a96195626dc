//! Any files where the queue has its own: it opens, hands out what is there, takes more, and closes; it never panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|files: &[u8]| sluicegate::queue::fuzz::open(files));
