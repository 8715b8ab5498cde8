//! The options of a log on Kafka.

use std::path::PathBuf;

use canvass_election::Definition;
use canvass_log::KafkaLog;
use canvass_log::kafka::{Address, Partitions};
use clap::Args;

#[derive(Args, Clone, Default)]
pub(crate) struct KafkaArgs {
    /// Keep the log on Kafka, not in the data folder: its brokers, and what the names of the log's topics begin with
    #[arg(long, env = "CANVASS_KAFKA", value_name = "HOST:PORT[,HOST:PORT]/PREFIX")]
    kafka: Option<Address>,
    /// How to speak to the brokers (TLS, SASL): lines of KEY=VALUE as librdkafka names them
    #[arg(long, env = "CANVASS_KAFKA_SETTINGS", value_name = "FILE", requires = "kafka")]
    kafka_settings: Option<PathBuf>,
}

impl KafkaArgs {
    /// Opens the log, where it is to be on Kafka. With a definition, topics that are missing are made.
    pub(crate) async fn open(&self, definition: Option<&Definition>) -> Result<Option<KafkaLog>, String> {
        let Some(address) = self.address()? else { return Ok(None) };
        let partitions = definition.map(partitions);
        KafkaLog::open(&address, partitions).await.map(Some).map_err(|e| e.to_string())
    }

    /// Where the log is, if it is to be on Kafka.
    pub(crate) fn address(&self) -> Result<Option<Address>, String> {
        let Some(mut address) = self.kafka.clone() else { return Ok(None) };
        if let Some(path) = &self.kafka_settings {
            let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let text = std::fs::read_to_string(path).map_err(|e| named(&e))?;
            address = address.with_settings(&text).map_err(|e| named(&e))?;
        }
        Ok(Some(address))
    }
}

/// How many partitions a definition asks for.
pub(crate) fn partitions(definition: &Definition) -> Partitions {
    Partitions { votes: definition.partitions.votes, returns: definition.partitions.returns }
}
