-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   datacomp_caption, version 1
-- source   DataComp (Gadre 2023, arXiv 2304.14108; baselines/apply_filter.py of its code), caption filter of the image-based filtering
-- holds    more than 5 characters; more than 1 word; fastText's most likely language is English, whatever its score
-- not      what it was used with: clusters near ImageNet's images (a model)
-- in   $pairs   parquet of one part: row, chars, words, lang, lang_score; unique on row
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
-- Our language detector is fastText's lid.176.ftz, the compressed form of the model used there.
with judged as (
    select
        *,
        case
            when chars <= 5 then 'short_caption'
            when words <= 1 then 'few_words'
            when lang is distinct from 'en' then 'language'
        end as rule_reason,
    from read_parquet($pairs)
)

select
    row,
    rule_reason,
    case rule_reason
        when 'short_caption' then chars::varchar
        when 'few_words' then words::varchar
        when 'language' then coalesce(lang || ' ' || round(lang_score, 2)::varchar, 'unknown')
    end as rule_value,
from judged
where rule_reason is not null
