-- The smallest whole threshold that keeps at least a wanted number of pairs (all of them, if there are fewer): one row.
-- in   $entries   parquet files: pair_id, query_id, enters_at
--      $pairs     wanted number of pairs
-- out  t   (null without any pair)
with pairs as (
    select pair_id, min(enters_at) as enters_at,
    from read_parquet($entries)
    group by pair_id
),

first_pairs as (
    select enters_at,
    from pairs
    order by enters_at
    limit $pairs
)

select floor(max(enters_at))::bigint + 1 as t,
from first_pairs
