-- Images that look like another one, which stands for them: the largest original, of equal ones that with the smallest pair_id.
-- in   $images       parquet as in distinct_images.sql
--      $copies       parquet as in evaluation_copies.sql: images that are out of the question
--      $components   parquet: perceptual_hash (unique), component: hashes that are connected by near ones; a hash without is alone
--      $is_wanted    whether near duplicates are looked for at all
-- out  sha256 (unique), kept_pair_id (of the image that stands for it); without the images that stand for others or alone
with components as (
    select
        images.sha256,
        images.pair_id,
        images.original_pixels,
        coalesce(components.component, images.perceptual_hash) as component,
    from read_parquet($images) as images
    anti join read_parquet($copies) as copies on images.sha256 = copies.sha256
    left join read_parquet($components) as components on images.perceptual_hash = components.perceptual_hash
    where $is_wanted and images.perceptual_hash is not null
),

survivors as (
    select component, min(row(-original_pixels, pair_id)) as first,
    from components
    group by component
    having count(*) > 1
)

select components.sha256, survivors.first[2] as kept_pair_id,
from components
inner join survivors on components.component = survivors.component
where components.pair_id <> survivors.first[2]
