-- Which evaluation images are, or look like, an image of the downloads, and what became of that.
-- in   $equal      parquet as in equal_evaluation_images.sql
--      $near       parquet files as in near_evaluation_images.sql, in which a pair may occur several times
--      $images     parquet as in distinct_images.sql
--      $verdicts   parquet as in image_verdicts.sql
-- out  evaluation_set, evaluation_image, pair_id (the smallest that shows the image), distance (of the hashes, in bits), is_equal (the bytes
--      are), drop_reason (null: it is in the data set); unique on (evaluation_set, evaluation_image, pair_id), ordered by it
with matches as (
    select evaluation_set, evaluation_image, sha256, distance, true as is_equal,
    from read_parquet($equal)
    union all
    select evaluation_set, evaluation_image, sha256, distance, false as is_equal,
    from read_parquet($near)
)

select
    matches.evaluation_set,
    matches.evaluation_image,
    images.pair_id,
    min(matches.distance) as distance,
    bool_or(matches.is_equal) as is_equal,
    any_value(verdicts.drop_reason) as drop_reason,
from matches
inner join read_parquet($images) as images on matches.sha256 = images.sha256
inner join read_parquet($verdicts) as verdicts on images.pair_id = verdicts.pair_id
group by matches.evaluation_set, matches.evaluation_image, images.pair_id
order by matches.evaluation_set, matches.evaluation_image, images.pair_id
