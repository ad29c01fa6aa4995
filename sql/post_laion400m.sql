-- Images that the preset drops after the download, each with the first rule that says so and the value that decided it.
-- preset   laion400m, version 2
-- source   LAION-400M (Schuhmann 2021, arXiv 2111.02114; laion.ai/blog/laion-400-open-dataset)
-- holds    5 KB (5,000 bytes) or more, of the file as it came
-- not      scores of CLIP (a model)
-- in   $results   parquet as in download_results.sql; only rows with status 'ok' are looked at
-- out  pair_id, rule_reason, rule_value; only rows that a rule drops, unique on pair_id
with images as (
    select
        pair_id,
        original_bytes,
    from read_parquet($results)
    where status = 'ok'
),

judged as (
    select
        *,
        case
            when original_bytes < 5000 then 'small_file'
        end as rule_reason,
    from images
)

select
    pair_id,
    rule_reason,
    case rule_reason
        when 'small_file' then original_bytes::varchar
    end as rule_value,
from judged
where rule_reason is not null
