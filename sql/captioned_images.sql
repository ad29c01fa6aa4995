-- Images with too many distinct captions, letter case aside.
-- in   $ruled          parquet files as in ruled_pairs.sql
--      $max_captions   distinct captions of an image, at most; null = any number
--      $bucket, $buckets   only images of this bucket, 0 <= $bucket < $buckets
-- out  url_key, captions; unique on url_key
-- Only rows that passed the rules count; an image with few rows has few captions, so only the others are counted exactly.
with crowded as (
    select url_key,
    from read_parquet($ruled)
    where rule_reason is null and url_key % $buckets::ubigint = $bucket::ubigint
    group by url_key
    having count(*) > $max_captions
),

image_captions as (
    select distinct url_key, caption_key,
    from read_parquet($ruled)
    where rule_reason is null and url_key in (select url_key from crowded)
)

select url_key, count(*) as captions,
from image_captions
group by url_key
having count(*) > $max_captions
