-- Pairs that occur more than once among the rows that passed the rules.
-- in   $ruled   parquet files as in ruled_pairs.sql
--      $bucket, $buckets   only pairs of this bucket, 0 <= $bucket < $buckets
-- out  pair_upper, pair_lower, first_place (of the copy that stands: the first by (part, row)); unique on (pair_upper, pair_lower)
-- Without the casts the remainder is taken in 128 bits, which takes three times as long as all the rest.
-- A place is a row of the data set in one number: the part above 40 bits of the row.
select
    pair_upper,
    pair_lower,
    min((part::ubigint << 40) | row::ubigint) as first_place,
from read_parquet($ruled)
where rule_reason is null and pair_lower % $buckets::ubigint = $bucket::ubigint
group by pair_upper, pair_lower
having count(*) > 1
