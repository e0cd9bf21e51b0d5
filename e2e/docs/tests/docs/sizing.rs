//! The limits of the activator fit the memory limit of the chart.

use rouse_activator::resources::{Chosen, Sizing};
use rouse_crds::quantity::Bytes;
use serde_json::Value;

/// Files that a container may open with the usual hard limit of container runtimes.
const FILES: u64 = 524_288;

fn chart(file: &str) -> (String, Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/rouse").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let values = serde_saphyr::from_str(&text).unwrap();
    (text, values)
}

fn bytes(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.parse::<Bytes>().unwrap().get())
}

/// Returns the memory limit, and the limits of the process, of a file of values.
fn sizing(values: &Value) -> (u64, Sizing) {
    let activator = &values["activator"];
    let memory = bytes(&activator["resources"]["limits"]["memory"]).unwrap();
    let queue = &activator["queue"];
    let listeners = if activator["tls"]["secretName"] == "" { 2 } else { 3 };
    let chosen = Chosen {
        connections: activator["limits"]["connections"].as_u64().map(|each| each * listeners),
        queued_requests: queue["maxRequests"].as_u64(),
        namespace_requests: queue["maxRequestsPerNamespace"].as_u64(),
        queued_bytes: bytes(&queue["maxBytes"]),
        namespace_bytes: bytes(&queue["maxBytesPerNamespace"]),
    };
    (memory, Sizing::derive(memory, FILES, chosen))
}

#[test]
fn the_limits_of_the_chart_fit_its_memory_limit() {
    for file in ["values.yaml", "ci/all-values.yaml"] {
        let (memory, sizing) = sizing(&chart(file).1);
        let needed = sizing.memory(memory);
        assert!(needed <= memory / 100 * 90, "{file}: {sizing:?} needs {needed} of {memory} bytes");
    }
}

#[test]
fn the_comments_of_the_chart_have_the_derived_limits() {
    let (text, values) = chart("values.yaml");
    let (_, sizing) = sizing(&values);
    let thousands = |count: u64| format!("{},{:03}", count / 1000, count % 1000);
    for figure in
        [thousands(sizing.queued_requests), thousands(sizing.connections), format!("{}Mi", sizing.queued_bytes >> 20)]
    {
        assert!(text.contains(&figure), "values.yaml does not have {figure}");
    }
}
