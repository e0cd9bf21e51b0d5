//! The page of the command lines of operator and activator.

use clap::{Arg, Command, CommandFactory as _};

use crate::markdown::{GENERATED, cell, code, sentence, table};

const INTRODUCTION: &str = "# Flags

The chart sets these flags; set them by hand only to run a process outside the cluster. Each flag has an environment variable,
and the flag has precedence. An invalid flag ends the process with status 64 and a message on stderr.

The log level is the environment variable `RUST_LOG` (chart value `logLevel`), such as `info,rouse_activator=debug`.
";

/// Returns the page.
#[must_use]
pub fn page() -> String {
    let mut out = format!("{GENERATED}\n{INTRODUCTION}");
    section(&mut out, "rouse-operator", &rouse_operator::args::Args::command());
    section(&mut out, "rouse-activator", &rouse_activator::args::Args::command());
    out
}

fn section(out: &mut String, name: &str, command: &Command) {
    out.push_str(&format!("\n## {name}\n\n"));
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_long().is_some());
    table(out, ["flag, environment", "default", "description"], shown.map(row));
}

fn row(arg: &Arg) -> [String; 3] {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let env = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let mut help =
        sentence(&arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default());
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        help = format!("{help} One of {}.", values.join(", "));
    }
    let name = if env.is_empty() { code(&flag) } else { format!("{}<br>{}", code(&flag), code(&env)) };
    [name, code(&default.join(",")), cell(&help)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_its_variable_its_default_and_its_values() {
        let page = page();
        let line = |flag: &str| page.lines().find(|l| l.starts_with(&format!("| `{flag}`<br>"))).unwrap_or_default();
        assert!(
            line("--shutdown-delay").contains("<br>`ROUSE_SHUTDOWN_DELAY` | `5s` |"),
            "{}",
            line("--shutdown-delay")
        );
        assert!(line("--ingress-mode").contains("One of `ingress`, `gateway`, `none`."), "{}", line("--ingress-mode"));
        assert!(!page.contains("allow-local-pods"), "hidden flags are for tests");
    }
}
