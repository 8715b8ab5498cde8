//! The contract's code in the source tree is what the compiler makes of the contract's source.

use std::process::Command;

use serde_json::Value;

use super::node::tools;

#[test]
fn the_code_is_what_the_compiler_makes_of_the_source() {
    let output = Command::new("node").arg("compile.mjs").current_dir(tools()).output();
    let output = output.expect("this test needs Node.js");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let fresh: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept: Value = serde_json::from_str(include_str!("../../contract/Anchor.json")).unwrap();
    assert_eq!(fresh, kept, "compile the contract again: see tests/chain/compile.mjs");
}
