-- What the balancing made of one pair.
-- in   $balanced   parquet files of balance_pairs.sql
--      $pair_id    the pair
-- out  kept, keep_probability, query, query_pairs, queries; one row, or none if no query of the list is in its caption
select kept, keep_probability, query, query_pairs, queries,
from read_parquet($balanced)
where pair_id = $pair_id
