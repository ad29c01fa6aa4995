-- The entry-count curve: how unevenly the matches lie on the queries.
-- in   $counts   parquet: query_id, query, pairs
-- out  rank (1 = most pairs), query_id, query, pairs, cumulative_share (of all matches, this query included); unique on rank,
--      in this order
select
    row_number() over by_pairs as rank,
    query_id,
    query,
    pairs,
    coalesce((sum(pairs) over by_pairs) / nullif(sum(pairs) over (), 0), 0)::double as cumulative_share,
from read_parquet($counts)
window by_pairs as (order by pairs desc, query_id rows between unbounded preceding and current row)
order by rank
