//! A server whose log is anchored on a chain, and those who compare the two.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "../../anchor/src/tests/node.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod node;
mod support;

use std::path::Path;

use node::Node;
use serde_json::{Value, json};
use support::{POLL, Server, command, eventually, fails, get, post, raw, run};

/// Makes the contract with a key of its own, and a file of options that names both.
fn deploy(node: &Node, folder: &Path) -> String {
    let (data, rpc) = (folder.join("data"), node.url());
    let args = ["anchor", "deploy", "--data", data.to_str().unwrap(), "--anchor-rpc", &rpc];
    // A new key has no money.
    let poor = fails(&args);
    let address = poor.split_whitespace().find(|word| word.starts_with("0x")).unwrap();
    assert!(poor.contains("send it some and run the same command again"), "{poor}");
    node.ask("anvil_setBalance", json!([address, "0xde0b6b3a7640000"]));
    let contract = run(&args).trim().to_owned();
    let options = format!("anchor_rpc = \"{rpc}\"\nanchor_contract = \"{contract}\"\nanchor_seconds = 1\n");
    std::fs::write(folder.join("options.toml"), options).unwrap();
    contract
}

fn start(folder: &Path, data: &str) -> Server {
    let election = folder.join("election.toml");
    std::fs::write(&election, POLL).unwrap();
    let options = folder.join("options.toml");
    let options = ["--election", election.to_str().unwrap(), "--config", options.to_str().unwrap()];
    Server::start(&folder.join(data), &options)
}

fn vote(server: &Server, voter: &str, choice: &str) {
    let body = json!({ "contest": "song", "selections": [choice], "voter": voter });
    assert_eq!(post(&server.address, "/api/v1/vote", None, Some(voter), &body).status, 201);
}

/// The state of the anchors, as soon as it is as it should be.
fn anchors(server: &Server, what: &str, done: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(get(&server.address, "/api/v1/proof")["anchors"].take()).filter(&done))
}

fn newest_is(stage: &'static str) -> impl Fn(&Value) -> bool {
    move |anchors| anchors["heads"].as_array().unwrap().last().is_some_and(|head| head["stage"] == stage)
}

/// Checks the server and the chain; what it said on standard output, and whether all was well.
fn verify(server: &Server, folder: &Path) -> (String, bool) {
    let key = folder.join("log.key");
    let options = folder.join("options.toml");
    let args = ["--config", options.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let output = command().args(["verify", &server.url()]).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

/// The contest's page tells its readers so, soon.
fn page_says(server: &Server, words: &str) {
    eventually(words, || {
        let page = raw(&server.address, "GET", "/contests/song", &[], b"").body;
        page.contains(words).then_some(())
    });
}

#[test]
fn a_log_is_anchored_and_an_auditor_compares() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut node = Node::start();
    deploy(&node, folder);
    let mut server = start(folder, "data");
    std::fs::write(
        folder.join("log.key"),
        run(&["key", "log", "--data", folder.join("data").to_str().unwrap()]),
    )
    .unwrap();
    vote(&server, "ann", "x");
    anchors(&server, "an anchor", newest_is("included"));
    page_says(&server, "which the chain may still take back.");
    node.mine(3);
    anchors(&server, "a final anchor", newest_is("finalised"));
    page_says(&server, "stands there for good in block");
    let (said, good) = verify(&server, folder);
    assert!(good && said.contains("\"anchored\":{\"heads\":1,\"finalised\":1,"), "{said}");

    // A dead node holds up no vote, and a restart goes on.
    node.end();
    vote(&server, "bob", "y");
    let state = anchors(&server, "the trouble", |anchors| anchors.get("trouble").is_some());
    assert_eq!(state["trouble"], "node");
    page_says(&server, "Nothing new is anchored just now: the chain cannot be reached.");
    let (said, good) = verify(&server, folder);
    assert!(!good && said.contains("does not answer"), "{said}");
    server.restart();
    vote(&server, "cas", "x");
    node.start_again();
    let state = anchors(&server, "the next anchor", newest_is("included"));
    assert!(state["heads"].as_array().unwrap().len() >= 2 && state.get("trouble").is_none(), "{state}");
    assert!(verify(&server, folder).1);
    server.stop();

    // With the log's key and the chain's, somebody counts other votes under the same name.
    std::fs::create_dir(folder.join("fork")).unwrap();
    for file in ["log.secret", "anchor.secret"] {
        std::fs::copy(folder.join("data").join(file), folder.join("fork").join(file)).unwrap();
    }
    let fork = start(folder, "fork");
    for n in 0..40 {
        vote(&fork, &format!("nobody {n}"), "y");
        anchors(&fork, "the trouble", |anchors| {
            anchors.get("trouble").is_some_and(|trouble| trouble == "fork" || trouble == "rolled-back")
        });
        if get(&fork.address, "/api/v1/proof")["anchors"]["trouble"] == "fork" {
            break;
        }
    }
    let (said, good) = verify(&fork, folder);
    assert!(!good && said.contains("the log was rewritten: its first"), "{said}");
    assert!(said.contains("and the anchor has"), "{said}");
}

#[test]
fn what_is_lacking_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let election = folder.path().join("election.toml");
    std::fs::write(&election, POLL).unwrap();
    let serve = |more: &[&str]| {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--election"];
        fails(&[&args[..], &[election.to_str().unwrap()], more].concat())
    };
    let (rpc, contract) = ("http://127.0.0.1:9/v3/secret", "0x0101010101010101010101010101010101010101");
    for (options, said) in [
        (&["--anchor-rpc", rpc][..], "needs --anchor-contract"),
        (&["--anchor-contract", contract], "needs --anchor-rpc"),
        (&["--anchor-rpc", "node.example", "--anchor-contract", contract], "begins with http:// or https://"),
        (&["--anchor-rpc", rpc, "--anchor-contract", "0x01"], "--anchor-contract"),
        (&["--anchor-rpc", rpc, "--anchor-contract", contract], "`canvass anchor deploy` makes one"),
    ] {
        let error = serve(options);
        assert!(error.contains(said) && !error.contains("/v3/"), "{options:?}: {error}");
    }
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("anchor.secret"), "no key").unwrap();
    let error = serve(&["--anchor-rpc", rpc, "--anchor-contract", contract]);
    assert!(error.contains("64 hexadecimal digits"), "{error}");
}
