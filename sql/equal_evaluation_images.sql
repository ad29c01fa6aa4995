-- Evaluation images that are, byte for byte, the original of an image.
-- in   $images              parquet as in distinct_images.sql
--      $evaluation_hashes   parquet files: evaluation_set, evaluation_image, sha256, perceptual_hash
-- out  evaluation_set, evaluation_image, sha256, distance (0); unique on (evaluation_set, evaluation_image)
select evaluation.evaluation_set, evaluation.evaluation_image, images.sha256, 0 as distance,
from read_parquet($images) as images
inner join read_parquet($evaluation_hashes) as evaluation on images.sha256 = evaluation.sha256
