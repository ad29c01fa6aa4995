-- Those of some pairs that were taken down.
-- in   $taken_down   parquet: pair_id (unique), as in taken_down.sql
--      $pair_ids     list of pair_ids
-- out  pair_id (unique)
select pair_id,
from read_parquet($taken_down)
where list_contains($pair_ids, pair_id)
