-- Pairs that the preset drops before the download, each with the first rule that says so and the value that decided it.
-- preset   laion400m, version 2
-- source   LAION-400M (Schuhmann 2021, arXiv 2111.02114; laion.ai/blog/laion-400-open-dataset)
-- holds    at least 5 characters; the same URL with the same text once (every preset does that, exactly, where LAION had a Bloom
--          filter that also lost some)
-- not      CLIP ViT-B/32 similarity of 0.3 or more, and NSFW with minors by CLIP (scores of a model); URLs that timed out once
--          (the download stage tells them). No rule for the language was published with these: all languages pass
-- in   $pairs   parquet of one part: row, chars; unique on row
-- out  row, rule_reason, rule_value; only rows that a rule drops, unique on row
select
    row,
    'short_caption' as rule_reason,
    chars::varchar as rule_value,
from read_parquet($pairs)
where chars < 5
