//! Configuration of interest rates.

#[cfg(feature = "smart-contract")]
use super::chain::ChainConfig;
use runtime::config::EnvReader;

/// `STORAGE_BACKEND`: the storage of averages.
#[derive(Debug, Clone, Default)]
pub enum Config {
    /// PostgreSQL.
    #[default]
    Postgres,
    /// A smart contract. `CHAIN_RPC_URL`, `CHAIN_PRIVATE_KEY` and `CONTRACT_ADDRESS` select it.
    #[cfg(feature = "smart-contract")]
    SmartContract(Box<ChainConfig>),
}

impl Config {
    /// Reads the variables that the variants name.
    pub fn read(vars: &mut EnvReader) -> Self {
        let on_chain = vars.read("STORAGE_BACKEND", false, |text| match text {
            "postgres" => Ok(false),
            "smart_contract" if cfg!(feature = "smart-contract") => Ok(true),
            "smart_contract" => Err("smart_contract is not in this build, which lacks the feature smart-contract; \
                                     use STORAGE_BACKEND=postgres"
                .into()),
            _ => Err("must be postgres or smart_contract, such as STORAGE_BACKEND=postgres".into()),
        });
        #[cfg(not(feature = "smart-contract"))]
        let _ = on_chain;
        #[cfg(feature = "smart-contract")]
        if on_chain && let Some(config) = ChainConfig::read(vars) {
            return Self::SmartContract(Box::new(config));
        }
        Self::Postgres
    }

    /// The value of `STORAGE_BACKEND`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            #[cfg(feature = "smart-contract")]
            Self::SmartContract(_) => "smart_contract",
        }
    }
}
