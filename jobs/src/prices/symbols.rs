//! The codes under which exchanges trade assets.
//!
//! Ids are those of CoinGecko. Codes are not unique: dozens of coins call themselves `BTC`. So a code is looked up in
//! this table and never derived from an id. The pairs of an exchange, and their names, come from its list of pairs
//! (`providers`). An asset that is not in this table is requested from CoinGecko only.

/// Id and code of each asset, sorted by id.
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

/// All ids that have a code.
pub fn ids() -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|(id, _)| *id)
}

/// The id of a code, in any case.
pub fn id_of(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(_, known)| known.eq_ignore_ascii_case(code)).map(|(id, _)| *id)
}

/// Suggests an id for an unknown one: the asset of that code, else the most similar id.
pub fn suggestion(wrong: &str) -> Option<&'static str> {
    if code(wrong).is_some() { None } else { id_of(wrong).or_else(|| nearest(wrong, ids())) }
}

/// The known name that is most similar to a wrong one, if they differ in at most two places.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Short names resemble many others, so they may differ in one place only.
    let max_distance = (wrong.len() / 3).clamp(1, 2);
    let similar = known.map(|name| (strsim::damerau_levenshtein(wrong, name), name));
    similar.filter(|(distance, _)| (1..=max_distance).contains(distance)).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_codes_are_unique_and_sorted() {
        assert!(CODES.is_sorted_by(|(a, _), (b, _)| a < b));
        let mut codes: Vec<_> = CODES.iter().map(|(_, code)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }

    #[test]
    fn codes_come_from_the_table_only() {
        assert_eq!(code("bitcoin"), Some("BTC"));
        assert_eq!(code("btc"), None);
        assert_eq!(code("a-coin-of-tomorrow"), None);
        assert_eq!((id_of("btc"), id_of("XRP"), id_of("nothing")), (Some("bitcoin"), Some("ripple"), None));
    }

    #[test]
    fn a_wrong_name_gets_the_most_similar_known_one() {
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
