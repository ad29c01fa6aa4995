-- How much of each evaluation set is among the downloads.
-- in   $overlap   parquet as in evaluation_overlap.sql
-- out  evaluation_set (unique), overlapping_images (evaluation images that a kept image is, or looks like), removed_images (images dropped as
--      copies that are, or look like, one of the set), ordered by it
select
    evaluation_set,
    count(distinct evaluation_image) filter (where drop_reason is null) as overlapping_images,
    count(distinct pair_id) filter (where drop_reason = 'evaluation_copy') as removed_images,
from read_parquet($overlap)
group by evaluation_set
order by evaluation_set
