-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   cc12m, version 2
-- source   Conceptual 12M (Changpinyo 2021, arXiv 2102.08981, section 2.1), over Conceptual Captions (Sharma 2018)
-- holds    3 to 256 words; at most 0.2 of the words repeated
-- not      noun and determiner needed, persons' names masked (a tagger); rare words (the vocabulary of the whole pool); profanity,
--          boilerplate (lists that were not published); text against the labels of an image classifier (a model).
--          No rule for the language was published, it came with the taggers: all languages pass
-- in   $pairs   parquet of one part: row, caption_key, words; unique on row
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
-- Our reading of repetition: the share of words that occurred before in the caption, letter case aside.
with counted as (
    select row, words, words - len(list_distinct(string_split(caption_key, ' '))) as repeated_words,
    from read_parquet($pairs)
),

judged as (
    select
        *,
        case
            when words < 3 then 'few_words'
            when words > 256 then 'many_words'
            when repeated_words * 5 > words then 'word_repetition'
        end as rule_reason,
    from counted
)

select
    row,
    rule_reason,
    case rule_reason
        when 'word_repetition' then round(repeated_words / words, 4)::varchar
        else words::varchar
    end as rule_value,
from judged
where rule_reason is not null
