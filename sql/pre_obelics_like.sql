-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   obelics_like, version 2
-- source   OBELICS (Laurencon 2023, arXiv 2306.16527), the text rules of web documents; "like", for they are meant for paragraphs
-- holds    4 to 1000 words; special characters at most 0.3; repetition of 10 characters at most 0.1, of 5 words at most 0.1; from
--          12 words on, punctuation at least 0.001; fastText says English with 0.8 or more
-- not      stop words, flagged words, common words (lists that are not ours to ship, and captions have few stop words);
--          perplexity (a model)
-- in   $pairs   parquet of one part: row, caption, caption_key, chars, words, lang, lang_score; unique on row
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
-- Special: neither letter nor mark, so digits, punctuation, symbols and spaces (published as a list), as a share of the characters.
-- Repetition of characters: of all runs of 10 characters the share that the most frequent runs hold, as many of these as the
-- root of the number of distinct runs, but only runs that occur twice or more. Repetition of words: the share of runs of 5 words
-- (letter case aside) that occur twice or more. Punctuation: of the characters. Shares are compared as whole numbers.
with split as (
    select
        row, caption, chars, words, lang, lang_score,
        string_split(caption_key, ' ') as tokens,
        coalesce(length(regexp_replace(caption, '[\p{L}\p{M}]', '', 'g')), 0) as special_chars,
        coalesce(length(regexp_replace(caption, '[^\p{P}]', '', 'g')), 0) as punctuation_chars,
    from read_parquet($pairs)
),

runs as (
    select
        *,
        map_values(list_aggregate(list_transform(range(1, chars - 8), lambda start: substr(caption, start, 10)), 'histogram'))
            as char_runs,
        map_values(
            list_aggregate(
                list_transform(range(1, words - 3), lambda start: array_to_string(tokens[start:start + 4], ' ')), 'histogram'
            )
        ) as word_runs,
    from split
),

counted as (
    select
        *,
        coalesce(list_sum(char_runs), 0) as all_char_runs,
        coalesce(list_sum(word_runs), 0) as all_word_runs,
        coalesce(list_sum(list_filter(word_runs, lambda times: times > 1)), 0) as repeated_word_runs,
        coalesce(
            list_sum(list_reverse_sort(list_filter(char_runs, lambda times: times > 1))[:floor(sqrt(len(char_runs)))::bigint]), 0
        ) as repeated_char_runs,
    from runs
),

judged as (
    select
        *,
        case
            when words < 4 then 'few_words'
            when words > 1000 then 'many_words'
            when special_chars * 10 > chars * 3 then 'special_characters'
            when repeated_char_runs * 10 > all_char_runs then 'character_repetition'
            when repeated_word_runs * 10 > all_word_runs then 'word_repetition'
            when words >= 12 and punctuation_chars * 1000 < chars then 'no_punctuation'
            when lang is distinct from 'en' or lang_score < 0.8::float then 'language'
        end as rule_reason,
    from counted
)

select
    row,
    rule_reason,
    case rule_reason
        when 'special_characters' then round(special_chars / chars, 4)::varchar
        when 'character_repetition' then round(repeated_char_runs / all_char_runs, 4)::varchar
        when 'word_repetition' then round(repeated_word_runs / all_word_runs, 4)::varchar
        when 'no_punctuation' then round(punctuation_chars / chars, 4)::varchar
        when 'language' then coalesce(lang || ' ' || round(lang_score, 2)::varchar, 'unknown')
        else words::varchar
    end as rule_value,
from judged
where rule_reason is not null
