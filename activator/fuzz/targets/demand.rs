//! The bytes of a demand stream, as the operator reads them, up to what the autoscaler decides from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rouse_operator::scaler::fuzzing::check;

fuzz_target!(|bytes: &[u8]| check(bytes));
