-- For every match the threshold above which it lets its pair in, by independent draws.
-- in   $matches   parquet files: pair_id, query_id; unique
--      $counts    parquet: query_id (unique), query, pairs
--      $seed      seed of the draws
--      $bucket, $buckets   only pairs whose hash falls into this bucket, 0 <= $bucket < $buckets
-- out  pair_id, query_id, enters_at; unique on (pair_id, query_id), in this order
-- A draw u in [0, 1), the upper 53 bits of the first 8 bytes (little-endian) of md5(seed:pair_id:query), keeps the pair if
-- u < min(1, t / pairs), that is if u * pairs < t. So enters_at = u * pairs holds for every t at once, and a larger t only
-- adds pairs.
select
    matches.pair_id,
    matches.query_id,
    (md5_number_upper($seed::varchar || ':' || matches.pair_id || ':' || counts.query) >> 11) / 9007199254740992.0::double
    * counts.pairs as enters_at,
from read_parquet($matches) as matches
inner join read_parquet($counts) as counts using (query_id)
where $buckets = 1 or md5_number_upper(matches.pair_id) % $buckets::ubigint = $bucket::ubigint
order by matches.pair_id, matches.query_id
