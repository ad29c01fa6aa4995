-- A few samples to look at, chosen by a hash.
-- in   $samples   parquet as in shard_samples.sql
--      $count     samples at most
-- out  shard, key, pair_id, url, caption; in the order of the choice
-- arg_min holds only the chosen in memory.
with chosen as (
    select unnest(
        arg_min({'shard': shard, 'key': key, 'pair_id': pair_id, 'url': url, 'caption': caption}, md5(pair_id), $count)
    ) as sample,
    from read_parquet($samples)
)

select sample.shard, sample.key, sample.pair_id, sample.url, sample.caption,
from chosen
order by md5(sample.pair_id)
