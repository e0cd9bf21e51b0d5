//! The path of a request among the paths of a host, against readers of every kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rouse_activator::route::fuzzing::check_path;

fuzz_target!(|text: &str| check_path(text));
