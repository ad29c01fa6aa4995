-- What became of the rows of some pairs in the matching: one row.
-- in   $pairs     parquet files: pair_id, caption
--      $matches   parquet: pair_id, query_id
--      $max_bytes   longer captions were not matched, in bytes of UTF-8
-- out  rows, without_pair_id, copies (further rows of a pair_id), without_caption, long_caption and
--      matched (pairs)
with rows as (
    select
        count(*) as rows,
        count(*) filter (where pair_id is null) as without_pair_id,
        count(pair_id) - count(distinct pair_id) as copies,
        count(distinct pair_id) - count(distinct pair_id) filter (where caption is not null) as without_caption,
        count(distinct pair_id) filter (where caption is not null)
        - count(distinct pair_id) filter (where strlen(caption) <= $max_bytes) as long_caption,
    from read_parquet($pairs)
),

matched as (select count(distinct pair_id) as matched from read_parquet($matches))

select rows.*, matched.matched,
from rows
cross join matched
