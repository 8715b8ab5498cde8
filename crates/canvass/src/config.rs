//! Options: flags before `CANVASS_*` variables before a TOML file before the defaults.
//!
//! The file's values become clap's defaults, so that there is one list of options and one way to read each.

use std::path::PathBuf;

use canvass_protocol::definition::did_you_mean;
use clap::builder::Str;
use clap::{ArgMatches, Command, CommandFactory};

use crate::Cli;

const PREFIX: &str = "CANVASS_";

/// Why the options cannot be read.
pub(crate) enum Fault {
    /// The command line is wrong, or asks for help.
    Usage(clap::Error),
    /// The file or the environment is wrong.
    Config(String),
}

/// The options of this process.
pub(crate) fn matches() -> Result<ArgMatches, Fault> {
    let command = Cli::command();
    check_environment(&command).map_err(Fault::Config)?;
    // The first reading only finds the file; what it says of anything else is read again below.
    let first = command.clone().ignore_errors(true).get_matches();
    let path: Option<PathBuf> = first.get_one::<PathBuf>("config").cloned();
    let command = match path {
        Some(path) => with_file(command, &path).map_err(Fault::Config)?,
        None => command,
    };
    command.try_get_matches().map_err(Fault::Usage)
}

/// Every option of every subcommand, by its long name.
fn options(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned);
    let below = command.get_subcommands().flat_map(options);
    let mut all: Vec<String> = own.chain(below).collect();
    all.sort();
    all.dedup();
    all
}

/// `; did you mean …?` for the nearest of `known`, or nothing.
fn hint(word: &str, known: &[String]) -> String {
    did_you_mean(word, known.iter().map(String::as_str))
}

/// A misspelt variable would be silently without effect.
fn check_environment(command: &Command) -> Result<(), String> {
    let mut known: Vec<String> =
        options(command).iter().map(|o| format!("{PREFIX}{}", o.replace('-', "_").to_uppercase())).collect();
    known.push("CANVASS_LOG".to_owned());
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|n| n.starts_with(PREFIX)) else { continue };
        if !known.iter().any(|k| k == name) {
            return Err(format!("the environment has {name}, which is no option{}", hint(name, &known)));
        }
    }
    Ok(())
}

/// Makes the file's values the defaults of the options they name.
fn with_file(command: Command, path: &std::path::Path) -> Result<Command, String> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|e| format!("{} is not TOML: {}", path.display(), e.message()))?;
    let known: Vec<String> = options(&command).iter().map(|o| o.replace('-', "_")).collect();
    let mut command = command;
    for (key, value) in &table {
        if !known.contains(key) {
            return Err(format!("{}: `{key}` is no option{}", path.display(), hint(key, &known)));
        }
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => {
                return Err(format!(
                    "{}: `{key}` takes a text, a whole number or a truth value",
                    path.display()
                ));
            }
        };
        command = set_default(command, &key.replace('_', "-"), &Str::from(value));
    }
    Ok(command)
}

fn set_default(command: Command, long: &str, value: &Str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| match arg.get_long() == Some(long) {
        true => arg.default_value(value.clone()).required(false),
        false => arg,
    });
    names.into_iter().fold(command, |c, name| c.mut_subcommand(name, |sub| set_default(sub, long, value)))
}
