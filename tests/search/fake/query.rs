//! Searches of the fake Elasticsearch: an evaluation of the query for every document.

use serde_json::{Value, json};

use super::{
    FakeResult,
    index::{Index, Parameters, check_parameters, parse_json},
    validate,
};

impl Index {
    pub(super) fn search(&self, parameters: &Parameters, body: &str) -> FakeResult {
        check_parameters(parameters, &[])?;
        let body = parse_json(body, "json_parse_exception")?;
        validate::search(&self.mappings, &body)?;
        let after = body["search_after"][0].as_i64();
        let mut found: Vec<(i64, &Value)> = Vec::new();
        for source in self.documents.values().filter_map(|(_, source)| source.as_ref()) {
            let score = body.get("query").map_or(1, |query| self.score(query, source));
            if score > 0 && after.is_none_or(|after| source["id"].as_i64().unwrap() > after) {
                found.push((score, source));
            }
        }
        let sort: Vec<(String, bool)> = body["sort"].as_array().into_iter().flatten().map(parse_sort).collect();
        found.sort_by_cached_key(|(score, source)| {
            let key = |(field, descending): &(String, bool)| {
                let value = if field == "_score" { *score } else { source[field].as_i64().expect("a number") };
                if *descending { -value } else { value }
            };
            sort.iter().map(key).collect::<Vec<i64>>()
        });
        let total = found.len();
        let selected_fields = |source: &Value| match body["_source"].as_array() {
            None => source.clone(),
            Some(fields) => {
                fields.iter().map(|name| name.as_str().unwrap()).map(|n| (n.to_owned(), source[n].clone())).collect()
            }
        };
        let hits: Vec<Value> = found
            .iter()
            .take(usize::try_from(body["size"].as_u64().unwrap_or(10)).unwrap())
            .map(
                |(score, source)| json!({ "_id": source["id"].to_string(), "_score": score, "_source": selected_fields(source) }),
            )
            .collect();
        let mut hits = json!({ "hits": hits });
        if body["track_total_hits"] != false {
            hits["total"] = json!({ "value": total, "relation": "eq" });
        }
        Ok((200, json!({ "took": 1, "timed_out": false, "hits": hits })))
    }

    /// The score of a document: zero without a match, and larger for a better match.
    fn score(&self, query: &Value, source: &Value) -> i64 {
        let (kind, inner) = query.as_object().and_then(|query| query.iter().next()).expect("a query");
        match kind.as_str() {
            "dis_max" => {
                let scores = inner["queries"].as_array().unwrap().iter().map(|query| self.score(query, source));
                scores.max().unwrap_or(0)
            }
            "constant_score" => match self.score(&inner["filter"], source) {
                0 => 0,
                _ => inner["boost"].as_i64().expect("a whole boost"),
            },
            "bool" => {
                let hit = |query: &Value| self.score(query, source) > 0;
                let should = clauses(inner, "should").iter().filter(|query| hit(query)).count() as u64;
                let least = inner["minimum_should_match"].as_u64().unwrap_or(0);
                i64::from(clauses(inner, "must").iter().all(hit) && should >= least)
            }
            "term" => {
                let (field, term) = inner.as_object().and_then(|term| term.iter().next()).expect("a field");
                assert_eq!(self.mappings["properties"][field]["type"], "keyword", "{field}");
                i64::from(source[field] == term["value"])
            }
            "multi_match" => {
                let fields = inner["fields"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
                i64::from(fields.into_iter().any(|field| matches(inner, &self.words(field, source))))
            }
            _ => 1,
        }
    }

    /// The words of a field, by the analyzer in its mapping.
    fn words(&self, field: &str, source: &Value) -> Vec<String> {
        let mapping = &self.mappings["properties"][field];
        assert_ne!(mapping["index"], false, "{field} is not searched");
        assert_eq!(mapping["analyzer"], "whitespace", "{field}");
        source[field].as_str().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }
}

/// The clauses of a `bool` query. They are not copied for each document: the product waits for a response for 2 s.
fn clauses<'q>(query: &'q Value, name: &str) -> &'q [Value] {
    query[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn parse_sort(by: &Value) -> (String, bool) {
    let (field, order) = by.as_object().and_then(|by| by.iter().next()).expect("a field to sort by");
    (field.clone(), order["order"] == "desc")
}

/// Whether a field with these words matches a `multi_match` query.
fn matches(query: &Value, words: &[String]) -> bool {
    let text = query["query"].as_str().unwrap();
    let terms: Vec<&str> = text.split_whitespace().collect();
    match query["type"].as_str() {
        Some("phrase") => words.windows(terms.len()).any(|window| window == terms),
        Some("bool_prefix") => words.iter().any(|word| word.starts_with(text)),
        _ => words.iter().any(|word| word == text || (query["fuzziness"] == "AUTO" && is_similar(word, text))),
    }
}

/// Whether two words differ by as few letters as `AUTO` allows. Two swapped neighbours count as one.
fn is_similar(word: &str, text: &str) -> bool {
    let (word, text): (Vec<char>, Vec<char>) = (word.chars().collect(), text.chars().collect());
    let most = match text.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    // The distances of the first letters of `word` from all beginnings of `text`: of the last two rows, and the new one.
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=text.len()).collect();
    for (i, letter) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in text.iter().enumerate() {
            let mut distance = (last[j] + usize::from(letter != other)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == text[j - 1] && word[i - 1] == *other {
                distance = distance.min(before[j - 1] + 1);
            }
            row.push(distance);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[text.len()] <= most
}
