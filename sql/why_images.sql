-- The verdict of one downloaded image.
-- in   $image_verdicts   parquet as in image_verdicts.sql
--      $pair_id          the pair
-- out  the row of the pair, if it was selected for download
select * from read_parquet($image_verdicts) where pair_id = $pair_id
