-- The copies of repeated pairs that do not stand.
-- in   $ruled      parquet files as in ruled_pairs.sql
--      $repeated   parquet as in repeated_pairs.sql, of the same bucket
--      $bucket, $buckets   only pairs of this bucket, 0 <= $bucket < $buckets
-- out  pair_upper, pair_lower, place; unique on place
with passed as (
    select pair_upper, pair_lower, (part::ubigint << 40) | row::ubigint as place,
    from read_parquet($ruled)
    where rule_reason is null and pair_lower % $buckets::ubigint = $bucket::ubigint
)

select passed.pair_upper, passed.pair_lower, passed.place,
from passed
inner join read_parquet($repeated) as repeated
    on passed.pair_upper = repeated.pair_upper and passed.pair_lower = repeated.pair_lower
where passed.place <> repeated.first_place
