// A chain in memory with the accounts that every node for development has; a block for each transaction.
module.exports = { solidity: "0.8.28", networks: { hardhat: { chainId: 31337 } } };
