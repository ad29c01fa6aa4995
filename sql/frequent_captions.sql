-- Captions on too many distinct images.
-- in   $ruled        parquet files as in ruled_pairs.sql
--      $max_images   distinct images of a caption, at most; null = any number
--      $bucket, $buckets   only captions of this bucket, 0 <= $bucket < $buckets
-- out  caption_key, images; unique on caption_key
-- Only rows that passed the rules count. A caption with few rows has few images, so only the others are counted exactly; what one
-- page repeats a hundred times does not look like a hundred images.
with crowded as (
    select caption_key,
    from read_parquet($ruled)
    where rule_reason is null and caption_key % $buckets::ubigint = $bucket::ubigint
    group by caption_key
    having count(*) > $max_images
),

caption_images as (
    select distinct caption_key, url_key,
    from read_parquet($ruled)
    where rule_reason is null and caption_key in (select caption_key from crowded)
)

select caption_key, count(*) as images,
from caption_images
group by caption_key
having count(*) > $max_images
