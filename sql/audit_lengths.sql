-- Histogram of the captions' length.
-- in   $rows       parquet of audit_rows.sql
--      $edges      where bins begin, ascending, from 0
--      $in_words   length in words instead of characters
-- out  low, below (null = no upper bound), rows, kept: captions with low <= length < below; unique on low, in this order, one
--      row per bin
with lengths as (
    select if($in_words, words, chars) as length, count(*) as rows, count(*) filter (kept) as kept,
    from read_parquet($rows)
    group by length
),

edges as (
    select unnest($edges)::bigint as low,
),

bins as (
    select low, lead(low) over (order by low) as below,
    from edges
)

select
    bins.low,
    bins.below,
    coalesce(sum(lengths.rows), 0)::bigint as rows,
    coalesce(sum(lengths.kept), 0)::bigint as kept,
from bins
left join lengths on lengths.length >= bins.low and lengths.length < coalesce(bins.below, 9223372036854775807)
group by bins.low, bins.below
order by bins.low
