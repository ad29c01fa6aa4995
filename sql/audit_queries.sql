-- How unevenly the pairs lie on the queries: one row.
-- in   $counts   parquet: query_id (unique), pairs
--      $t        pairs per query
-- out  queries, without_pair, over_t (queries with more than t pairs), matches, tail_share (of the matches, on queries with fewer
--      than t pairs; null without any match), balanced_matches (at most t of each query), most_pairs
select
    count(*) as queries,
    count(*) filter (pairs = 0) as without_pair,
    count(*) filter (pairs > $t) as over_t,
    coalesce(sum(pairs), 0)::bigint as matches,
    (coalesce(sum(pairs) filter (pairs < $t), 0) / nullif(sum(pairs), 0))::double as tail_share,
    coalesce(sum(least(pairs, $t)), 0)::bigint as balanced_matches,
    coalesce(max(pairs), 0)::bigint as most_pairs,
from read_parquet($counts)
