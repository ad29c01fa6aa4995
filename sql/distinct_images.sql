-- Every image that the rules let pass, once however many pairs show it.
-- in   $results   parquet files of the downloads, as in download_results.sql: pair_id, status, sha256, original_width_px, original_height_px
--      $facts     parquet files: pair_id (unique), perceptual_hash (null without structure)
--      $dropped   parquet files: pair_id (unique): what the preset and the scores drop, as in post_*.sql and scored_images.sql
-- out  sha256 (unique), pair_id (the smallest of its pairs), pairs, original_pixels, perceptual_hash
select
    results.sha256,
    min(results.pair_id) as pair_id,
    count(*) as pairs,
    max(original_width_px::bigint * original_height_px) as original_pixels,
    min(facts.perceptual_hash) as perceptual_hash,
from read_parquet($results) as results
inner join read_parquet($facts) as facts on results.pair_id = facts.pair_id
anti join read_parquet($dropped) as dropped on results.pair_id = dropped.pair_id
where results.status = 'ok'
group by results.sha256
