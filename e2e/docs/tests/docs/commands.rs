//! Commands in the pages name verbs and values that exist. Those of `cargo e2e` are checked beside its command line.

use rouse_docs::{book::documents, checkout, values::Values};

const KUBECTL: [&str; 15] = [
    "annotate",
    "apply",
    "config",
    "delete",
    "describe",
    "edit",
    "explain",
    "get",
    "label",
    "logs",
    "patch",
    "port-forward",
    "rollout",
    "run",
    "scale",
];
const HELM: [&str; 9] =
    ["history", "install", "lint", "package", "rollback", "status", "template", "uninstall", "upgrade"];

/// The commands of the blocks `sh`, with lines that end in a backslash joined, and those in inline code.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut found = vec![];
    for document in documents(&checkout()).unwrap() {
        for block in document.blocks().into_iter().filter(|block| block.info == "sh") {
            let at = format!("{}:{}", document.path.display(), block.line);
            let text = block.text.replace("\\\n", " ");
            for line in text.lines() {
                let words = line.split(" # ").next().unwrap_or_default().split_whitespace();
                found.push((at.clone(), words.map(str::to_owned).collect()));
            }
        }
        for (line, span) in document.spans().into_iter().filter(|(_, span)| span.contains(' ')) {
            let at = format!("{}:{line}", document.path.display());
            found.push((at, span.split_whitespace().map(str::to_owned).collect()));
        }
    }
    found
}

/// The first word that is no flag.
fn verb(words: &[String]) -> Option<&str> {
    // Those before the verb.
    let with_value = ["--namespace", "--context"];
    let mut words = words.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        if with_value.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

#[test]
fn verbs_exist() {
    let mut count = 0;
    for (at, words) in commands() {
        let known: &[&str] = match words.first().map(String::as_str) {
            Some("kubectl") => &KUBECTL,
            Some("helm") => &HELM,
            _ => continue,
        };
        count += 1;
        let verb = verb(&words).unwrap_or_default();
        assert!(known.contains(&verb), "{at}: `{verb}` in `{}`", words.join(" "));
    }
    assert!(count > 30, "only {count} commands were found");
}

#[test]
fn values_that_helm_sets_exist() {
    let values = Values::read(&checkout()).unwrap();
    let mut count = 0;
    for (at, words) in commands().into_iter().filter(|(_, words)| words.first().is_some_and(|w| w == "helm")) {
        let set = words.windows(2).filter(|pair| ["--set", "--set-string"].contains(&&*pair[0])).map(|pair| &pair[1]);
        for (path, _) in set.filter_map(|assignment| assignment.trim_matches('\'').split_once('=')) {
            count += 1;
            // A key with a dot is escaped and quoted: `ingress.annotations.'a\.b/c'`.
            let path = path.split(".'").next().unwrap_or_default().split("\\.").next().unwrap_or_default();
            let path = path.split('[').next().unwrap_or_default();
            let known = values.paths().any(|v| v == path || path.starts_with(&format!("{v}.")));
            assert!(known, "{at}: the chart has no value `{path}`");
        }
    }
    assert!(count > 3, "only {count} values were found");
}
