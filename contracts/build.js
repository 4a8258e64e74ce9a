// Compiles InterestRates.sol to InterestRates.json, or to the file given as argument: `npm install && npm run build`.
//
// The build is reproducible: package.json pins the compiler's version, and the bytecode contains no metadata hash.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

// Packages are resolved from the working folder, so that they can be installed outside the repository.
const solc = createRequire(resolve('package.json'))('solc');
const here = (name) => new URL(name, import.meta.url);
const target = process.argv[2] ?? here('InterestRates.json');

const input = {
  language: 'Solidity',
  sources: { 'InterestRates.sol': { content: readFileSync(here('InterestRates.sol'), 'utf8') } },
  settings: {
    optimizer: { enabled: true, runs: 200 },
    // Supported by all chains and development nodes.
    evmVersion: 'paris',
    metadata: { bytecodeHash: 'none', appendCBOR: false },
    outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object'] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
// Warnings fail the build too: after deployment it is too late to read them.
if (output.errors?.length) process.exit(1);

const { abi, evm } = output.contracts['InterestRates.sol'].InterestRates;
const compiler = solc.version();
writeFileSync(target, JSON.stringify({ compiler, abi, bytecode: `0x${evm.bytecode.object}` }, null, 2) + '\n');
