//! The normal form of a host, against a naive reading of the same rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rouse_activator::route::fuzzing::check;

fuzz_target!(|text: &str| check(text));
