-- How many samples the tombstones keep out of the shards.
-- in   $verdicts     parquet as in image_verdicts.sql
--      $taken_down   parquet: pair_id, as in taken_down.sql
-- out  samples; one row
select count(*) as samples,
from read_parquet($verdicts) as verdicts
semi join read_parquet($taken_down) as taken_down on verdicts.pair_id = taken_down.pair_id
where drop_reason is null
