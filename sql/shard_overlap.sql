-- Which evaluation images look like an image of the shards, as docs/shards.md describes it.
-- in   $overlap      parquet as in evaluation_overlap.sql
--      $taken_down   parquet: pair_id, as in taken_down.sql
-- out  evaluation_set, evaluation_image, pair_id, distance, is_equal; unique on (evaluation_set, evaluation_image, pair_id), ordered by it
select evaluation_set, evaluation_image, pair_id, distance, is_equal,
from read_parquet($overlap) as overlap
anti join read_parquet($taken_down) as taken_down on overlap.pair_id = taken_down.pair_id
where drop_reason is null
order by evaluation_set, evaluation_image, pair_id
