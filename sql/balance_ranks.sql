-- For every match the threshold above which it lets its pair in, if a query takes at most that many pairs.
-- in   $matches   parquet files: pair_id, query_id; unique over all files
--      $counts    parquet: query_id (unique), query, pairs
--      $seed      seed of the draws
--      $bucket, $buckets   only queries of this bucket, 0 <= $bucket < $buckets
-- out  pair_id, query_id, enters_at; unique on (pair_id, query_id), in this order
-- A query takes its pairs in the order of md5(seed:pair_id:query), the draw of balance_draws.sql; the first has enters_at 0
-- and is taken if 0 < t, the second if 1 < t.
with draws as (
    select
        matches.pair_id,
        matches.query_id,
        md5_number_upper($seed::varchar || ':' || matches.pair_id || ':' || counts.query) >> 11 as draw,
    from read_parquet($matches) as matches
    inner join read_parquet($counts) as counts using (query_id)
    where matches.query_id % $buckets::integer = $bucket::integer
)

select
    pair_id,
    query_id,
    (row_number() over (partition by query_id order by draw, pair_id) - 1)::double as enters_at,
from draws
order by pair_id, query_id
