-- Images that the preset drops after the download, each with the first rule that says so and the value that decided it.
-- preset   obelics_like, version 2
-- source   OBELICS (Laurencon 2023, arXiv 2306.16527), the image rules of web documents
-- holds    JPEG, PNG or WebP; both sides of 150 to 20,000 pixels; long / short side at most 2
-- not      NSFW scores (a model)
-- in   $results   parquet as in download_results.sql; only rows with status 'ok' are looked at
-- out  pair_id, rule_reason, rule_value; only rows that a rule drops, unique on pair_id
with images as (
    select
        pair_id,
        original_format,
        least(original_width_px, original_height_px) as short_side_px,
        greatest(original_width_px, original_height_px) as long_side_px,
    from read_parquet($results)
    where status = 'ok'
),

judged as (
    select
        *,
        case
            when original_format not in ('jpeg', 'png', 'webp') then 'image_format'
            when short_side_px < 150 then 'small_image'
            when long_side_px > 20000 then 'large_image'
            when long_side_px > short_side_px * 2 then 'aspect_ratio'
        end as rule_reason,
    from images
)

select
    pair_id,
    rule_reason,
    case rule_reason
        when 'image_format' then original_format
        when 'small_image' then short_side_px::varchar
        when 'large_image' then long_side_px::varchar
        when 'aspect_ratio' then round(long_side_px / short_side_px, 4)::varchar
    end as rule_value,
from judged
where rule_reason is not null
