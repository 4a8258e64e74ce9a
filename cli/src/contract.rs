//! `millrace contract`: the smart contract that keeps interest rates.

use clap::{Args, Subcommand};
use jobs::{
    boot::process,
    config::EnvReader,
    interest_rates::chain::{self, Account},
};

use crate::operator;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new contract, and print its address
    #[command(after_help = "\
The account of CHAIN_PRIVATE_KEY pays for the contract, becomes its owner, and alone may save rates on it. Standard output is
the address and nothing else. Running it again makes another, empty contract.

  CHAIN_RPC_URL       the HTTP URL of an Ethereum node, such as http://localhost:8545
  CHAIN_PRIVATE_KEY   the owner's key, 0x and 64 hexadecimal digits

Examples:
  millrace contract deploy
  export CONTRACT_ADDRESS=$(millrace contract deploy) STORAGE_BACKEND=smart_contract")]
    Deploy,
}

/// Does what it is told.
///
/// # Errors
/// Why it could not.
pub async fn program(Arguments { command }: Arguments) -> Result<(), String> {
    match command {
        Command::Deploy => deploy().await,
    }
}

async fn deploy() -> Result<(), String> {
    let mut vars = EnvReader::from_env();
    let account = Account::read(&mut vars);
    let Some(account) = vars.finish(account).map_err(process::text)? else { return Ok(()) };
    eprintln!("making the contract with the account {}, and waiting for its block", account.address());
    let address = chain::deploy(&account).await.map_err(process::text)?;
    operator::print(&format!("{address}\n"))?;
    eprintln!("done: set CONTRACT_ADDRESS to it, and STORAGE_BACKEND=smart_contract");
    Ok(())
}
