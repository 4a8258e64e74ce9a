// Compiles InterestRates.sol and writes InterestRates.json, or the file that is named: `npm install && npm run build`.
//
// The same source and compiler give the same bytes on every machine: the compiler's version is pinned in package.json,
// and the bytecode carries no hash of its metadata.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

// Packages are looked for in the folder that this is run in, so that they may be kept outside of the repository.
const solc = createRequire(resolve('package.json'))('solc');
const here = (name) => new URL(name, import.meta.url);
const target = process.argv[2] ?? here('InterestRates.json');

const input = {
  language: 'Solidity',
  sources: { 'InterestRates.sol': { content: readFileSync(here('InterestRates.sol'), 'utf8') } },
  settings: {
    optimizer: { enabled: true, runs: 200 },
    // Understood by every chain and by every node for development.
    evmVersion: 'paris',
    metadata: { bytecodeHash: 'none', appendCBOR: false },
    outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object'] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
// A warning is one as well: nobody reads it once it has been deployed.
if (output.errors?.length) process.exit(1);

const { abi, evm } = output.contracts['InterestRates.sol'].InterestRates;
const compiler = solc.version();
writeFileSync(target, JSON.stringify({ compiler, abi, bytecode: `0x${evm.bytecode.object}` }, null, 2) + '\n');
