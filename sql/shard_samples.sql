-- The samples of one split as docs/shards.md describes them, one row each, in the order of the tars.
-- in   $packed   parquet as in shard_order.sql
--      $split    'train' or 'val'
-- out  key, shard, pair_id, url, page_url, caption, text_key, source, sha256, width_px, height_px, original_width_px,
--      original_height_px; unique on key
select
    key,
    file as shard,
    pair_id,
    url,
    page_url,
    caption,
    text_key,
    source,
    sha256,
    width_px,
    height_px,
    original_width_px,
    original_height_px,
from read_parquet($packed)
where split = $split and not is_taken_down
order by key
