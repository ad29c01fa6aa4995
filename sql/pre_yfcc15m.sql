-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   yfcc15m, version 1
-- source   CLIP (Radford 2021, arXiv 2103.00020, section 2.2): of YFCC100M the photographs with natural language in title or
--          description, in English; 15 million remained
-- holds    no file names (20160716_113957.JPG), no camera exposure settings, English
-- not      how natural language was told, which was not published; the exact photographs are a published list of numbers, and a
--          list is a source, not a rule
-- in   $pairs   parquet of one part: row, caption, lang, lang_score, is_file_name; unique on row
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
-- Our reading of exposure settings: two or more different ones of aperture (f/2.8), time (1/250 s), sensitivity (ISO 400), focal
-- length (50 mm), compensation (0.3 EV). One alone may be spoken of in a sentence.
with counted as (
    select
        *,
        regexp_matches(caption, '(?i)\b(f/? ?\d{1,2}(\.\d)?|ƒ/? ?\d{1,2}(\.\d)?)\b')::integer
        + regexp_matches(caption, '(?i)\b(1/\d{1,5} ?(s|sec|secs|seconds?)?|\d+(\.\d+)? ?(sec|secs|seconds?))\b')::integer
        + regexp_matches(caption, '(?i)\biso[ :-]*\d{2,6}\b')::integer
        + regexp_matches(caption, '(?i)\b\d{1,4}(\.\d)? ?mm\b')::integer
        + regexp_matches(caption, '(?i)\d(\.\d+)? ?ev\b')::integer as exposure_settings,
    from read_parquet($pairs)
),

judged as (
    select
        *,
        case
            when is_file_name then 'file_name_caption'
            when exposure_settings >= 2 then 'exposure_settings'
            when lang is distinct from 'en' then 'language'
        end as rule_reason,
    from counted
)

select
    row,
    rule_reason,
    case rule_reason
        when 'language' then coalesce(lang || ' ' || round(lang_score, 2)::varchar, 'unknown')
        else left(caption, 100)
    end as rule_value,
from judged
where rule_reason is not null
