//! Names in the pages exist: metrics, fields, values of the chart; and the page of conditions has every reason.

use std::path::Path;

use rouse_docs::{
    book::{Document, documents, files},
    checkout, function, metrics,
    values::Values,
};

/// The spans of inline code in the pages. The change log speaks of names that were.
fn spans() -> Vec<(String, String)> {
    let mut found = vec![];
    for document in documents(&checkout()).unwrap().iter().filter(|d| d.path.to_str() != Some("CHANGELOG.md")) {
        for (line, span) in document.spans() {
            found.push((format!("{}:{line}", document.path.display()), span.to_owned()));
        }
    }
    found
}

#[test]
fn metrics_exist() {
    let known: Vec<_> = [metrics::activator().unwrap(), metrics::operator().unwrap()].concat();
    let mut count = 0;
    for (at, span) in spans() {
        let name = span.split('{').next().unwrap_or_default();
        if ["rouse_activator_", "rouse_operator_", "rouse_tls_"].iter().any(|prefix| name.starts_with(prefix)) {
            count += 1;
            let exists = known.iter().any(|family| family.name == name);
            assert!(exists, "{at}: there is no metric `{name}`");
        }
    }
    assert!(count > 20, "only {count} metrics were found");
}

/// A dotted path of lower camel case, with `[]` at any part.
fn is_path(span: &str) -> bool {
    let part = |part: &str| {
        let part = part.strip_suffix("[]").unwrap_or(part);
        part.starts_with(|c: char| c.is_ascii_lowercase()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let is_file = [".yaml", ".rs", ".md", ".txt"].iter().any(|extension| span.ends_with(extension));
    span.contains('.') && !is_file && span.split('.').all(part)
}

#[test]
fn fields_and_values_exist() {
    let fields = function::fields().unwrap();
    let values = Values::read(&checkout()).unwrap();
    let is_field = |path: &str| {
        let names = [path.to_owned(), format!("{path}[]")];
        fields.iter().any(|field| names.contains(field))
    };
    let is_value = |path: &str| values.paths().any(|v| v == path || v.starts_with(&format!("{path}.")));
    // The first words of paths; anything else with a dot may be a host or a file.
    let starts = |path: &str, names: &[&str]| names.contains(&path.split(['.', '[']).next().unwrap_or_default());
    let in_spec =
        ["scaling", "timeouts", "queue", "rollout", "traffic", "mirror", "routes", "readiness", "podTemplate"];
    let in_chart = ["ingress", "activator", "operator", "hosts", "crds", "rbac", "networkPolicy"];
    let mut count = 0;
    for (at, span) in spans() {
        // That of a Deployment.
        if !is_path(&span) || span == "spec.replicas" {
            continue;
        }
        let exists = if starts(&span, &["spec", "status"]) {
            is_field(&span) || span.starts_with("spec.podTemplate.")
        } else if starts(&span, &in_spec) {
            is_field(&format!("spec.{span}"))
        } else if starts(&span, &in_chart) {
            is_value(&span)
        } else {
            continue;
        };
        count += 1;
        assert!(exists, "{at}: there is no field or value `{span}`");
    }
    assert!(count > 100, "only {count} fields and values were found");
}

/// Words of a Rust file that users see as they are: values of constants `NAME: &str = "Word"`, and literal reasons of Events.
fn words(path: &Path) -> Vec<String> {
    let source = std::fs::read_to_string(checkout().join(path)).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let literal = |rest: &str| Some(rest.split_once('"')?.1.split_once('"')?.0.to_owned());
    let word = |line: &str| {
        let constants = path.ends_with("conditions.rs") || path.ends_with("transitions.rs");
        if let Some((_, value)) = line.split_once(": &str = ").filter(|_| constants) {
            return literal(value);
        }
        let event = line.split_once(".normal(").or_else(|| line.split_once(".warning("));
        event.and_then(|(_, arguments)| literal(arguments))
    };
    let is_word = |text: &String| text.starts_with(|c: char| c.is_ascii_uppercase()) && !text.contains([' ', '{']);
    source.lines().filter_map(word).filter(is_word).collect()
}

#[test]
fn every_condition_reason_and_event_is_explained() {
    let page = Document::read(&checkout(), "docs/reference/conditions.md").unwrap();
    let explained: Vec<_> = page.spans().into_iter().map(|(_, span)| span).collect();
    let mut count = 0;
    for source in files(&checkout(), &["crds/src", "operator/src"], "rs").unwrap() {
        for name in words(&source) {
            count += 1;
            let file = source.display();
            assert!(explained.contains(&&*name), "docs/reference/conditions.md does not explain `{name}` of {file}");
        }
    }
    assert!(count > 20, "only {count} conditions, reasons and events were found");
}
