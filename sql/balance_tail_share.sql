-- The share of matches that lie on queries with fewer than t pairs: one row.
-- in   $counts   parquet: query_id, pairs
--      $t        pairs per query
-- out  tail_share (null without any match), matches, head_queries (with t pairs or more), matched_queries, most_pairs
select
    coalesce(sum(pairs) filter (where pairs < $t), 0) / nullif(sum(pairs), 0) as tail_share,
    coalesce(sum(pairs), 0)::bigint as matches,
    count(*) filter (where pairs >= $t) as head_queries,
    count(*) filter (where pairs > 0) as matched_queries,
    coalesce(max(pairs), 0)::bigint as most_pairs,
from read_parquet($counts)
