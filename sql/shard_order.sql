-- Every kept pair with its place in the shards and the place of its image in the downloads, in the order of packing.
-- in   $verdicts           parquet as in image_verdicts.sql
--      $results            parquet files as in download_results.sql, one per part, in the order that $verdicts numbers
--      $seed               seed of the shuffle and of the split
--      $val_share          share of images of the validation split, 0 to 1
--      $samples_per_shard  most samples of one shard
--      $taken_down         parquet: pair_id (unique), as in taken_down.sql
-- out  split, shard (number within the split), key, file, pair_id, url, page_url, caption, text_key, source, sha256, width_px,
--      height_px, original_width_px, original_height_px, captions, part, tar, image_offset, stored_bytes, is_taken_down; unique on
--      pair_id
-- The split hangs on the image alone, so a picture stays on its side when its caption changes. Shards of a split differ by
-- at most one sample; the larger ones come first. What is taken down keeps its place, though nothing is packed there: so every
-- other sample keeps its shard and its key.
with verdicts as (
    select *
    from read_parquet($verdicts)
    where drop_reason is null
),

-- Narrow: the shuffle sorts hashes, not captions.
split_pairs as (
    select
        pair_id,
        case
            when ('0x' || left(sha256($seed::varchar || ':split:' || sha256), 13))::bigint / 2.0 ** 52 < $val_share then 'val'
            else 'train'
        end as split,
        sha256($seed::varchar || ':order:' || pair_id) as shuffle,
    from verdicts
),

numbered as (
    select
        pair_id,
        split,
        row_number() over (partition by split order by shuffle, pair_id) - 1 as sample,
        count(*) over (partition by split) as samples,
    from split_pairs
),

sized as (
    select
        *,
        samples // ((samples + $samples_per_shard - 1) // $samples_per_shard) as fewest,
        samples % ((samples + $samples_per_shard - 1) // $samples_per_shard) as larger_shards,
    from numbered
),

placed as (
    select
        pair_id,
        split,
        sample,
        case
            when sample < larger_shards * (fewest + 1) then sample // (fewest + 1)
            else larger_shards + (sample - larger_shards * (fewest + 1)) // fewest
        end as shard,
    from sized
),

stored as (
    select pair_id, file_index as part, tar, image_offset,
    from read_parquet($results)
    where status = 'ok'
)

select
    placed.split,
    placed.shard,
    lpad(placed.sample::varchar, 9, '0') as key,
    format('{}/{:06d}.tar', placed.split, placed.shard) as file,
    verdicts.pair_id,
    verdicts.url,
    verdicts.page_url,
    verdicts.caption,
    verdicts.text_key,
    verdicts.source,
    verdicts.sha256,
    verdicts.width_px,
    verdicts.height_px,
    verdicts.original_width_px,
    verdicts.original_height_px,
    verdicts.captions,
    verdicts.part,
    stored.tar,
    stored.image_offset,
    verdicts.stored_bytes,
    taken_down.pair_id is not null as is_taken_down,
from placed
inner join verdicts on placed.pair_id = verdicts.pair_id
inner join stored on placed.pair_id = stored.pair_id and verdicts.part = stored.part
left join read_parquet($taken_down) as taken_down on placed.pair_id = taken_down.pair_id
order by placed.split, placed.sample
