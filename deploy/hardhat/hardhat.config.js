// An in-memory chain with Hardhat's well-known accounts; each transaction gets its own block.
module.exports = { solidity: "0.8.28", networks: { hardhat: { chainId: 31337 } } };
