-- The face boxes of the samples, in the order of packing: split, key, then the box.
-- in   $packed   parquet as in shard_order.sql
--      $boxes    parquet: pair_id, sha256 (one of them may be null or empty), left, top, right, bottom
-- out  split, key, left, top, right, bottom, number (of the box's row); several rows per sample
-- A row with both keys is the pair's. Boxes of a sample that was taken down are among them, so that a take-down changes no count.
with boxes as (
    select * replace (nullif(pair_id, '') as pair_id), row_number() over () as number, from read_parquet($boxes)
),

placed as (
    select packed.split, packed.key, boxes.*,
    from read_parquet($packed) as packed
    inner join boxes on boxes.pair_id is not null and lower(boxes.pair_id) = packed.pair_id
    union all
    select packed.split, packed.key, boxes.*,
    from read_parquet($packed) as packed
    inner join boxes on boxes.pair_id is null and lower(boxes.sha256) = packed.sha256
)

select split, key, "left", top, "right", bottom, number,
from placed
order by split, key, "left", top, "right", bottom, number
