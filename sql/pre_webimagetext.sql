-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   webimagetext, version 1
-- source   this project; the values are fields of CurateConfig, with their sources
-- holds    length of the caption, file names as captions, number of words, language
-- not      balancing by query, and scores of models: other stages
-- in   $pairs                  parquet of one part: row, caption, chars, words, lang, lang_score, is_file_name; unique on row
--      $min_chars, $max_chars  shortest and longest caption kept, in characters
--      $min_words              fewest words kept
--      $languages              languages kept; an empty list keeps all
--      $min_language_score     least confidence of the language detector, 0 to 1
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
-- Words are what stands between spaces, so languages that are written without them cannot have too few.
with judged as (
    select
        *,
        case
            when chars < $min_chars then 'short_caption'
            when chars > $max_chars then 'long_caption'
            when is_file_name then 'file_name_caption'
            when words < $min_words and coalesce(lang, '') not in ('ja', 'zh', 'th', 'lo', 'km', 'my', 'bo') then 'few_words'
            when len($languages) > 0 and (
                lang is null or not list_contains($languages, lang) or lang_score < $min_language_score
            ) then 'language'
        end as rule_reason,
    from read_parquet($pairs)
)

select
    row,
    rule_reason,
    case rule_reason
        when 'short_caption' then chars::varchar
        when 'long_caption' then chars::varchar
        when 'file_name_caption' then left(caption, 100)
        when 'few_words' then words::varchar
        when 'language' then coalesce(lang || ' ' || round(lang_score, 2)::varchar, 'unknown')
    end as rule_value,
from judged
where rule_reason is not null
