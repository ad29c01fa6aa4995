-- Images that the preset drops after the download, each with the first rule that says so and the value that decided it.
-- preset   webimagetext, version 1
-- source   this project; the values are fields of ImageConfig, with their sources
-- holds    bytes and contrast as stored, short side and shape of the original
-- not      copies of evaluation images and repeated images: image_verdicts.sql; scores of models: other stages
-- in   $results   parquet as in download_results.sql; only rows with status 'ok' are looked at
--      $facts              parquet: pair_id (unique), contrast: what the images look like
--      $min_bytes          smallest stored file kept, in bytes
--      $min_side_px        shortest side of the original kept, in pixels
--      $max_aspect_ratio   largest long / short side of the original kept
--      $min_contrast       least standard deviation of the colours kept
-- out  pair_id, rule_reason, rule_value; only rows that a rule drops, unique on pair_id
with images as (
    select
        results.pair_id,
        results.stored_bytes,
        least(original_width_px, original_height_px) as short_side_px,
        greatest(original_width_px, original_height_px) as long_side_px,
        facts.contrast,
    from read_parquet($results) as results
    inner join read_parquet($facts) as facts on results.pair_id = facts.pair_id
    where results.status = 'ok'
),

judged as (
    select
        *,
        case
            when stored_bytes < $min_bytes then 'small_file'
            when short_side_px < $min_side_px then 'small_image'
            when long_side_px / short_side_px > $max_aspect_ratio then 'aspect_ratio'
            when contrast < $min_contrast then 'blank_image'
        end as rule_reason,
    from images
)

select
    pair_id,
    rule_reason,
    case rule_reason
        when 'small_file' then stored_bytes::varchar
        when 'small_image' then short_side_px::varchar
        when 'aspect_ratio' then round(long_side_px / short_side_px, 4)::varchar
        when 'blank_image' then round(contrast, 4)::varchar
    end as rule_value,
from judged
where rule_reason is not null
