-- Images that the preset drops after the download, each with the first rule that says so and the value that decided it.
-- preset   cc12m, version 2
-- source   Conceptual 12M (Changpinyo 2021, arXiv 2102.08981, section 2.1), over Conceptual Captions (Sharma 2018)
-- holds    JPEG; both sides of more than 400 pixels; long / short side at most 2.5
-- not      no pornography (a model)
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
            when original_format <> 'jpeg' then 'image_format'
            when short_side_px <= 400 then 'small_image'
            when long_side_px * 2 > short_side_px * 5 then 'aspect_ratio'
        end as rule_reason,
    from images
)

select
    pair_id,
    rule_reason,
    case rule_reason
        when 'image_format' then original_format
        when 'small_image' then short_side_px::varchar
        when 'aspect_ratio' then round(long_side_px / short_side_px, 4)::varchar
    end as rule_value,
from judged
where rule_reason is not null
