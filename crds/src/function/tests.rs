use super::*;

#[test]
fn the_generated_definition_is_current() {
    let stored = include_str!("../../functions.rouse.dev.yaml");
    assert!(stored == crd_yaml().unwrap(), "crds/functions.rouse.dev.yaml is not current: run `cargo e2e generate`");
}

#[test]
fn a_minimal_function_has_defaults() {
    let function: Function = serde_saphyr::from_str(
        "apiVersion: rouse.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  image: ghcr.io/acme/hello:1.0
",
    )
    .unwrap();
    let spec = &function.spec;
    assert_eq!((spec.port(), spec.protocol(), spec.visibility()), (8080, Protocol::Http1, Visibility::Public));
    assert_eq!((spec.scaling().min(), spec.scaling().max(), spec.scaling().initial()), (0, 100, 1));
    assert_eq!(spec.timeouts().cold_start().as_secs(), 60);
    assert_eq!((spec.queue().max_requests(), spec.queue().max_bytes()), (1000, 16 << 20));
    // Defaults are not stored.
    assert_eq!(serde_json::to_string(spec).unwrap(), r#"{"image":"ghcr.io/acme/hello:1.0"}"#);
}

#[test]
fn every_example_parses() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut found = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                for document in text.split("\n---\n").filter(|d| d.contains("kind: Function")) {
                    serde_saphyr::from_str::<Function>(document).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    found += 1;
                }
            }
        }
    }
    assert!(found > 0, "no example was found");
}
