//! The commands `cargo e2e …` in the documentation parse.

use clap::Parser as _;
use rouse_e2e::Places;

use super::Cli;

/// Lines and inline code of `text` that begin with `cargo e2e`, without what stands behind ` # `.
fn commands(text: &str) -> Vec<String> {
    let mut found = vec![];
    let mut within = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            within = !within;
        } else if within || line.starts_with("    ") {
            found.push(line.trim());
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let command = |text: &str| text.split(" # ").next().unwrap_or_default().trim().to_owned();
    found.into_iter().filter(|text| text.starts_with("cargo e2e")).map(command).collect()
}

#[test]
fn every_command_in_the_documentation_parses() {
    let root = Places::discover().unwrap().repo;
    let mut folders = vec![root.join("docs")];
    let mut files =
        vec!["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "charts/rouse/README.md", "examples/README.md"]
            .into_iter()
            .map(|name| root.join(name))
            .collect::<Vec<_>>();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                files.push(path);
            }
        }
    }
    let mut count = 0;
    for file in files {
        for command in commands(&std::fs::read_to_string(&file).unwrap()) {
            // `cargo e2e <verb>` is how the pages speak of all of them.
            let words = command.split_whitespace().skip(2).filter(|word| *word != "<verb>");
            let words: Vec<_> = words.collect();
            if words.is_empty() {
                continue;
            }
            count += 1;
            if let Err(error) = Cli::try_parse_from(std::iter::once("cargo e2e").chain(words)) {
                panic!("{}: `{command}`: {error}", file.display());
            }
        }
    }
    assert!(count > 20, "only {count} commands were found");
}

#[test]
fn commands_are_found_in_blocks_and_in_lines() {
    let text = "Run `cargo e2e up` or `ls`:\n\n```sh\ncargo e2e down # all\n```\n    cargo e2e demo\n";
    assert_eq!(commands(text), ["cargo e2e up", "cargo e2e down", "cargo e2e demo"]);
}
