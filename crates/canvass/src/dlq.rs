//! `canvass dlq`: what lies in a log on Kafka and is no record of Canvass.

use bytes::Bytes;
use canvass_log::kafka::DeadLetter;
use canvass_log::{Batch, KafkaLog, Log};
use canvass_protocol::record::BatchReader;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::kafka::KafkaArgs;
use crate::{Outcome, say};

/// How much of a letter is shown.
const SHOWN: usize = 200;

#[derive(Subcommand)]
pub(crate) enum DlqCommand {
    /// List what was found in the log and is no record of Canvass, one JSON object a line
    List(KafkaArgs),
    /// Count what a dead letter holds after all, where that is a batch of Canvass whose header was lost on its way
    Replay(ReplayArgs),
}

#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// The letter's name, as `canvass dlq list` shows it
    letter: String,
    #[command(flatten)]
    kafka: KafkaArgs,
}

async fn open(args: &KafkaArgs) -> Result<KafkaLog, String> {
    let log = args.open(None).await?;
    log.ok_or_else(|| {
        "name the log with --kafka HOST:PORT/PREFIX; only logs on Kafka have dead letters".to_owned()
    })
}

pub(crate) async fn run(command: DlqCommand) -> Outcome {
    match command {
        DlqCommand::List(args) => list(&open(&args).await?).await,
        DlqCommand::Replay(args) => replay(&open(&args.kafka).await?, &args.letter).await,
    }
}

async fn letters(log: &KafkaLog) -> Result<Vec<DeadLetter>, String> {
    log.dead_letters().await.map_err(|e| format!("the dead letters cannot be read: {e}"))
}

async fn list(log: &KafkaLog) -> Outcome {
    for letter in letters(log).await? {
        let begins: String = String::from_utf8_lossy(&letter.bytes).chars().take(SHOWN).collect();
        say(json!({
            "letter": letter.name().to_string(),
            "reason": letter.reason,
            "size": letter.bytes.len(),
            "begins": begins,
            "replayable": batch(&letter).is_ok(),
        }));
    }
    Ok(())
}

/// Appends a letter's records to its partition. Their request ids make a second time a repetition.
async fn replay(log: &KafkaLog, name: &str) -> Outcome {
    let letters = letters(log).await?;
    let letter = letters.iter().find(|letter| letter.name().to_string() == name);
    let letter =
        letter.ok_or_else(|| format!("there is no dead letter {name}; `canvass dlq list` shows them"))?;
    let batch = batch(letter).map_err(|why| format!("{name} cannot be replayed: {why}"))?;
    let records = batch.count;
    let offset = log.append(letter.partition, batch).await.map_err(|e| e.to_string())?;
    log.close().await;
    say(
        json!({ "letter": name, "records": records, "partition": letter.partition.to_string(), "offset": offset.0 }),
    );
    Ok(())
}

/// The batch that a letter is, if it is one.
fn batch(letter: &DeadLetter) -> Result<Batch, String> {
    let bytes: &Bytes = &letter.bytes;
    let no = |e: &dyn std::fmt::Display| format!("it holds no batch of Canvass ({e})");
    let mut count = 0;
    for record in BatchReader::new(bytes).map_err(|e| no(&e))?.records(letter.partition, letter.offset) {
        record.map_err(|e| no(&e))?;
        count += 1;
    }
    match count {
        0 => Err(no(&"it is empty")),
        count => Ok(Batch { count, bytes: bytes.clone() }),
    }
}
