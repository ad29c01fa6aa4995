-- Images that are copies of an evaluation image, each with the nearest one.
-- in   $equal      parquet as in equal_evaluation_images.sql
--      $near       parquet files as in near_evaluation_images.sql, in which a pair may occur several times
--      $distance   most bits in which the hashes of copies differ; null: only equal bytes make a copy
-- out  sha256 (unique), copied (SET/IMAGE, and the distance unless the bytes are equal)
with matches as (
    select sha256, true as is_equal, distance, evaluation_set, evaluation_image,
    from read_parquet($equal)
    union all
    select sha256, false as is_equal, distance, evaluation_set, evaluation_image,
    from read_parquet($near)
    where distance <= $distance
),

nearest as (
    select sha256, min(row(not is_equal, distance, evaluation_set, evaluation_image)) as first,
    from matches
    group by sha256
)

select
    sha256,
    concat(first[3], '/', first[4], case when first[1] then concat(', distance ', first[2]) else '' end) as copied,
from nearest
