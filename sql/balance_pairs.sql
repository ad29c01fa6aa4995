-- Which pairs the balancing keeps, one row per matched pair.
-- in   $entries   parquet files: pair_id, query_id, enters_at; unique on (pair_id, query_id) over all files
--      $counts    parquet: query_id (unique), query, pairs
--      $t         pairs per query
--      $bucket, $buckets   only pairs whose hash falls into this bucket, 0 <= $bucket < $buckets
-- out  pair_id, kept, keep_probability, enters_at, query (the one that lets the pair in first as t grows; of two, the smaller
--      query_id), query_pairs (its count), queries (how many the pair matched); unique on pair_id, in this order
-- keep_probability = 1 - prod(1 - min(1, t / pairs)) over the pair's queries. The product is taken as a sum of decimals, which
-- unlike a sum of floats is the same in any order.
with chances as (
    select
        entries.pair_id,
        entries.query_id,
        entries.enters_at,
        case when counts.pairs > $t then ln(1 - $t / counts.pairs) end as log_miss,
    from read_parquet($entries) as entries
    inner join read_parquet($counts) as counts using (query_id)
    where $buckets = 1 or md5_number_upper(entries.pair_id) % $buckets::ubigint = $bucket::ubigint
),

pairs as (
    select
        pair_id,
        min(enters_at) as enters_at,
        arg_min(query_id, (enters_at, query_id)) as query_id,
        case
            when count(log_miss) < count(*) then 1
            else 1 - exp(sum(log_miss::decimal(18, 15))::double)
        end as keep_probability,
        count(*) as queries,
    from chances
    group by pair_id
)

select
    pairs.pair_id,
    pairs.enters_at < $t as kept,
    pairs.keep_probability,
    pairs.enters_at,
    counts.query,
    counts.pairs as query_pairs,
    pairs.queries,
from pairs
inner join read_parquet($counts) as counts using (query_id)
order by pairs.pair_id
