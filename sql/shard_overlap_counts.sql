-- How many images of each evaluation set look like an image of the shards.
-- in   $overlap   parquet as in shard_overlap.sql
-- out  evaluation_set (unique), overlapping_images, ordered by it
select evaluation_set, count(distinct evaluation_image) as overlapping_images,
from read_parquet($overlap)
group by evaluation_set
order by evaluation_set
