-- The samples of one split that go when pairs are taken down.
-- in   $samples      parquet as in shard_samples.sql
--      $taken_down   parquet: pair_id, as in taken_down.sql
-- out  shard, key; unique on key, ordered by it
select shard, key,
from read_parquet($samples) as samples
semi join read_parquet($taken_down) as taken_down on samples.pair_id = taken_down.pair_id
order by key
