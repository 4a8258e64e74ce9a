//! The schema and the contents of a database, in a form that can be compared.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgPool};

/// Lists every object that a migration can create, one per line, without the tables of applied migrations.
const SCHEMA: &str = "
WITH ours AS (
    SELECT c.* FROM pg_class AS c
    WHERE c.relnamespace IN ('public'::regnamespace, 'apalis'::regnamespace) AND c.relname NOT LIKE '%sqlx_migrations%'
      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT format('%s %s: persistence %s, options %s, comment %s', relkind, oid::regclass, relpersistence, reloptions,
              obj_description(oid, 'pg_class'))
FROM ours
UNION ALL
SELECT format('column %s.%s at %s: %s collate %s, not null %s, default %s, identity %s, generated %s, storage %s, comment %s',
              c.oid::regclass, attname, row_number() OVER (PARTITION BY c.oid ORDER BY attnum),
              format_type(atttypid, atttypmod), attcollation::regcollation, attnotnull, pg_get_expr(adbin, adrelid),
              attidentity, attgenerated, attstorage, col_description(c.oid, attnum))
FROM ours AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = attnum
WHERE relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT format('constraint %s on %s: %s, validated %s', conname, c.oid::regclass, pg_get_constraintdef(k.oid), convalidated)
FROM ours AS c JOIN pg_constraint AS k ON k.conrelid = c.oid
UNION ALL
SELECT format('index %s, valid %s, ready %s', pg_get_indexdef(indexrelid), indisvalid, indisready)
FROM ours AS c JOIN pg_index ON indexrelid = c.oid
UNION ALL
SELECT format('view %s: %s', oid::regclass, pg_get_viewdef(oid)) FROM ours WHERE relkind IN ('v', 'm')
UNION ALL
SELECT format('trigger on %s, enabled %s: %s', tgrelid::regclass, tgenabled, pg_get_triggerdef(t.oid))
FROM ours AS c JOIN pg_trigger AS t ON tgrelid = c.oid WHERE NOT tgisinternal
UNION ALL
SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc AS p
WHERE pronamespace IN ('public'::regnamespace, 'apalis'::regnamespace) AND prokind <> 'a'
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT format('type %s, labels %s', t.oid::regtype, (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
FROM pg_type AS t WHERE typnamespace IN ('public'::regnamespace, 'apalis'::regnamespace) AND typtype IN ('e', 'd')
UNION ALL
SELECT format('extension %s in %s', extname, extnamespace::regnamespace) FROM pg_extension
UNION ALL
SELECT format('schema %s', nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY 1";

/// The schema, line by line.
pub(super) async fn schema(pool: &PgPool) -> Vec<String> {
    let lines: Vec<String> = sqlx::query_scalar(SCHEMA).fetch_all(pool).await.expect("a schema");
    assert!(lines.len() > 30, "the schema is incomplete: {lines:#?}");
    lines
}

/// Fails with the lines that only one of the two schemas has.
pub(super) fn assert_same(found: &[String], expected: &[String], case: &str) {
    let only = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|one| !others.contains(one)).cloned().collect()
    };
    let (unexpected, missing) = (only(found, expected), only(expected, found));
    assert!(
        unexpected.is_empty() && missing.is_empty(),
        "{case}\n  unexpected: {unexpected:#?}\n  missing: {missing:#?}"
    );
}

/// For every column of every table: the number of rows and a digest of the values. Rows are sorted by their text, so that
/// a rewritten table compares equal.
pub(super) type Contents = BTreeMap<(String, String), (i64, String)>;

pub(super) async fn contents(pool: &PgPool) -> Contents {
    // Generated columns are included; they are computed from the others.
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT attrelid::regclass::text, quote_ident(attname) FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
         WHERE relnamespace IN ('public'::regnamespace, 'apalis'::regnamespace) AND relkind = 'r'
           AND relname NOT LIKE '%sqlx_migrations%' AND attnum > 0 AND NOT attisdropped",
    )
    .fetch_all(pool)
    .await
    .expect("columns");
    let mut contents = Contents::new();
    for (table, column) in columns {
        let query = format!(
            "SELECT count(*), coalesce(md5(string_agg(v, '|' ORDER BY v COLLATE \"C\")), '') \
             FROM (SELECT coalesce({column}::text, 'NULL') AS v FROM {table}) AS t"
        );
        // Not a cached statement, because the next migration may change the type of its result.
        let query = sqlx::query_as(AssertSqlSafe(query)).persistent(false);
        let found: (i64, String) = query.fetch_one(pool).await.expect("contents");
        contents.insert((table, column), found);
    }
    contents
}
