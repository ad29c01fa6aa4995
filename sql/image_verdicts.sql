-- One row per selected pair, with the first reason that drops it (null = kept) and the value that decided it.
-- in   $selected          parquet files: pair_id (unique), url, page_url, caption, text_key, source
--      $results           parquet files of the downloads, as in download_results.sql, one per part and pass, in the order of passes, then parts
--      $retried_files     so many of $results, from the first on, were tried again: their rows with a reason of $passing_reasons
--      $passing_reasons   are in a later file once more, and only the last one counts
--      $dropped           parquet files: pair_id (unique), rule_reason, rule_value: what the preset and the scores drop, as in
--                         post_*.sql and scored_images.sql
--      $images            parquet as in distinct_images.sql
--      $copies            parquet as in evaluation_copies.sql: images that must not be trained on
--      $near_duplicates   parquet as in near_duplicates.sql
-- out  pair_id, url, page_url, caption, text_key, source, captions (all of the image's, own first; null if dropped), drop_reason,
--      decided_by, width_px, height_px, original_width_px, original_height_px, stored_bytes, sha256, part, key; unique on pair_id
-- Of pairs with the same image bytes the one with the smallest pair_id is kept, and takes the captions of the others; those of near
-- duplicates are dropped with them, for they may tell what only their picture shows. decided_by of a duplicate is a kept pair.
with selected as (
    select pair_id, url, page_url, caption, text_key, source,
    from read_parquet($selected)
),

results as (
    select *, file_index as part,
    from read_parquet($results)
    where file_index >= $retried_files or status not in (select unnest($passing_reasons))
),

-- Narrow: only what decides. Captions and addresses are joined to the verdicts, not carried through them.
image_reasons as (
    select
        results.pair_id,
        results.sha256,
        case
            when status <> 'ok' then status
            when dropped.rule_reason is not null then dropped.rule_reason
            when copies.sha256 is not null then 'evaluation_copy'
            when near_duplicates.sha256 is not null then 'near_duplicate'
        end as image_reason,
        case
            when status <> 'ok' then error
            when dropped.rule_reason is not null then dropped.rule_value
            when copies.sha256 is not null then copies.copied
            when near_duplicates.sha256 is not null then near_duplicates.kept_pair_id
        end as image_value,
    from results
    left join read_parquet($dropped) as dropped on results.pair_id = dropped.pair_id
    left join read_parquet($copies) as copies on results.sha256 = copies.sha256
    left join read_parquet($near_duplicates) as near_duplicates on results.sha256 = near_duplicates.sha256
),

images as (
    select sha256, pair_id as kept_pair_id, pairs,
    from read_parquet($images)
),

verdicts as (
    select
        image_reasons.pair_id,
        coalesce(
            image_reason, case when image_reasons.pair_id <> images.kept_pair_id then 'duplicate_image' end
        ) as drop_reason,
        case
            when image_reason is not null then image_value
            when image_reasons.pair_id <> images.kept_pair_id then images.kept_pair_id
        end as decided_by,
    from image_reasons
    left join images on image_reasons.sha256 = images.sha256
),

-- Only images that several pairs share: lists do not spill, and these are few.
shared_captions as (
    select images.kept_pair_id as pair_id, list_sort(list(distinct selected.caption)) as captions,
    from images
    inner join image_reasons on images.sha256 = image_reasons.sha256 and image_reasons.image_reason is null
    inner join selected on image_reasons.pair_id = selected.pair_id
    where images.pairs > 1
    group by images.kept_pair_id
)

select
    selected.*,
    case
        when verdicts.drop_reason is not null then null
        else [selected.caption] || coalesce(list_filter(shared_captions.captions, lambda other: other <> selected.caption), [])
    end as captions,
    verdicts.drop_reason,
    verdicts.decided_by,
    results.width_px,
    results.height_px,
    results.original_width_px,
    results.original_height_px,
    results.stored_bytes,
    results.sha256,
    results.part,
    results.key,
from selected
inner join results on selected.pair_id = results.pair_id
inner join verdicts on selected.pair_id = verdicts.pair_id
left join shared_captions on selected.pair_id = shared_captions.pair_id
order by selected.pair_id
