-- Pairs per query, one row per query of the list, also those that nothing matched.
-- in   $queries   parquet: query_id (unique), query
--      $matches   parquet files: pair_id, query_id; unique over all files
-- out  query_id, query, pairs; unique on query_id, in this order
with counts as (
    select query_id, count(*) as pairs,
    from read_parquet($matches)
    group by query_id
)

select queries.query_id, queries.query, coalesce(counts.pairs, 0) as pairs,
from read_parquet($queries) as queries
left join counts using (query_id)
order by queries.query_id
