-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   align, version 1
-- source   ALIGN (Jia 2021, arXiv 2102.05918, section 3)
-- holds    3 to 20 unigrams; a caption on more than 10 images and an image with more than 1000 captions are dropped by the global
--          pass, from the numbers in pipeline/rules.py
-- not      rare tokens (outside the 100 million most frequent uni- and bi-grams of the raw pool, which is not published);
--          near-duplicates of test images (their embedding; exact copies are dropped by the image rules)
-- in   $pairs   parquet of one part: row, words; unique on row
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
-- A unigram is what stands between spaces; the paper does not name its tokeniser, and no rule for the language.
select
    row,
    case when words < 3 then 'few_words' else 'many_words' end as rule_reason,
    words::varchar as rule_value,
from read_parquet($pairs)
where words < 3 or words > 20
