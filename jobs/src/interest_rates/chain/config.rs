//! Configuration of the chain: node, key and contract.

use std::fmt;

use alloy::{
    primitives::{Address, B256, hex},
    signers::local::PrivateKeySigner,
};
use url::Url;

use runtime::config::{EnvReader, Environment};

use super::published_keys;

const NEEDS_OWN_KEY: &str = "must be a key of your own in prod: this one is printed by every node for development, \
                             such as CHAIN_PRIVATE_KEY=\"0x$(openssl rand -hex 32)\"";

/// A key and the node to send through. `Debug` prints neither: the URL may hold a password.
#[derive(Clone)]
pub struct Account {
    pub(super) rpc_url: Url,
    /// Its memory is overwritten on drop.
    pub(super) signer: PrivateKeySigner,
}

/// An account and the contract to which it writes.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    pub account: Account,
    pub(super) contract: Address,
}

impl Account {
    /// Reads `CHAIN_RPC_URL` and `CHAIN_PRIVATE_KEY`. Each one that is missing or invalid becomes a configuration
    /// error.
    pub fn read(vars: &mut EnvReader) -> Option<Self> {
        let rpc_url = required(vars, "CHAIN_RPC_URL", rpc_url_of);
        let signer = required(vars, "CHAIN_PRIVATE_KEY", signer_of);
        let is_published_key = signer.as_ref().is_some_and(|signer| published_keys::is_published(signer.address()));
        if is_published_key && Environment::read(vars) == Environment::Prod {
            vars.add_error("CHAIN_PRIVATE_KEY", NEEDS_OWN_KEY);
        }
        Some(Self { rpc_url: rpc_url?, signer: signer? })
    }

    /// The address of the key's account.
    pub fn address(&self) -> String {
        self.signer.address().to_string()
    }
}

impl ChainConfig {
    /// Reads `CHAIN_RPC_URL`, `CHAIN_PRIVATE_KEY` and `CONTRACT_ADDRESS`. Each one that is missing or invalid becomes a
    /// configuration error.
    pub fn read(vars: &mut EnvReader) -> Option<Self> {
        let account = Account::read(vars);
        let contract = required(vars, "CONTRACT_ADDRESS", address_of);
        Some(Self { account: account?, contract: contract? })
    }
}

fn required<T>(vars: &mut EnvReader, name: &str, read: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
    // A missing value gets the same message as an invalid one: it describes the expected value.
    match read(vars.text(name).as_deref().unwrap_or_default()) {
        Ok(value) => Some(value),
        Err(expected) => {
            vars.add_error(name, expected);
            None
        }
    }
}

fn rpc_url_of(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or("must be set to the HTTP URL of an Ethereum node, such as http://localhost:8545")
}

fn signer_of(text: &str) -> Result<PrivateKeySigner, &'static str> {
    let key = text.strip_prefix("0x").and_then(|digits| {
        let mut key = B256::ZERO;
        hex::decode_to_slice(digits, key.as_mut_slice()).ok()?;
        PrivateKeySigner::from_bytes(&key).ok()
    });
    key.ok_or("must be set to the key of the contract's owner, 0x and 64 hexadecimal digits, such as 0x5eb1…c0de")
}

fn address_of(text: &str) -> Result<Address, &'static str> {
    // A mixed-case address contains a checksum (EIP-55), which detects typing errors.
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40);
    let address = digits.and_then(|digits| {
        let is_mixed_case =
            digits.contains(|c: char| c.is_ascii_lowercase()) && digits.contains(|c: char| c.is_ascii_uppercase());
        if is_mixed_case { Address::parse_checksummed(text, None).ok() } else { text.parse().ok() }
    });
    address.ok_or(
        "must be set to what `millrace contract deploy` printed, such as 0x5FbDB2315678afecb367f032d93F642f64180aa3",
    )
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://user:secret@localhost:8545/v3/secret";
    const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    const CONTRACT: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";

    fn read(pairs: &[(&str, &str)]) -> Result<Option<ChainConfig>, String> {
        let mut vars = EnvReader::from_pairs(pairs);
        let config = ChainConfig::read(&mut vars);
        vars.finish(config).map_err(|errors| errors.to_string())
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let config = read(&[("CHAIN_RPC_URL", URL), ("CHAIN_PRIVATE_KEY", KEY), ("CONTRACT_ADDRESS", CONTRACT)]);
        let printed = format!("{config:#?}");
        assert!(printed.contains(CONTRACT) || printed.contains(&CONTRACT.to_lowercase()), "{printed}");
        assert!(!printed.contains("secret") && !printed.to_lowercase().contains(&KEY[2..20]), "{printed}");
    }

    #[test]
    fn every_missing_or_invalid_variable_is_reported() {
        let missing = read(&[]).expect_err("nothing is set");
        for name in ["CHAIN_RPC_URL: must be", "CHAIN_PRIVATE_KEY: must be", "CONTRACT_ADDRESS: must be"] {
            assert!(missing.contains(name), "{missing}");
        }
        assert_eq!(missing.matches("such as").count(), 3, "each error has an example: {missing}");
        let zero = format!("0x{}", "0".repeat(64));
        for (name, value) in [
            ("CHAIN_RPC_URL", "ws://secret"),
            ("CHAIN_RPC_URL", "localhost:8545/secret"),
            ("CHAIN_PRIVATE_KEY", "secret"),
            ("CHAIN_PRIVATE_KEY", &KEY[2..]),
            ("CHAIN_PRIVATE_KEY", &KEY[..64]),
            ("CHAIN_PRIVATE_KEY", &zero),
            ("CONTRACT_ADDRESS", "0x5fbDB2315678afecb367f032d93F642f64180aa3"),
            ("CONTRACT_ADDRESS", "secret"),
            ("CONTRACT_ADDRESS", &CONTRACT[2..]),
        ] {
            let mut pairs = vec![("CHAIN_RPC_URL", URL), ("CHAIN_PRIVATE_KEY", KEY), ("CONTRACT_ADDRESS", CONTRACT)];
            pairs.retain(|(other, _)| *other != name);
            pairs.push((name, value));
            let error = read(&pairs).expect_err(value);
            assert!(error.starts_with(name) && error.lines().count() == 1, "{error}");
            assert!(!error.contains("secret") && !error.contains(&KEY[2..20]), "{error}");
        }
        let dev = [("ENV", "dev"), ("CHAIN_RPC_URL", URL), ("CHAIN_PRIVATE_KEY", KEY), ("CONTRACT_ADDRESS", CONTRACT)];
        read(&dev).expect("a published key in dev");
        let prod = [&[("ENV", "prod")], &dev[1..]].concat();
        let error = read(&prod).expect_err("a published key");
        assert!(error.starts_with("CHAIN_PRIVATE_KEY: must be a key of your own in prod"), "{error}");
        assert!(error.lines().count() == 1 && !error.contains(&KEY[2..20]), "{error}");
        let own = format!("0x{}", "7".repeat(64));
        let prod = [&prod[..2], &[("CHAIN_PRIVATE_KEY", &*own), ("CONTRACT_ADDRESS", CONTRACT)]].concat();
        read(&prod).expect("a private key");
        let lower = CONTRACT.to_lowercase();
        read(&[("CHAIN_RPC_URL", URL), ("CHAIN_PRIVATE_KEY", KEY), ("CONTRACT_ADDRESS", &lower)]).expect("lower case");
    }
}
