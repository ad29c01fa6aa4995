-- How many boxes lie on a sample, and on how many samples.
-- in   $placed   parquet as in packed_boxes.sql
-- out  one row: placed_boxes, samples
select
    count(distinct number) as placed_boxes,
    count(distinct (split, key)) as samples,
from read_parquet($placed)
