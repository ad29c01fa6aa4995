-- One row per candidate pair, with the first rule that drops it (null = kept) and the value that decided it.
-- in   $pairs                  parquet files: part, source, row, pair_id, url, url_norm, host, caption_raw, caption, caption_key, page_url,
--                              text_key, page_opt_out, chars, words, lang, lang_score, is_file_name
--      $min_chars, $max_chars  shortest and longest caption kept, in characters
--      $min_words              fewest words kept
--      $languages              languages kept; an empty list keeps all
--      $min_language_score     least confidence of the language detector, 0 to 1
--      $max_images             a caption on more distinct images is boilerplate
--      $max_captions           an image with more distinct captions is dropped
--      $obey_opt_out           drop pairs of pages that opt out
-- out  part, source, row, pair_id, drop_reason, decided_by; unique on (part, row)
-- Words are what stands between spaces, so languages that are written without them cannot have too few.
-- The two frequencies count each pair once and only pairs that passed the rules above them, so that what one page repeats
-- a hundred times does not look like a hundred images.
with pairs as (
    select
        part, source, row, pair_id, url, url_norm, caption, caption_key, page_opt_out, chars, words, lang, lang_score, is_file_name,
    from read_parquet($pairs)
),

rule_verdicts as (
    select
        *,
        case
            when url_norm is null then 'invalid_url'
            when caption is null or caption = '' then 'no_caption'
            when $obey_opt_out and page_opt_out is not null then 'opted_out'
            when chars < $min_chars then 'short_caption'
            when chars > $max_chars then 'long_caption'
            when is_file_name then 'file_name_caption'
            when words < $min_words and coalesce(lang, '') not in ('ja', 'zh', 'th', 'lo', 'km', 'my', 'bo') then 'few_words'
            when len($languages) > 0 and (
                lang is null or not list_contains($languages, lang) or lang_score < $min_language_score
            ) then 'language'
        end as rule_reason,
    from pairs
),

-- The copy that stands for a repeated pair is the first by (part, row).
ranked as (
    select
        *,
        row_number() over (partition by pair_id, rule_reason is null order by part, row) as copy_number,
    from rule_verdicts
),

caption_images as (
    select caption_key, count(distinct url_norm) as images,
    from ranked
    where rule_reason is null and copy_number = 1
    group by caption_key
),

image_captions as (
    select url_norm, count(distinct caption_key) as captions,
    from ranked
    where rule_reason is null and copy_number = 1
    group by url_norm
),

verdicts as (
    select
        ranked.part,
        ranked.source,
        ranked.row,
        ranked.pair_id,
        case
            when rule_reason is not null then rule_reason
            when copy_number > 1 then 'duplicate_pair'
            when images > $max_images then 'frequent_caption'
            when captions > $max_captions then 'many_captions'
        end as drop_reason,
        case
            when rule_reason = 'invalid_url' then left(coalesce(url, ''), 100)
            when rule_reason = 'opted_out' then page_opt_out
            when rule_reason in ('short_caption', 'long_caption') then chars::varchar
            when rule_reason = 'file_name_caption' then left(caption, 100)
            when rule_reason = 'few_words' then words::varchar
            when rule_reason = 'language' then coalesce(lang || ' ' || round(lang_score, 2)::varchar, 'unknown')
            when rule_reason is not null then null
            when copy_number > 1 then copy_number::varchar
            when images > $max_images then images::varchar
            when captions > $max_captions then captions::varchar
        end as decided_by,
    from ranked
    left join caption_images using (caption_key)
    left join image_captions using (url_norm)
)

select * from verdicts
order by part, row
