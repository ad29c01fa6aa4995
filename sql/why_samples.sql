-- Where a pair lies in the shards.
-- in   $samples   samples.parquet files of the splits
--      $pair_id   the pair
-- out  split, shard, key
select parse_path(filename)[-2] as split, shard, key,
from read_parquet($samples, filename = true)
where pair_id = $pair_id
