-- The threshold whose tail share is nearest to a wanted one: the inverse of balance_tail_share.sql, one row or none.
-- in   $counts       parquet: query_id, pairs
--      $tail_share   wanted share, 0 to 1
-- out  t   (the count of some query, the smaller of two that are equally near)
with queries_of_count as (
    select pairs as t, count(*) * pairs as matches,
    from read_parquet($counts)
    where pairs > 0
    group by pairs
),

shares as (
    select t, (sum(matches) over (order by t) - matches) / sum(matches) over () as tail_share,
    from queries_of_count
)

select t,
from shares
order by abs(tail_share - $tail_share), t
limit 1
