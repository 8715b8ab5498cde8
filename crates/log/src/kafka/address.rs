//! Where a log on Kafka is, and how its brokers are spoken to.

use std::fmt;
use std::str::FromStr;

use canvass_election::ids::Topic;
use rdkafka::config::ClientConfig;

use super::{MAX_BATCH_BYTES, MAX_EXTRA_BYTES};

/// The longest prefix: Kafka's names of topics have 249 characters at most.
const MAX_PREFIX: usize = 200;
/// Settings that may be given: how to speak to the brokers. How records are kept is not for choosing.
const FAMILIES: [&str; 5] = ["ssl.", "sasl.", "socket.", "broker.address.", "client."];
const SINGLE: [&str; 2] = ["security.protocol", "enable.ssl.certificate.verification"];

/// The brokers and the prefix of a log's topics, written `HOST:PORT[,HOST:PORT]/PREFIX`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    brokers: String,
    prefix: String,
    /// May hold passwords.
    settings: Vec<(String, String)>,
}

/// Why an address or its settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form.
    #[error("{0:?} is no address of a log on Kafka: write HOST:PORT[,HOST:PORT]/PREFIX")]
    Form(String),
    /// The prefix cannot begin a topic's name.
    #[error(
        "{0:?} cannot begin the name of a topic: use at most {MAX_PREFIX} letters, digits, dots, dashes and underscores"
    )]
    Prefix(String),
    /// A line of the settings is not a setting.
    #[error("line {0} is not KEY=VALUE")]
    Line(usize),
    /// A setting that is not for choosing.
    #[error(
        "line {line}: {key:?} cannot be set; what can be set is security.protocol and what begins with ssl., sasl., \
         socket., client. or broker.address."
    )]
    Setting {
        /// The line, from 1.
        line: usize,
        /// The setting.
        key: String,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        let (brokers, prefix) = text.split_once('/').ok_or_else(form)?;
        let is_broker = |broker: &str| {
            let Some((host, port)) = broker.rsplit_once(':') else { return false };
            !host.is_empty() && !host.contains(['@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if !brokers.split(',').all(is_broker) {
            return Err(form());
        }
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_word) {
            return Err(AddressError::Prefix(prefix.to_owned()));
        }
        Ok(Self { brokers: brokers.to_owned(), prefix: prefix.to_owned(), settings: Vec::new() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.brokers, self.prefix)
    }
}

// Without the settings, which may hold passwords.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Address {
    /// With settings for TLS and SASL as Kafka's tools write them: lines of `KEY=VALUE`, in the names that
    /// librdkafka documents. Blank lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// If a line is no setting, or one that is not for choosing.
    pub fn with_settings(mut self, text: &str) -> Result<Self, AddressError> {
        for (line, setting) in (1..).zip(text.lines()) {
            let setting = setting.trim();
            if setting.is_empty() || setting.starts_with('#') {
                continue;
            }
            let (key, value) = setting.split_once('=').ok_or(AddressError::Line(line))?;
            let (key, value) = (key.trim(), value.trim());
            if !SINGLE.contains(&key) && !FAMILIES.iter().any(|family| key.starts_with(family)) {
                return Err(AddressError::Setting { line, key: key.to_owned() });
            }
            self.settings.push((key.to_owned(), value.to_owned()));
        }
        Ok(self)
    }

    /// The brokers that are asked first.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The name of one of the cluster's topics or groups, or of a writer.
    pub(super) fn named(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }

    pub(super) fn topic(&self, topic: Topic) -> String {
        let stream = match topic {
            Topic::Votes => "votes",
            Topic::Returns => "returns",
        };
        self.named(stream)
    }

    /// What every client of these brokers is set to.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("message.max.bytes", (MAX_BATCH_BYTES + MAX_EXTRA_BYTES).to_string())
            // Brokers that come back are noticed within a second.
            .set("reconnect.backoff.max.ms", "1000");
        config
    }
}
