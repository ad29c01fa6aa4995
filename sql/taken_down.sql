-- The pairs that must go: those that the tombstones hit, and every other pair that shows an image of theirs.
-- in   $pairs        parquet as in takedown_pairs.sql
--      $hits         parquet as in blocked_pairs.sql
--      $tombstones   parquet as in tombstones.sql
--      $verdicts     parquet as in image_verdicts.sql
-- out  pair_id (unique), ordered by it
-- Of pairs with the same image bytes one is in the shards, with the captions of all: a hit on any of them is a hit on it.
with hits as (
    select pairs.pair_id,
    from read_parquet($pairs) as pairs
    inner join read_parquet($hits) as hits on pairs.row = hits.row
),

images as (
    select value as sha256,
    from read_parquet($tombstones)
    where list = 'sha256'
    union
    select verdicts.sha256,
    from read_parquet($verdicts) as verdicts
    inner join hits on verdicts.pair_id = hits.pair_id
    where verdicts.sha256 is not null
)

select pair_id from hits
union
select verdicts.pair_id
from read_parquet($verdicts) as verdicts
inner join images on verdicts.sha256 = images.sha256
order by pair_id
