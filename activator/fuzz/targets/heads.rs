//! The bytes of a connection, through the guard of the heads and the HTTP server, to the router.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use rouse_activator::proxy::fuzzing::Bench;

thread_local! {
    static BENCH: LazyCell<Bench> = LazyCell::new(Bench::new);
}

fuzz_target!(|bytes: &[u8]| BENCH.with(|bench| bench.check(bytes)));
