// Compiles the contract and prints what crates/anchor/contract/Anchor.json holds:
//     npm ci && node compile.mjs > ../../crates/anchor/contract/Anchor.json
import { readFileSync } from "node:fs";
import solc from "solc";

const source = readFileSync(new URL("../../crates/anchor/contract/Anchor.sol", import.meta.url), "utf8");
const outputs = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"];
const input = {
  language: "Solidity",
  sources: { "Anchor.sol": { content: source } },
  settings: {
    optimizer: { enabled: true, runs: 1000 },
    // Named, so that another compiler does not quietly make code for another chain.
    evmVersion: "paris",
    // The hash of the source at the code's end would change with each comment.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "Anchor.sol": { Anchor: outputs } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
if (output.errors) {
  for (const error of output.errors) console.error(error.formattedMessage);
  process.exit(1);
}
const { abi, evm } = output.contracts["Anchor.sol"].Anchor;
const code = evm.deployedBytecode;
// Where the publisher's address stands in the code of a contract on a chain.
const publisher = Object.values(code.immutableReferences).flat().map(({ start }) => start);
const artifact = { compiler: solc.version(), abi, creation: evm.bytecode.object, runtime: code.object, publisher };
console.log(JSON.stringify(artifact, null, 2));
