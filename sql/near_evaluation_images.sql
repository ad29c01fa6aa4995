-- Evaluation images that agree with an image under one mask and differ from it in few bits.
-- in   $images              parquet as in distinct_images.sql
--      $evaluation_hashes   parquet files: evaluation_set, evaluation_image, sha256, perceptual_hash (null without structure)
--      $mask                bits in which the hashes agree
--      $distance            most bits in which they differ
-- out  evaluation_set, evaluation_image, sha256 (of the image), distance; unique on (evaluation_set, evaluation_image, sha256)
select
    evaluation.evaluation_set,
    evaluation.evaluation_image,
    images.sha256,
    bit_count(xor(images.perceptual_hash, evaluation.perceptual_hash))::integer as distance,
from read_parquet($images) as images
inner join read_parquet($evaluation_hashes) as evaluation
    on (images.perceptual_hash & $mask::bigint) = (evaluation.perceptual_hash & $mask::bigint)
where bit_count(xor(images.perceptual_hash, evaluation.perceptual_hash)) <= $distance
