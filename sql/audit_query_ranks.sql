-- Some points of the entry-count curve.
-- in   $curve   parquet of match_curve.sql
--      $ranks   ranks wanted, from 1
-- out  rank, query, pairs, cumulative_share; unique on rank, in this order
select rank, query, pairs, cumulative_share,
from read_parquet($curve)
where list_contains($ranks, rank)
order by rank
