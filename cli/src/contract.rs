//! `millrace contract`: deploys the smart contract that stores interest rates.

use anyhow::Result;
use clap::{Args, Subcommand};
use jobs::interest_rates::chain::{self, Account};
use runtime::config::EnvReader;

use crate::output;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Deploy a new contract and print its address
    #[command(after_help = "\
The account of CHAIN_PRIVATE_KEY pays for the contract and becomes its owner. Only the owner may save rates. Standard output
is only the address. Each run deploys another, empty contract.

  CHAIN_RPC_URL       the HTTP URL of an Ethereum node, such as http://localhost:8545
  CHAIN_PRIVATE_KEY   the owner's key, 0x and 64 hexadecimal digits

Examples:
  millrace contract deploy
  export CONTRACT_ADDRESS=$(millrace contract deploy) STORAGE_BACKEND=smart_contract")]
    Deploy,
}

/// Runs `millrace contract`.
///
/// # Errors
/// When the configuration is wrong or the contract cannot be deployed.
pub(crate) async fn program(Arguments { command }: Arguments) -> Result<()> {
    match command {
        Command::Deploy => deploy().await,
    }
}

async fn deploy() -> Result<()> {
    let mut vars = EnvReader::from_env();
    let account = Account::read(&mut vars);
    let Some(account) = vars.finish(account)? else { return Ok(()) };
    eprintln!("deploying the contract from the account {}, and waiting for its block", account.address());
    let address = chain::deploy(&account).await?;
    output::print(&format!("{address}\n"))?;
    eprintln!("deployed: set CONTRACT_ADDRESS to this address, and STORAGE_BACKEND=smart_contract");
    Ok(())
}
