-- The perceptual hashes of the images that are no copies of evaluation images, each once.
-- in   $images   parquet as in distinct_images.sql
--      $copies   parquet as in evaluation_copies.sql
-- out  perceptual_hash; unique
select distinct perceptual_hash,
from read_parquet($images) as images
anti join read_parquet($copies) as copies on images.sha256 = copies.sha256
where perceptual_hash is not null
