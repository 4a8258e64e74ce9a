//! The SQL that finds documents and ranks them.

use time::OffsetDateTime;

use crate::items::search::{
    model::{Document, MAX_COUNTED},
    words::SimilarWord,
};
use runtime::{db::Pool, error::Error, executor::repeatable};

/// A query in PostgreSQL's `tsquery` notation.
#[derive(Debug, Clone)]
pub(crate) struct TextQuery {
    /// The words of the query in the form of the column `title_key`, to find an exact title.
    pub title_key: String,
    /// All words, each as a whole word.
    pub whole: String,
    /// The same with the last word as a prefix, for any field and for titles; `None` if it may not be one.
    pub prefix: Option<[String; 2]>,
}

/// The best matches, and the number of all, counted up to [`MAX_COUNTED`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Matches {
    pub total: i64,
    pub documents: Vec<Document>,
}

/// A matching document with the number of all matches.
struct Row {
    id: i64,
    version: i64,
    title: String,
    description: Option<String>,
    price_cents: Option<i64>,
    owner_id: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    total: i64,
}

impl From<Vec<Row>> for Matches {
    fn from(rows: Vec<Row>) -> Self {
        let total = rows.first().map_or(0, |row| row.total);
        let documents = rows.into_iter().map(|row| {
            let Row { id, version, title, description, price_cents, owner_id, created_at, updated_at, total: _ } = row;
            Document { id, version, title, description, price_cents, owner_id, created_at, updated_at }
        });
        Self { total, documents: documents.collect() }
    }
}

/// The documents that match the query as it was typed. The order is: the exact title, all words, the last word as a
/// prefix. In each group matches in the title come first, then shorter titles, then smaller ids.
///
/// If more than [`MAX_COUNTED`] titles contain all words, only the first ones in the table are ranked, and the same for
/// documents. These are the same each time. A document with the exact title is always ranked.
///
/// Titles have an index of their own. PostgreSQL reads all entries of a word before it returns the first match: 60,000 of
/// 100,000 documents contain the most frequent word of the benchmark, but 16,000 titles. They fill the ranking, so the entries
/// of the documents are not read.
///
/// Each group is stored once and read where it is: to be counted, and to be ranked. A CTE of all groups would copy the
/// rows of a frequent word a second time.
pub(crate) async fn find(pool: &Pool, query: &TextQuery, limit: u32) -> Result<Matches, Error> {
    let (prefix, prefix_title) = query.prefix.as_ref().map(|[any, title]| (any, title)).unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"WITH asked AS MATERIALIZED (
               SELECT $1::text AS key, $2::text::tsquery AS whole,
                      $3::text::tsquery && !! $2::text::tsquery AS begun, $4::text::tsquery AS begun_title
           ), titled AS MATERIALIZED (
               SELECT item_id, char_length(title) AS length, CASE WHEN title_key = key THEN 0 ELSE 1 END AS tier
               FROM asked, item_documents WHERE ts_filter(words, '{a}') @@ whole AND NOT removed LIMIT $5
           ), titled_count AS MATERIALIZED (
               SELECT count(*) AS titles FROM titled
           ), described AS MATERIALIZED (
               SELECT item_id, char_length(title) AS length, 2 AS tier
               FROM asked, item_documents
               WHERE words @@ whole AND title_key <> key AND NOT removed
                 AND item_id NOT IN (SELECT item_id FROM titled)
               LIMIT $5 - (SELECT titles FROM titled_count)
           ), whole_count AS MATERIALIZED (
               SELECT titles + (SELECT count(*) FROM described) AS documents FROM titled_count
           ), exact AS MATERIALIZED (
               SELECT item_id, char_length(title) AS length, 0 AS tier
               FROM asked, item_documents
               WHERE title_key = key AND title_key <> '' AND NOT removed
                 AND item_id NOT IN (SELECT item_id FROM titled)
               LIMIT $5
           ), prefixed AS MATERIALIZED (
               SELECT item_id, char_length(title) AS length, CASE WHEN words @@ begun_title THEN 3 ELSE 4 END AS tier
               FROM asked, item_documents WHERE words @@ begun AND NOT removed
               LIMIT $5 - (SELECT documents FROM whole_count)
           ), best AS MATERIALIZED (
               SELECT item_id, tier, length
               FROM (SELECT item_id, tier, length FROM titled
                     UNION ALL SELECT item_id, tier, length FROM described
                     UNION ALL SELECT item_id, tier, length FROM exact
                     UNION ALL SELECT item_id, tier, length FROM prefixed) AS found
               ORDER BY tier, length, item_id LIMIT $6
           )
           SELECT item_id AS "id!", version, title, description, price_cents, owner_id, created_at, updated_at,
                  (SELECT least(documents + (SELECT count(*) FROM exact) + (SELECT count(*) FROM prefixed), $5)
                   FROM whole_count) AS "total!"
           FROM best JOIN item_documents USING (item_id)
           ORDER BY tier, length, item_id"#,
        query.title_key,
        query.whole,
        prefix,
        prefix_title,
        MAX_COUNTED,
        i64::from(limit),
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(rows.into())
}

/// The documents that match only the corrected query, not the query as it was typed; in the same order.
pub(crate) async fn find_misspelt(
    pool: &Pool,
    [corrected, corrected_title]: &[String; 2],
    query: &TextQuery,
    limit: u32,
) -> Result<Matches, Error> {
    let typed = query.prefix.as_ref().map_or(&query.whole, |[prefix, _]| prefix);
    let rows = sqlx::query_as!(
        Row,
        r#"WITH asked AS MATERIALIZED (
               SELECT $1::text::tsquery && !! $3::text::tsquery AS meant, $2::text::tsquery AS meant_title
           ), found AS MATERIALIZED (
               SELECT item_id, CASE WHEN words @@ meant_title THEN 5 ELSE 6 END AS tier, char_length(title) AS length
               FROM asked, item_documents WHERE words @@ meant AND NOT removed LIMIT $4
           ), best AS MATERIALIZED (
               SELECT item_id, tier, length FROM found ORDER BY tier, length, item_id LIMIT $5
           )
           SELECT item_id AS id, version, title, description, price_cents, owner_id, created_at, updated_at,
                  (SELECT count(*) FROM found) AS "total!"
           FROM best JOIN item_documents USING (item_id)
           ORDER BY tier, length, item_id"#,
        corrected,
        corrected_title,
        typed,
        MAX_COUNTED,
        i64::from(limit),
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(rows.into())
}

/// Words of the documents that are similar to these: one letter differs, or they share this part of their trigrams. One word
/// against 17,400 takes 0.3 ms with the usual threshold of 0.3, and 0.7 ms with half of it.
///
/// The threshold is set for this statement only. The condition on its value makes PostgreSQL set it before it reads the
/// index.
pub(crate) async fn find_similar_words(
    pool: &Pool,
    words: &[String],
    threshold: &str,
) -> Result<Vec<SimilarWord>, Error> {
    let similar = sqlx::query_as!(
        SimilarWord,
        r#"WITH setting AS MATERIALIZED (
               SELECT set_config('pg_trgm.similarity_threshold', $2::text, true) AS threshold
           )
           SELECT asked AS "asked!", known.word AS "word!"
           FROM setting, unnest($1::text[]) AS asked,
                LATERAL (SELECT word FROM item_words
                         WHERE shapes && (ARRAY[asked] || ARRAY(SELECT overlay(asked placing '' from place for 1)
                                                                FROM generate_series(1, length(asked)) AS place))
                         UNION
                         (SELECT word FROM item_words
                          WHERE threshold <> '' AND length(asked) > 5 AND word % asked
                                AND length(word) BETWEEN length(asked) - 2 AND length(asked) + 2
                          ORDER BY similarity(word, asked) DESC, word LIMIT 100)) AS known
           WHERE length(asked) BETWEEN 3 AND 32"#,
        words,
        threshold,
    )
    .fetch_all(repeatable(pool))
    .await?;
    Ok(similar)
}
