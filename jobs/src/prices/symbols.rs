//! The codes under which exchanges trade assets.
//!
//! Ids are CoinGecko's, and codes are not unique: dozens of coins call themselves `BTC`. So a code is data, and never
//! made of an id. Which pairs an exchange has, and what it calls them, is in its own list of pairs (`providers`). An
//! asset that is not here is only asked of CoinGecko.

/// The id and the code of an asset.
const CODES: [(&str, &str); 60] = [
    ("aave", "AAVE"),
    ("algorand", "ALGO"),
    ("aptos", "APT"),
    ("arbitrum", "ARB"),
    ("avalanche-2", "AVAX"),
    ("basic-attention-token", "BAT"),
    ("binancecoin", "BNB"),
    ("bitcoin", "BTC"),
    ("bitcoin-cash", "BCH"),
    ("blockstack", "STX"),
    ("bonk", "BONK"),
    ("cardano", "ADA"),
    ("celestia", "TIA"),
    ("chainlink", "LINK"),
    ("chiliz", "CHZ"),
    ("compound-governance-token", "COMP"),
    ("cosmos", "ATOM"),
    ("curve-dao-token", "CRV"),
    ("dash", "DASH"),
    ("decentraland", "MANA"),
    ("dogecoin", "DOGE"),
    ("dogwifcoin", "WIF"),
    ("ethereum", "ETH"),
    ("ethereum-classic", "ETC"),
    ("filecoin", "FIL"),
    ("flow", "FLOW"),
    ("havven", "SNX"),
    ("hedera-hashgraph", "HBAR"),
    ("injective-protocol", "INJ"),
    ("internet-computer", "ICP"),
    ("kusama", "KSM"),
    ("lido-dao", "LDO"),
    ("litecoin", "LTC"),
    ("monero", "XMR"),
    ("near", "NEAR"),
    ("ondo-finance", "ONDO"),
    ("optimism", "OP"),
    ("pepe", "PEPE"),
    ("polkadot", "DOT"),
    ("polygon-ecosystem-token", "POL"),
    ("quant-network", "QNT"),
    ("render-token", "RENDER"),
    ("ripple", "XRP"),
    ("shiba-inu", "SHIB"),
    ("solana", "SOL"),
    ("stellar", "XLM"),
    ("sui", "SUI"),
    ("tether", "USDT"),
    ("tezos", "XTZ"),
    ("the-graph", "GRT"),
    ("the-open-network", "TON"),
    ("the-sandbox", "SAND"),
    ("theta-token", "THETA"),
    ("tron", "TRX"),
    ("uniswap", "UNI"),
    ("usd-coin", "USDC"),
    ("vechain", "VET"),
    ("worldcoin-wld", "WLD"),
    ("yearn-finance", "YFI"),
    ("zcash", "ZEC"),
];

/// The code of an asset.
pub fn code(id: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == id).map(|(_, code)| *code)
}

/// Every id that has a code.
pub fn ids() -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|(id, _)| *id)
}

/// The id that a code means.
pub fn id_of(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(_, known)| known.eq_ignore_ascii_case(code)).map(|(id, _)| *id)
}

/// The id of ours that a wrong one may stand for: the asset of that code, else the nearest id.
pub fn suggestion(wrong: &str) -> Option<&'static str> {
    if code(wrong).is_some() { None } else { id_of(wrong).or_else(|| nearest(wrong, ids())) }
}

/// The known name that is nearest to a wrong one, if it differs in few places.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A short name is near to many others.
    let most = (wrong.len() / 3).clamp(1, 2);
    let near = known.map(|name| (strsim::damerau_levenshtein(wrong, name), name));
    near.filter(|(distance, _)| (1..=most).contains(distance)).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_and_every_code_stands_once() {
        assert!(CODES.is_sorted_by(|(a, _), (b, _)| a < b));
        let mut codes: Vec<_> = CODES.iter().map(|(_, code)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }

    #[test]
    fn a_code_is_never_made_of_an_id() {
        assert_eq!(code("bitcoin"), Some("BTC"));
        assert_eq!(code("btc"), None);
        assert_eq!(code("a-coin-of-tomorrow"), None);
        assert_eq!((id_of("btc"), id_of("XRP"), id_of("nothing")), (Some("bitcoin"), Some("ripple"), None));
    }

    #[test]
    fn a_wrong_name_gets_the_nearest_right_one() {
        for (wrong, right) in [
            ("btc", Some("bitcoin")),
            ("xrp", Some("ripple")),
            ("bitcion", Some("bitcoin")),
            ("etherium", Some("ethereum")),
            ("solona", Some("solana")),
            ("a-coin-of-tomorrow", None),
            ("bitcoin", None),
        ] {
            assert_eq!(suggestion(wrong), right, "{wrong}");
        }
        let currencies = ["usd", "eur", "gbp", "usdt"];
        for (wrong, right) in [("euro", Some("eur")), ("usdd", Some("usd")), ("yen", None), ("us", Some("usd"))] {
            assert_eq!(nearest(wrong, currencies.into_iter()), right, "{wrong}");
        }
    }
}
